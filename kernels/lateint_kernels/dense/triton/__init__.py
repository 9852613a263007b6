"""MaxSim by Triton kernels."""
