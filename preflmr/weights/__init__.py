"""Weights on disk: every known layout, read and written."""
