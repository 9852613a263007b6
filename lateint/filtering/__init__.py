"""Which documents a condition on their fields holds for: its tree, two notations of it, and masks; knows no tokens."""
