"""Residual codes of tokens, with the bits of csrc/codes/residual_generic.hpp: to be compiled without fused products."""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def round_even(x):
    """To the nearest integer, for numbers below 2^22: beyond 1.5 * 2^23, float32 has no fractions."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def load_rest(scaled, centroids, row, centroid, column, WIDTH: tl.constexpr, DEPTH: tl.constexpr):
    """Of tokens ``row`` after their centroids, at components ``column``: rest and centroid, ``[rows, columns]``."""
    x = tl.load(scaled + row.to(tl.int64)[:, None] * WIDTH + column[None, :])
    c = tl.load(centroids + centroid.to(tl.int64)[:, None] * DEPTH + column[None, :])
    return tl.minimum(tl.maximum(x, -128.0), 127.0) - c.to(tl.float32), c.to(tl.int32)


@triton.jit
def pick(rest, inverse, TOP: tl.constexpr):
    """The nearest levels: ``[rows, columns]`` float32."""
    return round_even(tl.minimum(tl.maximum(rest * inverse[:, None] + TOP / 2, 0.0), TOP))


@triton.jit
def sum8(lanes):
    """``((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))`` of ``[rows, 8]``."""
    ROWS: tl.constexpr = lanes.shape[0]
    a, b = tl.split(tl.permute(tl.reshape(lanes, [ROWS, 2, 4]), [0, 2, 1]))
    a, b = tl.split(tl.permute(tl.reshape(a + b, [ROWS, 2, 2]), [0, 2, 1]))
    a, b = tl.split(a + b)
    return a + b


@triton.jit
def decoded(code, centroid, scale, TOP: tl.constexpr, UNIT: tl.constexpr):
    """What codes stand for, not cut to a byte: see docs/format.md."""
    twice = 2 * code - TOP
    size = (tl.abs(twice) * scale[:, None] + UNIT) // (2 * UNIT)
    return centroid + tl.where(twice > 0, size, -size)


@triton.jit(do_not_specialize=["T"])
def encode(
    scaled, ids, centroids, codes, scales, T,
    NBITS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, START: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Codes ``[T, WIDTH * NBITS / 8]`` and scales ``[T]``; START is the distance of levels to begin with.

    Program: ROWS tokens, whose components are read anew in every pass, from the cache. Sums have eight lanes, each in
    order.
    """
    TOP: tl.constexpr = 2**NBITS - 1
    UNIT: tl.constexpr = 16 if NBITS == 4 else 4
    BYTES: tl.constexpr = WIDTH * NBITS // 8
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.minimum(place, T - 1)
    centroid = tl.load(ids + row)
    lane = tl.arange(0, 8)
    squares = tl.zeros([ROWS, 8], tl.float32)
    for k in range(0, WIDTH, 8):
        rest = load_rest(scaled, centroids, row, centroid, k + lane, WIDTH, DEPTH)[0]
        squares += rest * rest
    width = tl.full([ROWS], WIDTH, tl.float32)
    one = tl.full([ROWS], 1, tl.float32)
    distance = tl.sqrt_rn(tl.div_rn(sum8(squares), width)) * START
    for _fit in tl.static_range(2):
        inverse = tl.div_rn(one, distance)
        over, under = tl.zeros([ROWS, 8], tl.float32), tl.zeros([ROWS, 8], tl.float32)
        for k in range(0, WIDTH, 8):
            rest = load_rest(scaled, centroids, row, centroid, k + lane, WIDTH, DEPTH)[0]
            level = pick(rest, inverse, TOP) - TOP / 2
            over += rest * level
            under += level * level
        distance = tl.where(distance > 0, tl.div_rn(sum8(over), sum8(under)), distance)
    scale = round_even(tl.minimum(tl.maximum(distance * UNIT, 1.0), 255.0))
    inverse = tl.div_rn(one * UNIT, scale)
    whole = scale.to(tl.int32)
    for first in range(0, BYTES, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        there = tl.minimum(column, BYTES - 1)
        packed = tl.zeros([ROWS, COLUMNS], tl.int32)
        for plane in tl.static_range(8 // NBITS):
            rest, c = load_rest(scaled, centroids, row, centroid, plane * BYTES + there, WIDTH, DEPTH)
            code = pick(rest, inverse, TOP).to(tl.int32)
            reached = decoded(code, c, whole, TOP, UNIT)
            if tl.max(tl.max(tl.maximum(reached - 127, -128 - reached), 1), 0) > 0:  # of few tokens, if any
                for _step in range(TOP):
                    code -= ((decoded(code, c, whole, TOP, UNIT) > 127) & (code > 0)).to(tl.int32)
                for _step in range(TOP):
                    code += ((decoded(code, c, whole, TOP, UNIT) < -128) & (code < TOP)).to(tl.int32)
            packed |= code << (plane * NBITS)
        target = codes + row.to(tl.int64)[:, None] * BYTES + column[None, :]
        tl.store(target, packed.to(tl.uint8), mask=(place < T)[:, None] & (column < BYTES)[None, :])
    tl.store(scales + row, whole.to(tl.uint8), mask=place < T)
