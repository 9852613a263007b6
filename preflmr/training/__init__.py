"""Training: recipes, batches, the loss, the loop, and what a run leaves on disk."""
