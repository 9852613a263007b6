"""From one state of an index to the next: what a writer does; knows no search."""
