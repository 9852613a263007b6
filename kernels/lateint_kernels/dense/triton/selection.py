"""XTR's selection: the largest product of each query token in each document, and the k-th largest of them all.

A first pass over the products keeps the maxima of documents, and of groups of neighbouring tokens of a document. The k
groups with the largest maxima are chosen. A second pass keeps the products of these alone: the members. The k-th
largest member v is the k-th largest product of all:

- Let b be the least maximum of a chosen group. Each of the k chosen groups has a member that is at least b: v >= b.
- A product outside is at most the maximum of its group, which is at most b, and so at most v.
- So fewer than k products are above v, and k or more are not below it. Which of equal groups are chosen is no matter.

Groups of nothing but -inf are not chosen. Where fewer than k others are, what is missing is -inf. Both passes are the
same code, so they give a product the same bits.

The k-th largest number of a row is found by halving the range of its bits and counting. Nothing is sorted, and nothing
depends on the order of threads.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense.triton.forward import document_lengths, similarities
from lateint_kernels.dense.triton.tiles import extent, larger, largest, largest_and_first, load_tokens

LEAST = tl.constexpr(-0x7F800001)  # the key of -inf: what is below everything else


@triton.jit
def turned(bits):
    """Of bits of float32, int32 keys that are in the order of the numbers; and of keys the bits again."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def whole_words(n):
    """How far apart rows of n numbers lie, so that all begin with words that a thread can load at once."""
    return tl.cdiv(n, 16) * 16


@triton.jit
def load_keys(numbers, lines, start, n, stride, BLOCK: tl.constexpr):
    """Keys ``[ROWS, BLOCK]`` of rows that begin at ``lines``, those of -inf from n on; NaN counts as inf."""
    place = start + tl.arange(0, BLOCK)[None, :]
    x = tl.load(numbers + lines[:, None] + place, mask=place < stride, other=0.0)
    x = tl.where(x == x, x, float("inf"))
    return tl.where(place < n[:, None], turned(x.to(tl.int32, bitcast=True)), LEAST)


@triton.jit
def kth_largest(numbers, lines, n, stride, k, low, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Keys of the k-th largest of rows of n numbers ``[ROWS]``, LEAST where they are fewer; they are not below ``low``.

    And how many keys are not below those, if any other than ``low`` was found. The range is halved until one key is
    left, or k keys are from its lower end on: then it is the least of these. A row that waits for others is halved on.
    WHOLE: a row has at most BLOCK numbers; otherwise it is read again for every step.
    """
    keys = load_keys(numbers, lines, 0, n, stride, BLOCK)
    high = tl.max(keys, 1)
    if not WHOLE:
        for start in tl.range(BLOCK, stride, BLOCK):
            high = tl.maximum(high, tl.max(load_keys(numbers, lines, start, n, stride, BLOCK), 1))
    count = low * 0
    while tl.max(((low < high) & (count != k)).to(tl.int32), 0) > 0:
        middle = (low | high) - ((low ^ high) >> 1)  # half of their sum, rounded up
        found = tl.sum((keys >= middle[:, None]).to(tl.int32), 1)
        if not WHOLE:
            for start in tl.range(BLOCK, stride, BLOCK):
                more = load_keys(numbers, lines, start, n, stride, BLOCK)
                found += tl.sum((more >= middle[:, None]).to(tl.int32), 1)
        enough = found >= k
        low = tl.where(enough, middle, low)
        count = tl.where(enough, found, count)
        high = tl.where(enough, high, middle - 1)
    least = tl.min(tl.where(keys >= low[:, None], keys, 0x7FFFFFFF), 1)
    if not WHOLE:
        for start in tl.range(BLOCK, stride, BLOCK):
            more = load_keys(numbers, lines, start, n, stride, BLOCK)
            least = tl.minimum(least, tl.min(tl.where(more >= low[:, None], more, 0x7FFFFFFF), 1))
    return tl.where(count == k, least, low), count


@triton.jit
def how_many(k, present):
    """k, or fewer where fewer document tokens are present."""
    if present is not None:
        k = tl.minimum(k, tl.load(present)).to(tl.int32)
    return k


@triton.jit(do_not_specialize=["rows", "groups", "k"])
def choose_groups(
    maxima, present, slots, used, bounds,
    rows, groups, k,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The k groups of each row of ``maxima [rows, groups]`` that are largest and not -inf, of equal ones the first.

    Their numbers ``slots [rows, groups]``, -1 for others; how many there are, ``used [rows]``; and the key of the last
    of them, ``bounds [rows]``, LEAST where they are not k. Program: ROWS rows.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    stride = whole_words(groups)
    lines = tl.minimum(row, rows - 1).to(tl.int64) * stride
    k = how_many(k, present)
    nothing = row * 0
    n = nothing + groups
    bound, total = kth_largest(maxima, lines, n, stride, k, nothing + LEAST, BLOCK, WHOLE)
    surplus = tl.max(tl.where(bound > LEAST, total, 0), 0) > k  # of groups that are equal to the last
    above = nothing
    if surplus:
        for start in tl.range(0, groups, BLOCK):
            keys = load_keys(maxima, lines, start, n, stride, BLOCK)
            above += tl.sum((keys > bound[:, None]).to(tl.int32), 1)
    count, before = nothing, nothing
    PART: tl.constexpr = BLOCK if BLOCK < 4096 else 4096  # counting on takes more registers
    for start in tl.range(0, groups, PART):
        keys = load_keys(maxima, lines, start, n, stride, PART)
        chosen = (keys >= bound[:, None]) & (keys > LEAST)
        if surplus:
            equal = (keys == bound[:, None]).to(tl.int32)
            early = before[:, None] + tl.cumsum(equal, 1) <= (k - above)[:, None]
            chosen = chosen & ((keys > bound[:, None]) | early)
            before += tl.sum(equal, 1)
        number = count[:, None] + tl.cumsum(chosen.to(tl.int32), 1) - 1
        place = start + tl.arange(0, PART)[None, :]
        inside = (place < stride) & (row < rows)[:, None]
        tl.store(slots + lines[:, None] + place, tl.where(chosen, number, -1), mask=inside)
        count += tl.sum(chosen.to(tl.int32), 1)
    tl.store(used + row, count, mask=row < rows)
    tl.store(bounds + row, bound, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "width", "k", "first_row"])
def last_product(
    products, present, used, bounds, query_factors, query_weights, least,
    rows, width, k, first_row,
    GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The k-th largest of each row of ``products [rows, width]``, into ``least [TQ]`` from ``first_row``.

    Of a row only ``used [rows]`` groups are there, whose k-th largest product has a key of ``bounds [rows]`` at least;
    without these, everything. 0 for an absent query token, and where no document token is present. Program: ROWS rows.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    stride = whole_words(width)
    lines = tl.minimum(row, rows - 1).to(tl.int64) * stride
    k = how_many(k, present)
    n, low = row * 0 + width, row * 0 + LEAST
    if used is not None:
        n = tl.load(used + row, mask=inside, other=0) * GROUP
        low = tl.load(bounds + row, mask=inside, other=LEAST)
    found, _ = kth_largest(products, lines, n, stride, k, low, BLOCK, WHOLE)
    found = turned(found).to(tl.float32, bitcast=True)
    row += first_row
    if query_factors is not None:
        found *= tl.load(query_factors + row, mask=inside, other=0.0)
    there = inside & (k > 0)
    if query_weights is not None:
        there = there & (tl.load(query_weights + row, mask=inside, other=0.0) != 0)
    tl.store(least + row, tl.where(there, found, 0.0), mask=inside)


@triton.jit(do_not_specialize=["first_row", "rows", "TQ", "TD", "Nd", "Ld", "groups", "kept", "blocks", "count"])
def retrieve(
    queries, query_factors, query_weights, documents, document_offsets, token_factors, token_mask,
    best, argmax, maxima, slots, members,
    first_row, rows, TQ, TD, Nd, Ld, groups, kept, blocks, count,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr, MOST: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A pass over the products of ``rows`` query tokens from ``first_row`` with all document tokens.

    Without ``slots`` the first one: ``best [TQ, Nd]``, 0 for an absent query token, ``argmax [Nd, TQ]``, and the maxima
    of groups of GROUP tokens, ``maxima [rows, groups]``. With ``slots [rows, groups]`` the second one: products of the
    groups that have one, ``members [rows, kept, GROUP]``, -inf past the end of a document. Products lack the factor of
    their query token, which does not change their order. A group has tokens of one document. Where documents differ in
    length, the first group of document j is ``offsets[j] // GROUP + j``: past the last one of document j - 1, and no
    document has the groups between. Program: BLOCK_M query tokens with ``count`` documents.
    """
    program = tl.program_id(0)
    local = program % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    known = local < rows
    row = first_row + tl.minimum(local, rows - 1)
    q = None
    q_rest = None
    if RESIDENT:
        q = load_tokens(queries, row, 0, DIM, FIRST, FIRST <= DIM)
        if REST > 0:
            q_rest = load_tokens(queries, row, FIRST, DIM, REST, FIRST + REST <= DIM)
    factor = tl.full([BLOCK_M], 1.0, tl.float32)
    if slots is None:
        if query_factors is not None:
            factor = tl.load(query_factors + row)
        present = known
        if query_weights is not None:
            present = known & (tl.load(query_weights + row) != 0)
    lines = local.to(tl.int64)[:, None] * whole_words(groups)

    # One loop over the tiles of all documents, as in `forward`.
    document = program // blocks * count
    left = tl.minimum(count, Nd - document)
    first, length = extent(document_offsets, document, Ld)
    tiles = left * tl.cdiv(length, BLOCK_N)
    if document_offsets is not None:
        lengths = document_lengths(document_offsets, document, left, MOST)
        known_tiles = tl.cdiv(tl.maximum(lengths, 1), BLOCK_N)
        tiles = tl.sum(tl.where(tl.arange(0, MOST) < left, known_tiles, 0), 0)
        first_document = document
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    where = tl.zeros([BLOCK_M], tl.int32)
    columns = tl.arange(0, BLOCK_N)
    start = 0
    for _ in tl.range(0, tiles, num_stages=STAGES):
        inside = tl.minimum(start + columns, tl.maximum(length - 1, 0))  # past the end the last token is repeated
        token = tl.minimum(first + inside, TD - 1)
        if token_factors is not None:
            token_factor = tl.load(token_factors + token)
        if token_mask is not None:
            token_present = tl.load(token_mask + token)
        s = similarities(queries, q, q_rest, row, documents, token, DIM, FIRST, REST, RESIDENT, STAGES)
        if token_factors is not None:
            s *= token_factor[None, :]
        if token_mask is not None:
            s = tl.where(token_present[None, :], s, float("-inf"))

        number = start // GROUP + tl.arange(0, BLOCK_N // GROUP)
        there = known[:, None] & (number * GROUP < length)[None, :]
        if document_offsets is None:
            number += document * tl.cdiv(Ld, GROUP)
        else:
            number += (first // GROUP).to(tl.int32) + document
        by_group = tl.reshape(s, [BLOCK_M, BLOCK_N // GROUP, GROUP])
        if slots is None:
            tl.store(maxima + lines + number[None, :], largest(by_group, 2), mask=there)
            highest, column = largest_and_first(s, queries.dtype.element_ty != tl.float32)
            where = tl.where(highest > top, start + column, where)
            top = larger(top, highest)
        else:
            slot = tl.load(slots + lines + number[None, :], mask=there, other=-1)
            within = tl.arange(0, GROUP)[None, None, :]
            place = slot[:, :, None] * GROUP + within
            line = members + local.to(tl.int64)[:, None, None] * whole_words(kept * GROUP)
            before_end = tl.reshape(start + columns < length, [1, BLOCK_N // GROUP, GROUP])
            tl.store(line + place, tl.where(before_end, by_group, float("-inf")), mask=(slot >= 0)[:, :, None])

        start += BLOCK_N
        ends = start >= length
        if slots is None:
            if ends:
                final = top
                if document_offsets is not None:
                    final = tl.where(length > 0, top, float("-inf"))
                tl.store(best + row.to(tl.int64) * Nd + document, tl.where(present, final * factor, 0.0), mask=known)
                target = argmax + document.to(tl.int64) * TQ + row
                tl.store(target, where.to(argmax.dtype.element_ty), mask=known)
            top = tl.where(ends, float("-inf"), top)
            where = tl.where(ends, 0, where)
        start = tl.where(ends, 0, start)
        document += ends.to(tl.int32)
        first += tl.where(ends, length, 0)
        if document_offsets is not None:
            length = tl.sum(tl.where(tl.arange(0, MOST) == document - first_document, lengths, 0), 0)
