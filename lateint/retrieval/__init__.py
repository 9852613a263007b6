"""From queries to hits: what a search does; knows no disk."""
