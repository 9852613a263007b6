"""Scores: query tokens stay in a block of rows, document tokens stream past it, each row keeps its maximum.

Rows of many queries lie in one block, so that the products are large enough for the matrix units. A block is made of
pieces of ``PIECE`` rows; a piece belongs to one query, and its weighted maxima are summed in the block. Queries of
several pieces are summed afterwards: there are no atomics, and the order is always the same.

Where a tile reaches past the end of its document (or query), the last token is repeated. It cannot change the maximum,
nor the first place where the maximum is found, so nothing has to be masked.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense.triton.tiles import dot, extent, larger, largest, largest_and_first, load_tokens


@triton.jit
def similarities(
    queries, q, q_rest, q_rows, documents, rows,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``[BLOCK_M, BLOCK_N]`` products of query rows, held in q and q_rest if RESIDENT, with document rows."""
    total = tl.zeros([q_rows.shape[0], rows.shape[0]], tl.float32)
    if RESIDENT:
        d = load_tokens(documents, rows, 0, DIM, FIRST, FIRST <= DIM)
        if REST > 0:
            d_rest = load_tokens(documents, rows, FIRST, DIM, REST, FIRST + REST <= DIM)
            total = dot(q_rest, tl.trans(d_rest), total)
        total = dot(q, tl.trans(d), total)
    else:
        for first in tl.range(0, DIM, FIRST, num_stages=STAGES):
            part = load_tokens(queries, q_rows, first, DIM, FIRST, DIM % FIRST == 0)
            d = load_tokens(documents, rows, first, DIM, FIRST, DIM % FIRST == 0)
            total = dot(part, tl.trans(d), total)
    return total


@triton.jit
def document_lengths(offsets, first, count, MOST: tl.constexpr):
    """Of ``count`` documents from ``first``, then 0: ``[MOST]`` int32."""
    index = tl.arange(0, MOST)
    inside = index < count
    starts = tl.load(offsets + first + index, mask=inside, other=0)
    ends = tl.load(offsets + first + index + 1, mask=inside, other=0)
    return (ends - starts).to(tl.int32)


@triton.jit
def share_of(
    program, query_index, document_index, piece_query, piece_number, Nd, pieces, blocks, together, count,
    PIECES: tl.constexpr,
):  # fmt: skip
    """What a program works on: the query of each of its pieces and which piece of it that is, both ``[PIECES]``; its
    first document, and how many there are; and where the sums of the pieces go, ``[PIECES]``, without the document."""
    slot = tl.arange(0, PIECES)
    if query_index is None:
        per_group = together * tl.cdiv(Nd, count)
        group = program // per_group
        size = tl.minimum(blocks - group * together, together)
        inside_group = program % per_group
        piece = (group * together + inside_group % size) * PIECES + slot
        document = inside_group // size * count
        if piece_query is None:
            query, number = piece // pieces, piece % pieces
        else:
            query, number = tl.load(piece_query + piece), tl.load(piece_number + piece)
        target = (query.to(tl.int64) * pieces + number) * Nd
        return query, number, document, tl.minimum(count, Nd - document), target
    else:
        pair = program // pieces
        query = tl.load(query_index + pair).to(tl.int32) + tl.zeros_like(slot)
        number = program % pieces + slot
        document = tl.load(document_index + pair).to(tl.int32)
        return query, number, document, 1, tl.zeros_like(slot).to(tl.int64) + program


@triton.jit(do_not_specialize=["TQ", "TD", "Nq", "Nd", "Lq", "Ld", "pieces", "blocks", "together", "count"])
def forward(
    queries, query_offsets, row_factors, documents, document_offsets, token_factors, token_mask,
    query_index, document_index, piece_query, piece_number, scores, argmax,
    TQ, TD, Nq, Nd, Lq, Ld, pieces, blocks, together, count,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PIECE: tl.constexpr, MOST: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sums of pieces ``[Nq, pieces, Nd]``, or ``[P, pieces]`` with query_index and document_index.

    ``sum_s row_factors_s max_t { token_factors_t <q_s, d_t> : token_mask_t }`` over the rows s of a piece; a factor of
    0 is an absent row. Program: a block of rows with ``count`` documents, or a piece of a pair. There are ``blocks``
    blocks of rows; ``together`` of them meet the same documents at the same time, which then come from the L2 cache.
    """
    program = tl.program_id(0)
    PIECES: tl.constexpr = BLOCK_M // PIECE
    query, number, document, documents_left, target = share_of(
        program, query_index, document_index, piece_query, piece_number, Nd, pieces, blocks, together, count, PIECES
    )
    known = query < Nq
    query_first, query_length = extent(query_offsets, tl.minimum(query, Nq - 1), Lq)

    place = number[:, None] * PIECE + tl.arange(0, PIECE)[None, :]  # [PIECES, PIECE], rows within the query
    row = query_first[:, None] + tl.maximum(tl.minimum(place, query_length[:, None] - 1), 0)
    row = tl.reshape(tl.minimum(row, TQ - 1), [BLOCK_M])
    valid = tl.reshape(known[:, None] & (place < query_length[:, None]), [BLOCK_M])
    factor = tl.where(valid, 1.0, 0.0)
    if row_factors is not None:
        factor = tl.load(row_factors + row, mask=valid, other=0.0)
    q = None
    q_rest = None
    if RESIDENT:
        q = load_tokens(queries, row, 0, DIM, FIRST, FIRST <= DIM)
        if REST > 0:
            q_rest = load_tokens(queries, row, FIRST, DIM, REST, FIRST + REST <= DIM)
    if query_index is None:
        argmax_row, argmax_valid = row, valid
    else:
        argmax_row = tl.reshape(place, [BLOCK_M])
        argmax_valid = argmax_row < Lq

    # One loop over the tiles of all documents, so that tokens of the next document are on their way when one ends.
    # Lengths are in registers: loads whose addresses wait for other loads could not be started early.
    first, length = extent(document_offsets, document, Ld)
    tiles = documents_left * tl.cdiv(tl.maximum(length, 1), BLOCK_N)
    if query_index is None and document_offsets is not None:
        lengths = document_lengths(document_offsets, document, documents_left, MOST)
        known_tiles = tl.cdiv(tl.maximum(lengths, 1), BLOCK_N)
        tiles = tl.sum(tl.where(tl.arange(0, MOST) < documents_left, known_tiles, 0), 0)
        first_document = document
    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    where = tl.zeros([BLOCK_M], tl.int32)
    columns = tl.arange(0, BLOCK_N)
    start = 0
    for _ in tl.range(0, tiles, num_stages=STAGES):
        inside = tl.minimum(start + columns, tl.maximum(length - 1, 0))
        rows = tl.minimum(first + inside, TD - 1)
        if token_factors is not None:
            token_factor = tl.load(token_factors + rows)
        if token_mask is not None:
            token_present = tl.load(token_mask + rows)
        s = similarities(queries, q, q_rest, row, documents, rows, DIM, FIRST, REST, RESIDENT, STAGES)
        if token_factors is not None:
            s *= token_factor[None, :]
        if token_mask is not None:
            s = tl.where(token_present[None, :], s, float("-inf"))
        if argmax is None:
            top = largest(s)
        else:
            top, column = largest_and_first(s, queries.dtype.element_ty != tl.float32)
            where = tl.where(top > best, start + column, where)
        best = larger(best, top)
        start += BLOCK_N
        ends = start >= length
        if ends:
            final = best
            if document_offsets is not None:
                final = tl.where(length > 0, best, float("-inf"))
            weighted = tl.where(factor != 0, final, 0.0) * factor  # an absent row may hold NaN
            total = tl.sum(tl.reshape(weighted, [PIECES, PIECE]), 1)
            if query_index is None:
                tl.store(scores + target + document, total, mask=known)
                argmax_first = document.to(tl.int64) * TQ
            else:
                tl.store(scores + target, total)
                argmax_first = (program // pieces).to(tl.int64) * Lq
            if argmax is not None:
                tl.store(argmax + argmax_first + argmax_row, where.to(argmax.dtype.element_ty), mask=argmax_valid)
        best = tl.where(ends, float("-inf"), best)
        where = tl.where(ends, 0, where)
        start = tl.where(ends, 0, start)
        if query_index is None:
            document += ends.to(tl.int32)
            first += tl.where(ends, length, 0)
            if document_offsets is not None:
                length = tl.sum(tl.where(tl.arange(0, MOST) == document - first_document, lengths, 0), 0)
