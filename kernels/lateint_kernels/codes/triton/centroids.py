"""Products of query tokens with centroids, or with the centres of their cells: signed bytes, int32 sums, all exact.

Of a group of neighbours only the largest product is stored at first.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.codes.triton.codes import load_rows


@triton.jit
def group_tops(
    queries, tokens, centres, rows,
    DEPTH: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``[BLOCK_M, BLOCK_N // GROUP]``: the largest product of each of BLOCK_M tokens with each group of centres."""
    found = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
    for k in tl.range(0, DEPTH, BLOCK_K, num_stages=STAGES):
        q = load_rows(queries, tokens, k, DEPTH, BLOCK_K)
        c = load_rows(centres, rows, k, DEPTH, BLOCK_K)
        found = tl.dot(q, tl.trans(c), found, out_dtype=tl.int32)
    return tl.max(tl.reshape(found, [BLOCK_M, BLOCK_N // GROUP, GROUP]), 2)


@triton.jit(do_not_specialize=["T", "K", "groups", "blocks"])
def group_maxima(
    queries, centres, maxima, T, K, groups, blocks,
    DEPTH: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``maxima[t, g]``: the largest product of a query token with centres ``g * GROUP : (g + 1) * GROUP``.

    Program: BLOCK_N centres with BLOCK_M tokens; ``blocks`` blocks of tokens meet the same centres.
    """
    row = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(0) // blocks * BLOCK_N
    centre = tl.minimum(first + tl.arange(0, BLOCK_N), K - 1)  # the last one again, in its own group
    tokens = tl.minimum(row, T - 1)
    top = group_tops(queries, tokens, centres, centre, DEPTH, GROUP, BLOCK_M, BLOCK_N, BLOCK_K, STAGES)
    group = first // GROUP + tl.arange(0, BLOCK_N // GROUP)
    target = maxima + row.to(tl.int64)[:, None] * groups + group[None, :]
    tl.store(target, top, mask=(row < T)[:, None] & (group < groups)[None, :])


@triton.jit
def tile_of_cell(order, starts, firsts, offsets, cell, BLOCK: tl.constexpr):
    """What a program's tile of a `TileList` is: its pairs, BLOCK of them, of which some are there; and its centres.

    Pairs ``order[firsts[tile]:]``: those of cell c end at ``starts[c + 1]``, and the last one is repeated. The centres
    of cell c are ``offsets[c]:offsets[c + 1]``.
    """
    place = tl.load(firsts + tl.program_id(0)) + tl.arange(0, BLOCK)
    end = tl.load(starts + cell + 1)
    pair = tl.load(order + tl.minimum(place, end - 1))
    return pair, place < end, tl.load(offsets + cell).to(tl.int32), tl.load(offsets + cell + 1).to(tl.int32)


@triton.jit(do_not_specialize=["cells", "looked_into", "groups"])
def cell_maxima(
    queries, order, starts, tile_cells, tile_firsts, offsets, centres, maxima, cells, looked_into, groups,
    DEPTH: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``maxima[p, g]`` of pair p, token ``p // looked_into`` with one of its cells: of group g of the cell's centres.

    Program: a tile of at most BLOCK_M pairs of one cell. Programs past the last tile have no cell.
    """
    cell = tl.load(tile_cells + tl.program_id(0))
    if cell >= cells:
        return
    pair, there, first, last = tile_of_cell(order, starts, tile_firsts, offsets, cell, BLOCK_M)
    tokens = pair // looked_into
    for start in range(first, last, BLOCK_N):
        centre = tl.minimum(start + tl.arange(0, BLOCK_N), last - 1)  # the last one again, in its own group
        top = group_tops(queries, tokens, centres, centre, DEPTH, GROUP, BLOCK_M, BLOCK_N, BLOCK_K, STAGES)
        group = tl.arange(0, BLOCK_N // GROUP)
        target = maxima + pair[:, None] * groups + (start - first) // GROUP + group[None, :]
        tl.store(target, top, mask=there[:, None] & (start + group * GROUP < last)[None, :])


@triton.jit(do_not_specialize=["members"])
def group_products(
    queries, centres, firsts, lasts, products, members,
    DEPTH: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """``products[t, p, j]`` of a query token with centre ``firsts[t, p] + j``; the least number from ``lasts`` on.

    Program: a token with one of its ``members`` groups.
    """
    token = (tl.program_id(0) // members).to(tl.int64)
    place = tl.load(firsts + tl.program_id(0)) + tl.arange(0, GROUP)
    counts = place < tl.load(lasts + tl.program_id(0))
    centre = tl.where(counts, place, 0)
    total = tl.zeros([GROUP], tl.int32)
    for k in tl.range(0, DEPTH, BLOCK_K):
        columns = k + tl.arange(0, BLOCK_K)
        q = tl.load(queries + token * DEPTH + columns, mask=columns < DEPTH, other=0).to(tl.int32)
        c = load_rows(centres, centre, k, DEPTH, BLOCK_K).to(tl.int32)
        total += tl.sum(c * q[None, :], 1)
    total = tl.where(counts, total, -(2**31))
    tl.store(products + tl.program_id(0).to(tl.int64) * GROUP + tl.arange(0, GROUP), total)
