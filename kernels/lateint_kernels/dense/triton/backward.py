"""Gradients, each owned by one program: no atomics, and sums always in the same order.

A query token gathers the document tokens that it found. A document token would have to search all of argmax for query
tokens that found it, so these are first put in order: `sort_winners` writes, for each document, one list of query rows
per bucket of tokens. A program of `document_gradients` then owns some tokens and multiplies a one-hot matrix, made of
the list of their bucket, with the query tokens in it, on the matrix units.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense.triton.tiles import dot, extent, narrow

TOO_SHORT = tl.constexpr((1 - 1e-6) * 1e12)  # inverse norm of a token that normalisation only multiplies


@triton.jit
def remove_length(gradient, tokens, along, norms):
    """The gradient before ``x / |x|``, but for the factor 1 / |x|: less what lies along x; along is <gradient, x>."""
    return gradient - tokens * (along * steepness(norms))[:, None]


@triton.jit
def steepness(norms):
    """``1 / |x|^2``, and 0 where x is so short that it was divided by a constant."""
    return tl.where(norms < TOO_SHORT, norms * norms, 0.0)


@triton.jit(do_not_specialize=["TQ", "Nd", "Lq", "Ld", "blocks"])
def query_gradients(
    queries, query_offsets, query_weights, query_norms, documents, document_offsets, token_factors, token_mask,
    document_index, pair_order, pair_starts, grad_scores, argmax, grad_queries, grad_weights,
    TQ, Nd, Lq, Ld, blocks,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``u_s = sum_j g_j c_a id_a d_a``, then ``w iq (u - iq^2 <u, q> q)`` and ``iq <u, q>``.

    Program: ROWS rows of one query. Its documents are dealt to LANES, whose sums are added at the end; so there are
    LANES times as many loads on their way.
    """
    program = tl.program_id(0)
    query = program // blocks
    query_first, query_length = extent(query_offsets, query, Lq)
    lane = tl.arange(0, LANES * ROWS) // ROWS
    place = program % blocks * ROWS + tl.arange(0, LANES * ROWS) % ROWS
    row = query_first + place
    present = place < query_length
    if query_weights is not None:
        present = present & (tl.load(query_weights + row, mask=present, other=0.0) != 0)
    if pair_order is None:
        begin, end = 0, Nd
    else:
        begin, end = tl.load(pair_starts + query).to(tl.int32), tl.load(pair_starts + query + 1).to(tl.int32)
    columns = tl.arange(0, BLOCK_D)
    total = tl.zeros([LANES * ROWS, BLOCK_D], tl.float32)
    for turn in tl.range(begin, end, LANES):
        index = turn + lane
        live = present & (index < end)
        if pair_order is None:
            document = index
            gradient = tl.load(grad_scores + query.to(tl.int64) * Nd + index, mask=live, other=0.0)
            where = argmax + index.to(tl.int64) * TQ + row
        else:
            pair = tl.load(pair_order + index, mask=live, other=0)
            document = tl.load(document_index + pair, mask=live, other=0).to(tl.int32)
            gradient = tl.load(grad_scores + pair, mask=live, other=0.0)
            where = argmax + pair.to(tl.int64) * Lq + place
        live = live & (gradient != 0)
        winner = tl.load(where, mask=live, other=0).to(tl.int32)
        if document_offsets is None:
            token = document.to(tl.int64) * Ld + winner
        else:
            document_first = tl.load(document_offsets + document, mask=live, other=0)
            document_end = tl.load(document_offsets + document + 1, mask=live, other=0)
            token = document_first + winner
            live = live & (token < document_end)
        if token_mask is not None:
            live = live & tl.load(token_mask + token, mask=live, other=0).to(tl.int1)
        if token_factors is not None:
            gradient *= tl.load(token_factors + token, mask=live, other=0.0)
        inside = live[:, None] & (columns[None, :] < DIM)
        d = tl.load(documents + token[:, None] * DIM + columns[None, :], mask=inside, other=0.0)
        total += tl.where(live, gradient, 0.0)[:, None] * d.to(tl.float32)

    u = tl.sum(tl.reshape(total, [LANES, ROWS, BLOCK_D]), 0)  # [ROWS, BLOCK_D]
    place = program % blocks * ROWS + tl.arange(0, ROWS)
    row = query_first + place
    valid = place < query_length
    inside = valid[:, None] & (columns[None, :] < DIM)
    pointers = row[:, None] * DIM + columns[None, :]
    q = tl.load(queries + pointers, mask=inside, other=0.0).to(tl.float32)
    along = tl.sum(u * q, 1)
    factor = tl.full([ROWS], 1.0, tl.float32)
    if query_norms is not None:
        norms = tl.load(query_norms + row, mask=valid, other=0.0)
        u = remove_length(u, q, along, norms)
        along *= norms
        factor = norms
    if query_weights is not None:
        weights = tl.load(query_weights + row, mask=valid, other=0.0)
        u = tl.where((weights != 0)[:, None], u, 0.0)  # an absent token may hold NaN
        along = tl.where(weights != 0, along, 0.0)
        factor = tl.where(weights != 0, factor * weights, 0.0)
    if grad_weights is not None:
        tl.store(grad_weights + row, along, mask=valid)
    if grad_queries is not None:
        tl.store(grad_queries + pointers, narrow(u * factor[:, None], grad_queries.dtype.element_ty), mask=inside)


@triton.jit
def winners(
    entry, inside, begin, document, query_offsets, row_factors, row_query, query_index, pair_order, grad_scores, argmax,
    TQ, Nd, Lq,
):  # fmt: skip
    """Query rows, the places they found in the document, the factors, and whether these are not 0: all ``[ENTRIES]``.

    Entries are counted from row ``begin``, or from the first row of pair ``begin`` in their order.
    """
    if pair_order is None:
        row = (begin + entry).to(tl.int64)
        query = (begin + entry) // Lq if row_query is None else tl.load(row_query + row, mask=inside, other=0)
        gradient = tl.load(grad_scores + query.to(tl.int64) * Nd + document, mask=inside, other=0.0)
        where = argmax + document.to(tl.int64) * TQ + row
    else:
        pair = tl.load(pair_order + begin + entry // Lq, mask=inside, other=0)
        query = tl.load(query_index + pair, mask=inside, other=0)
        place = entry % Lq
        query_first, query_length = extent_of(query_offsets, query, inside, Lq)
        inside = inside & (place < query_length)
        row = query_first + place
        gradient = tl.load(grad_scores + pair, mask=inside, other=0.0)
        where = argmax + pair.to(tl.int64) * Lq + place
    factor = gradient
    if row_factors is not None:
        row_factor = tl.load(row_factors + row, mask=inside, other=0.0)
        factor = tl.where(row_factor != 0, gradient, 0.0) * row_factor
    live = inside & (factor != 0)
    return row, tl.load(where, mask=live, other=0).to(tl.int32), factor, live


@triton.jit
def extent_of(offsets, numbers, inside, length):
    """`extent` of many, some of which are not there."""
    if offsets is None:
        return numbers.to(tl.int64) * length, length + (numbers * 0).to(tl.int32)
    else:
        first = tl.load(offsets + numbers, mask=inside, other=0)
        return first, (tl.load(offsets + numbers + 1, mask=inside, other=0) - first).to(tl.int32)


@triton.jit
def segment_of(pair_starts, document, local, number, segment, TQ, Lq):
    """First row (or pair) of a segment, how many entries it has, and where its lists begin; pairs have one segment."""
    if pair_starts is None:
        begin = number * segment
        return begin, tl.minimum(segment, TQ - begin), local.to(tl.int64) * TQ + begin
    else:
        begin = tl.load(pair_starts + document)
        return begin, ((tl.load(pair_starts + document + 1) - begin) * Lq).to(tl.int32), begin * Lq


@triton.jit(do_not_specialize=["TQ", "Nd", "Lq", "first_document", "segments", "segment"])
def sort_winners(
    query_offsets, row_factors, row_query, query_index, pair_order, pair_starts, grad_scores, argmax,
    rows, places, factors, starts, scales,
    TQ, Nd, Lq, first_document, segments, segment,
    WIDTH: tl.constexpr, BUCKETS: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Lists, for a segment of query rows and a document, the rows that count, by bucket of WIDTH tokens, else in order.

    ``rows``, ``places`` and ``factors`` are ``[documents, TQ]`` (or ``[P * Lq]``), starts and ends of lists
    ``starts [2, documents, segments, BUCKETS]``, and ``scales [documents, segments]``: factors are divided by a power
    of two, for they must fit into float16.
    """
    program = tl.program_id(0)
    document = first_document + program // segments
    begin, count, base = segment_of(
        pair_starts, document, program // segments, program % segments, segment, TQ, Lq
    )  # fmt: skip
    bucket = tl.arange(0, BUCKETS)
    counts = tl.zeros([BUCKETS], tl.int32)
    largest = 0.0
    for first in tl.range(0, count, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        row, place, factor, live = winners(
            entry, entry < count, begin, document, query_offsets, row_factors, row_query, query_index, pair_order,
            grad_scores, argmax, TQ, Nd, Lq,
        )  # fmt: skip
        mine = ((place // WIDTH)[:, None] == bucket[None, :]) & live[:, None]
        counts += tl.sum(mine.to(tl.int32), 0)
        largest = tl.maximum(largest, tl.max(tl.where(live, tl.abs(factor), 0.0), 0))
    begins = tl.cumsum(counts, 0) - counts
    tl.store(starts + program * BUCKETS + bucket, begins)
    tl.store(starts + tl.num_programs(0) * BUCKETS + program * BUCKETS + bucket, begins + counts)
    usable = (largest > 1e-15) & (largest < 1e15)
    exponent = tl.floor(tl.log2(tl.where(usable, largest, 1.0)))
    tl.store(scales + program, tl.exp2(exponent))
    shrink = tl.exp2(-exponent)

    for first in tl.range(0, count, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        row, place, factor, live = winners(
            entry, entry < count, begin, document, query_offsets, row_factors, row_query, query_index, pair_order,
            grad_scores, argmax, TQ, Nd, Lq,
        )  # fmt: skip
        mine = ((place // WIDTH)[:, None] == bucket[None, :]) & live[:, None]
        rank = tl.cumsum(mine.to(tl.int32), 0) - 1 + begins[None, :]
        target = base + tl.sum(tl.where(mine, rank, 0), 1)
        begins += tl.sum(mine.to(tl.int32), 0)
        tl.store(rows + target, row.to(tl.int32), mask=live)
        tl.store(places + target, place.to(places.dtype.element_ty), mask=live)
        tl.store(factors + target, factor * shrink, mask=live)


@triton.jit
def won(
    queries, rows, places, factors, starts, scales, pair_starts, document, local, tile, column,
    TQ, Lq, segments, segment, programs,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDTH: tl.constexpr, BUCKETS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``v_t = sum g w iq q`` over the rows that found token t: of a tile, from ``column``, ``[BLOCK_T, BLOCK_D]``."""
    token = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    bucket = tile * BLOCK_T // WIDTH
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    unit = 1.0  # of total
    for number in range(0, segments):
        _, _, base = segment_of(pair_starts, document, local, number, segment, TQ, Lq)
        entry = (local * segments + number) * BUCKETS + bucket
        first, last = tl.load(starts + entry), tl.load(starts + programs * BUCKETS + entry)
        scale = tl.load(scales + local * segments + number)
        total *= unit / scale
        unit = scale
        for k in tl.range(first, last, BLOCK_K, num_stages=STAGES):
            index = k + tl.arange(0, BLOCK_K)
            inside = index < last
            row = tl.load(rows + base + index, mask=inside, other=0)
            place = tl.load(places + base + index, mask=inside, other=0).to(tl.int32)
            factor = tl.load(factors + base + index, mask=inside, other=0.0)
            columns = column + tl.arange(0, BLOCK_D)
            pointers = queries + row.to(tl.int64)[:, None] * DIM + columns[None, :]
            q = tl.load(pointers, mask=inside[:, None] & (columns[None, :] < DIM), other=0.0)
            one_hot = tl.where(place[None, :] == token[:, None], factor[None, :], 0.0)
            total = dot(narrow(one_hot, q.dtype), q, total)
    return total * unit


@triton.jit(do_not_specialize=["TQ", "Lq", "Ld", "first_document", "tiles", "segments", "segment", "programs"])
def document_gradients(
    queries, documents, document_offsets, token_factors, document_norms, token_mask, pair_starts,
    rows, places, factors, starts, scales, grad_documents,
    TQ, Lq, Ld, first_document, tiles, segments, segment, programs,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDTH: tl.constexpr, BUCKETS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``c id (v - id^2 <v, d> d)`` with v as in `won`. Program: a tile of tokens of one document."""
    program = tl.program_id(0)
    local = program // tiles
    tile = program % tiles
    document = first_document + local
    document_first, document_length = extent(document_offsets, document, Ld)
    if tile * BLOCK_T < document_length:
        # Addresses are one number of 64 bits and, for each token, one of 32: those of 64 would not fit into registers.
        first = document_first + tile * BLOCK_T
        place = tl.arange(0, BLOCK_T)
        valid = tile * BLOCK_T + place < document_length
        present = valid
        if token_mask is not None:
            present = valid & tl.load(token_mask + first + place, mask=valid, other=0).to(tl.int1)
        factor = tl.where(present, 1.0, 0.0)
        if token_factors is not None:
            factor = tl.load(token_factors + first + place, mask=present, other=0.0)
        along = tl.zeros([BLOCK_T], tl.float32)
        if document_norms is not None and BLOCK_D < DIM:  # what lies along d is known only when all components are
            for column in range(0, DIM, BLOCK_D):
                v = won(
                    queries, rows, places, factors, starts, scales, pair_starts, document, local, tile, column,
                    TQ, Lq, segments, segment, programs, DIM, BLOCK_D, BLOCK_T, BLOCK_K, WIDTH, BUCKETS, STAGES,
                )  # fmt: skip
                d = load_present(documents + first * DIM, present, column, DIM, BLOCK_T, BLOCK_D)
                along += tl.sum(v * d, 1)
            along *= steepness(tl.load(document_norms + first + place, mask=present, other=0.0))
        for column in range(0, DIM, BLOCK_D):
            v = won(
                queries, rows, places, factors, starts, scales, pair_starts, document, local, tile, column,
                TQ, Lq, segments, segment, programs, DIM, BLOCK_D, BLOCK_T, BLOCK_K, WIDTH, BUCKETS, STAGES,
            )  # fmt: skip
            if document_norms is not None:
                d = load_present(documents + first * DIM, present, column, DIM, BLOCK_T, BLOCK_D)
                if BLOCK_D >= DIM:
                    norms = tl.load(document_norms + first + place, mask=present, other=0.0)
                    along = tl.sum(v * d, 1) * steepness(norms)
                v -= d * along[:, None]
            v = tl.where(present[:, None], v * factor[:, None], 0.0)
            columns = column + tl.arange(0, BLOCK_D)
            pointers = grad_documents + first * DIM + place[:, None] * DIM + columns[None, :]
            inside = valid[:, None] & (columns[None, :] < DIM)
            tl.store(pointers, narrow(v, grad_documents.dtype.element_ty), mask=inside)


@triton.jit
def load_present(tokens, present, column, DIM: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Components of the first BLOCK_T tokens from ``column``, absent ones 0, in float32."""
    columns = column + tl.arange(0, BLOCK_D)
    pointers = tokens + tl.arange(0, BLOCK_T)[:, None] * DIM + columns[None, :]
    return tl.load(pointers, mask=present[:, None] & (columns[None, :] < DIM), other=0.0).to(tl.float32)
