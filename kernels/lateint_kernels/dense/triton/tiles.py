"""What forward and backward kernels share: loading tokens, products, and where queries and documents lie."""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.gpu.launch import INTERPRETED


@triton.jit
def dot(left, right, total):
    """``total + left @ right`` in float32: bfloat16 and float16 products are exact, float32 ones are not shortened."""
    if INTERPRETED:
        # It would multiply bit patterns of bfloat16. And NumPy's float32 products of one token differ from column to
        # column on some processors, by bits that are lost when float64 is rounded.
        left, right = left.to(tl.float32).to(tl.float64), right.to(tl.float32).to(tl.float64)
        return (total.to(tl.float64) + tl.dot(left, right, input_precision="ieee")).to(tl.float32)
    else:
        return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """float32 rounded to the nearest number of another type."""
    if INTERPRETED and dtype == tl.bfloat16:  # the interpreter would cut off
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def larger(a, b):
    """The larger one, NaN if either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest(x, AXIS: tl.constexpr = 1):
    """The largest number of each row of ``[M, N]``, or along another axis; NaN if there is one."""
    if INTERPRETED:  # which would take them one by one
        unknown = x != x
        found = tl.max(tl.where(unknown, float("-inf"), x), AXIS)
        return tl.where(tl.sum(unknown.to(tl.int32), AXIS) > 0, float("nan"), found)
    else:
        return tl.reduce(x, AXIS, larger)


@triton.jit
def first_larger(a, i, u, b, j, w):
    """Of two numbers with their places and companions, what belongs to the larger one, or to the first of equals."""
    later = (b > a) | ((b == a) & (j < i))
    return larger(a, b), tl.where(later, j, i), tl.where(later, w, u)


@triton.jit
def largest_and_first(x, MATRIX: tl.constexpr):
    """The largest number of each row of ``[M, N]``, and the first column that holds it; any if the number is NaN.

    MATRIX: the matrix units made it, and left a thread two neighbours of every eight columns. Of neighbours the larger
    one is taken on with the left one, which tells in the end which of them it was. Then eights are counted: these are
    constants of the code, not of a thread, so the compiler knows which is first, and a number costs 2.5 instructions.
    """
    M: tl.constexpr = x.shape[0]
    N: tl.constexpr = x.shape[1]
    if INTERPRETED or not MATRIX:
        top = largest(x)
        return top, tl.min(tl.where(x == top[:, None], tl.arange(0, N)[None, :], N), 1)
    else:
        left, right = tl.split(tl.reshape(x, [M, N // 2, 2]))
        left = tl.reshape(left, [M, N // 8, 4])
        pair = larger(left, tl.reshape(right, [M, N // 8, 4]))
        eight = tl.arange(0, N // 8)[None, :, None] + tl.zeros(pair.shape, tl.int32)
        found, eight, left = tl.reduce((pair, eight, left), 1, first_larger)  # [M, 4]
        top = tl.reduce(found, 1, larger)
        column = eight * 8 + tl.arange(0, 4)[None, :] * 2 + tl.where(left == found, 0, 1)
        return top, tl.min(tl.where(found == top[:, None], column, N), 1)


@triton.jit
def load_tokens(tokens, rows, first, DIM: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Components ``first : first + BLOCK`` of tokens, 0 beyond DIM; WHOLE promises that there is nothing beyond."""
    columns = first + tl.arange(0, BLOCK)
    pointers = tokens + rows.to(tl.int64)[:, None] * DIM + columns[None, :]
    if WHOLE:
        return tl.load(pointers)  # [rows, BLOCK]
    else:
        return tl.load(pointers, mask=columns[None, :] < DIM, other=0.0)


@triton.jit
def extent(offsets, number, length):
    """First row and number of rows of a query or document; no offsets: all have one length."""
    if offsets is None:
        return number.to(tl.int64) * length, length + number * 0
    else:
        first = tl.load(offsets + number)
        return first, (tl.load(offsets + number + 1) - first).to(tl.int32)
