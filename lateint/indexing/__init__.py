"""From documents to residual codes: what a build does."""
