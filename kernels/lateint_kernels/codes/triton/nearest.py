"""The centres nearest to tokens: products of signed bytes whose maxima are found in registers, never stored."""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.codes.triton.centroids import tile_of_cell
from lateint_kernels.codes.triton.codes import load_rows


@triton.jit
def packed_products(
    tokens, q, row, centres, half_squares, start, last,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``<token, centre> - half square`` of BLOCK_N centres from ``start`` on, with the column in the low bits.

    The lowest column among equals has the largest number. Where the tile reaches past ``last``, the last centre is
    repeated: in higher columns, which no maximum prefers. Nothing exceeds 32 bits while ``BLOCK_N * depth * 24576 <
    2^31``, for a product is at least ``-16256 depth`` and half a square at most ``8192 depth``.
    """
    column = tl.arange(0, BLOCK_N)
    centre = tl.minimum(start + column, last - 1)
    if BLOCK_K == DEPTH:
        found = tl.dot(q, tl.trans(load_rows(centres, centre, 0, DEPTH, BLOCK_K)), out_dtype=tl.int32)
    else:
        found = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
        for k in range(0, DEPTH, BLOCK_K):
            part = load_rows(tokens, row, k, DEPTH, BLOCK_K)
            found = tl.dot(part, tl.trans(load_rows(centres, centre, k, DEPTH, BLOCK_K)), found, out_dtype=tl.int32)
    bias = (BLOCK_N - 1 - column) - tl.load(half_squares + centre) * BLOCK_N
    return found * BLOCK_N + bias[None, :]


@triton.jit
def keys_of(packed, start, C, BLOCK_N: tl.constexpr):
    """As `lateint_kernels.codes.torch.build.best` has them, of numbers as `packed_products` gives them."""
    value = (packed - (packed & (BLOCK_N - 1))) // BLOCK_N
    centre = start + (BLOCK_N - 1) - (packed & (BLOCK_N - 1))
    return value.to(tl.int64) * (1 << 24) + (C - 1 - centre)


@triton.jit(do_not_specialize=["T", "C"])
def nearest(
    tokens, centres, half_squares, keys, T, C,
    DEPTH: tl.constexpr, COUNT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``keys[t]``: those of the COUNT nearest of all C centres to a token, best first; COUNT is 4 at most.

    Program: BLOCK_M tokens.
    """
    place = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(place, T - 1)
    q = load_rows(tokens, row, 0, DEPTH, BLOCK_K)
    a = tl.full([BLOCK_M], -(2**62), tl.int64)
    b, c, d = a, a, a
    for start in tl.range(0, C, BLOCK_N, num_stages=STAGES):
        packed = packed_products(tokens, q, row, centres, half_squares, start, C, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K)
        if COUNT > 1:  # or a repeated centre would come second
            packed = tl.where((start + tl.arange(0, BLOCK_N) < C)[None, :], packed, -(2**31))
        top = tl.max(packed, 1)
        for i in tl.static_range(COUNT):
            if i > 0:
                top = tl.max(tl.where(packed < top[:, None], packed, -(2**31)), 1)
            key = keys_of(top, start, C, BLOCK_N)
            a, key = tl.maximum(a, key), tl.minimum(a, key)
            if COUNT > 1:
                b, key = tl.maximum(b, key), tl.minimum(b, key)
            if COUNT > 2:
                c, key = tl.maximum(c, key), tl.minimum(c, key)
            if COUNT > 3:
                d = tl.maximum(d, key)
    target, inside = keys + place.to(tl.int64) * COUNT, place < T
    tl.store(target, a, mask=inside)
    if COUNT > 1:
        tl.store(target + 1, b, mask=inside)
    if COUNT > 2:
        tl.store(target + 2, c, mask=inside)
    if COUNT > 3:
        tl.store(target + 3, d, mask=inside)


@triton.jit(do_not_specialize=["C", "cells"])
def all_in_cell(
    tokens, order, starts, tile_cells, tile_firsts, offsets, centres, half_squares, keys, C, cells,
    DEPTH: tl.constexpr, SEARCHED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``keys[p, j]``: that of centre j of the cell of pair p, which has BLOCK_N at most; -(2^62) where it has none.

    Pairs and programs are those of `nearest_in_cell`.
    """
    cell = tl.load(tile_cells + tl.program_id(0))
    if cell >= cells:
        return
    pair, there, first, last = tile_of_cell(order, starts, tile_firsts, offsets, cell, BLOCK_M)
    row = pair // SEARCHED
    q = load_rows(tokens, row, 0, DEPTH, BLOCK_K)
    packed = packed_products(tokens, q, row, centres, half_squares, first, last, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K)
    column = tl.arange(0, BLOCK_N)
    found = tl.where((first + column < last)[None, :], keys_of(packed, first, C, BLOCK_N), -(2**62))
    tl.store(keys + pair[:, None] * BLOCK_N + column[None, :], found, mask=there[:, None])


@triton.jit(do_not_specialize=["C", "cells"])
def nearest_in_cell(
    tokens, order, starts, tile_cells, tile_firsts, offsets, centres, half_squares, keys, C, cells,
    DEPTH: tl.constexpr, SEARCHED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``keys[p]``: that of the nearest centre for pair p, which is token ``p // SEARCHED`` with one of its cells.

    Program: a tile of at most BLOCK_M pairs of one cell. Programs past the last tile have no cell.
    """
    cell = tl.load(tile_cells + tl.program_id(0))
    if cell >= cells:
        return
    pair, there, first, last = tile_of_cell(order, starts, tile_firsts, offsets, cell, BLOCK_M)
    row = pair // SEARCHED
    q = load_rows(tokens, row, 0, DEPTH, BLOCK_K)
    best = tl.full([BLOCK_M], -(2**62), tl.int64)
    for start in tl.range(first, last, BLOCK_N, num_stages=STAGES):
        packed = packed_products(tokens, q, row, centres, half_squares, start, last, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K)
        best = tl.maximum(best, keys_of(tl.max(packed, 1), start, C, BLOCK_N))
    tl.store(keys + pair, best, mask=there)
