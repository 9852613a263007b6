"""Indexes of other libraries as documents for a build: docs/converting.md says what is kept."""
