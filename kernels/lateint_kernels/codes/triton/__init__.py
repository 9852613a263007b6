"""Search and build by Triton kernels."""
