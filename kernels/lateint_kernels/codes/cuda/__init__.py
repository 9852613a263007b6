"""Search by hand-written CUDA kernels."""
