"""An index on disk; knows no query."""
