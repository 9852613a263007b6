"""How good a search is: collections, runs and measures."""
