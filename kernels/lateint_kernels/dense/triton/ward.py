"""Ward's method on runs of tokens: what merging two of them costs, then one merge at a time, with the bits of C++.

Costs are float64, sums run over the components in their order, and launches fuse no operations, so clusters do not
depend on the device. Of every cluster the nearest of the later ones is kept. Where that one has changed, its cost is
only a bound that the true one is not below: it is looked for again when that bound is the least of all.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense import runs
from lateint_kernels.gpu.launch import INTERPRETED

FAR = tl.constexpr(runs.FAR)
MOST = tl.constexpr(runs.LONGEST)
LAST = tl.constexpr(2**31 - 1)


@triton.jit
def bounded(cost):
    """FAR for what is infinite or not a number."""
    return tl.where(cost < FAR, cost, FAR)


@triton.jit
def lesser(a, i, b, j):
    """Of two numbers with their places, the lesser, or the first of equals."""
    later = (b < a) | ((b == a) & (j < i))
    return tl.where(later, b, a), tl.where(later, j, i)


@triton.jit
def least_and_first(costs, places, AXIS: tl.constexpr):
    """The least cost along an axis, and the least of the places that hold it."""
    if INTERPRETED:  # which would take them one by one
        least = tl.min(costs, AXIS)
        here = costs == (least if AXIS == 0 else least[:, None])
        return least, tl.min(tl.where(here, places, LAST), AXIS)
    else:
        return tl.reduce((costs, places), AXIS, lesser)


@triton.jit(do_not_specialize=["T", "dim", "begin", "stride", "tiles"])
def fill_costs(
    tokens, firsts, lengths, costs, T, dim, begin, stride, tiles,
    COSINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``costs [runs, stride, stride]``: half of the squares of the distances of ``tokens [dim, T]`` of each run.

    Tokens are float64, or float32 with COSINE. Program: a tile of a run on or above the diagonal, and the one that
    mirrors it.
    """
    program = tl.program_id(0)
    run = program // (tiles * tiles)
    top = program // tiles % tiles * BLOCK
    left = program % tiles * BLOCK
    length = tl.load(lengths + begin + run).to(tl.int32)
    if (top <= left) & (left < length):
        at = tokens + tl.load(firsts + begin + run)
        row = top + tl.arange(0, BLOCK)
        column = left + tl.arange(0, BLOCK)
        sums = tl.zeros([BLOCK, BLOCK], tokens.dtype.element_ty)
        for _ in tl.range(0, dim):
            x = tl.load(at + row, mask=row < length, other=0.0)
            y = tl.load(at + column, mask=column < length, other=0.0)
            if COSINE:
                sums += x[:, None] * y[None, :]
            else:
                apart = x[:, None] - y[None, :]
                sums += apart * apart
            at += T
        if COSINE:
            apart = 1 - sums.to(tl.float64)
            sums = apart * apart
        found = bounded(0.5 * sums)
        to = costs + run.to(tl.int64) * stride * stride
        tl.store(to + row[:, None] * stride + column[None, :], found, mask=(row < length)[:, None] & (column < length))
        found = tl.trans(found)
        tl.store(to + column[:, None] * stride + row[None, :], found, mask=(column < length)[:, None] & (row < length))


@triton.jit
def nearest_of_each(costs, least, nearest, place, length, stride, ROWS: tl.constexpr):
    """``least [length]``, ``nearest [length]``: of the later tokens the nearest to each; infinity and any of the last.

    ROWS at a time.
    """
    for start in tl.range(0, length, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < length
        later = inside[:, None] & (place[None, :] > row[:, None]) & (place < length)[None, :]
        tile = tl.load(costs + row[:, None] * stride + place[None, :], mask=later, other=float("inf"))
        found, where = least_and_first(tile, place[None, :] + row[:, None] * 0, 1)
        tl.store(least + row, found, mask=inside)
        tl.store(nearest + row, where, mask=inside)


@triton.jit(do_not_specialize=["begin", "stride"])
def merge(
    firsts, lengths, counts, costs, least, nearest, heads, begin, stride,
    N: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """``heads [T]``: the first token of the cluster that each token is in, which names it. Program: a run.

    ``least [runs, stride]`` and ``nearest [runs, stride]`` are room to begin with.
    """
    run = tl.program_id(0).to(tl.int64)
    first = tl.load(firsts + begin + run)
    length = tl.load(lengths + begin + run).to(tl.int32)
    left = length
    count = tl.load(counts + begin + run).to(tl.int32)
    costs += run * stride * stride
    least += run * stride
    nearest += run * stride
    place = tl.arange(0, N)
    inside = place < length
    nearest_of_each(costs, least, nearest, place, length, stride, ROWS)
    tl.debug_barrier()
    bound = tl.load(least + place, mask=inside, other=float("inf"))
    near = tl.load(nearest + place, mask=inside, other=0)  # later, so never 0: that is for one that is to be found
    size = inside.to(tl.int32)
    head = place
    while left > count:
        _, found = least_and_first(bound, place * MOST + near, 0)
        a = found // MOST
        b = found % MOST
        ours = costs + a * stride + place
        if b == 0:
            cost = tl.load(ours, mask=(place > a) & (size > 0), other=float("inf"))
        else:
            sizes = tl.sum(tl.where(place == a, size, 0) + tl.where(place == b, size * (2 * MOST), 0), 0)
            na = (sizes % (2 * MOST)).to(tl.float64)
            nb = (sizes // (2 * MOST)).to(tl.float64)
            nk = size.to(tl.float64)
            others = (size > 0) & (place != a) & (place != b)
            together = tl.load(costs + a * stride + b)
            of_a = tl.load(ours, mask=others, other=0.0)
            of_b = tl.load(costs + b * stride + place, mask=others, other=0.0)
            sums = (nk + na) * of_a + (nk + nb) * of_b - nk * together
            joined = bounded(sums / (nk + na + nb))
            tl.debug_barrier()  # several threads may read a cost that one writes
            tl.store(ours, joined, mask=others)
            tl.store(costs + place * stride + a, joined, mask=others)
            tl.debug_barrier()
            size = tl.where(place == b, 0, size + tl.where(place == a, sizes // (2 * MOST), 0))
            head = tl.where(head == b, a, head)
            closer = others & (place < a) & ((joined < bound) | ((joined == bound) & (a <= near)))
            bound = tl.where(closer, joined, tl.where(place == b, float("inf"), bound))
            near = tl.where(closer, a, tl.where((near == a) | (near == b), 0, near))
            cost = tl.where(others & (place > a), joined, float("inf"))
            left -= 1
        cheapest, where = least_and_first(cost, place, 0)
        bound = tl.where(place == a, cheapest, bound)
        near = tl.where(place == a, where, near)
    tl.store(heads + first + place, first + head, mask=inside)
