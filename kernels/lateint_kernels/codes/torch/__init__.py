"""Search and build in plain torch."""
