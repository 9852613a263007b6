"""Triton kernels for NVIDIA GPUs; with TRITON_INTERPRET=1 they run on CPU tensors."""
