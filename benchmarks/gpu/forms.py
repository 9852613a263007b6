"""Other forms of what the Triton kernels do, to be counted beside the one that they have."""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense.triton.tiles import largest


@triton.jit
def compared(x, MATRIX: tl.constexpr):
    """The maximum, and then the first column that is equal to it: two passes."""
    top = largest(x)
    columns = tl.arange(0, x.shape[1])
    return top, tl.min(tl.where(x == top[:, None], columns[None, :], x.shape[1]), 1)


@triton.jit
def packed(x, MATRIX: tl.constexpr):
    """Number and column in one integer; of 64 bits, for with 32 the column would cost bits of the number."""
    N: tl.constexpr = x.shape[1]
    bits = x.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers in the order of the numbers
    key = tl.max((ordered.to(tl.int64) << 32) | (N - 1 - tl.arange(0, N))[None, :], 1)
    ordered = (key >> 32).to(tl.int32)
    top = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    return top, N - 1 - (key & 0xFFFFFFFF).to(tl.int32)
