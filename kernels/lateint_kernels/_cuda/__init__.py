"""Hand-written CUDA kernels (csrc/cuda), compiled by NVRTC at first use."""
