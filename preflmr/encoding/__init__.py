"""Texts and pictures to token embeddings, in this process or in several."""
