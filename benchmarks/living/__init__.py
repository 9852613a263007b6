"""What an index that changes costs and survives."""
