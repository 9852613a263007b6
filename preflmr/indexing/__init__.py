"""Passages and their index in one folder, and the tokens that go into it."""
