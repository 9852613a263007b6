"""MaxSim on a GPU, forward and backward, next to its rivals and to what the hardware could do."""
