"""Executes PTX without a GPU: what NVRTC and Triton really made of our kernels.

An interpreter written from the PTX ISA, which shares no code with the kernels. What it is strict about is what a GPU
leaves undefined: memory ends where an allocation ends, shared memory holds garbage at first, warps run in a random
order, asynchronous copies land and products are formed at any time that the ISA allows, and what has not been waited
for is poisoned. It knows the instructions that our kernels are compiled to, and says which one it does not know.

`program` reads the text; `block` has the registers and the memory of a thread block, `scheduler` runs it, and
`instructions` does the work, a module for each kind; `cuda` and `triton_launch` stand in for a GPU below our launchers.
It knows no caches, no contexts, no tcgen05, and nothing of time.
"""
