"""The smooth maximum ``T log sum_t exp(<q_s, d_t> / T)`` of every query token and document, and its gradients.

As in attention, the sum is kept relative to the largest number so far, so similarities stay in registers; gradients
make them again. z are similarities divided by T, lse is log sum exp of them, and a document token has the share
``p_st = exp(z_st - lse_s)``. A gradient is owned by one program, and its sum always has the same order. Shares are
float32, so they are multiplied as the sum of two numbers of the type of tokens, which loses next to nothing.
"""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl

from lateint_kernels.dense.triton.forward import similarities
from lateint_kernels.dense.triton.tiles import dot, extent, larger, largest, load_tokens, narrow


@triton.jit
def finite_or_zero(x):
    """What to take exponents relative to: where the largest number is infinite or NaN, so is the sum anyway."""
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def factors_of(rows, factors, present, unit):
    """What similarities of such rows are multiplied by: 0 where there is no token."""
    factor = tl.where(present, unit, 0.0)
    if factors is not None:
        factor = tl.load(factors + rows, mask=present, other=0.0) * unit
    return factor


@triton.jit
def rows_present(rows, inside, weights):
    """Which of the query rows are inside and not absent."""
    if weights is not None:
        inside = inside & (tl.load(weights + rows, mask=inside, other=0.0) != 0)
    return inside


@triton.jit
def tokens_present(rows, inside, mask):
    """Which of the document tokens are inside and not absent."""
    if mask is not None:
        inside = inside & tl.load(mask + rows, mask=inside, other=0).to(tl.int1)
    return inside


@triton.jit
def accurate_dot(shares, tokens, total):
    """``total + shares @ tokens``, of float32 shares."""
    high = narrow(shares, tokens.dtype)
    total = dot(high, tokens, total)
    if tokens.dtype != tl.float32:
        total = dot(narrow(shares - high.to(tl.float32), tokens.dtype), tokens, total)
    return total


@triton.jit(do_not_specialize=["TQ", "TD", "Nd", "Ld", "blocks", "count", "temperature"])
def soft_forward(
    queries, query_factors, query_weights, documents, document_offsets, document_factors, document_mask, found,
    TQ, TD, Nd, Ld, blocks, count, temperature,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``found [TQ, Nd]``; 0 for an absent query token. Program: BLOCK_M query tokens with ``count`` documents."""
    program = tl.program_id(0)
    row = program % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = row < TQ
    row = tl.minimum(row, TQ - 1)
    present = rows_present(row, inside, query_weights)
    factor = factors_of(row, query_factors, present, 1 / temperature)
    q = None
    q_rest = None
    if RESIDENT:
        q = load_tokens(queries, row, 0, DIM, FIRST, FIRST <= DIM)
        if REST > 0:
            q_rest = load_tokens(queries, row, FIRST, DIM, REST, FIRST + REST <= DIM)
    document = program // blocks * count
    for step in tl.range(0, tl.minimum(count, Nd - document)):
        number = document + step
        first, length = extent(document_offsets, number, Ld)
        top = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        for start in tl.range(0, length, BLOCK_N, num_stages=STAGES):
            column = start + tl.arange(0, BLOCK_N)
            token = tl.minimum(first + column, TD - 1)
            here = tokens_present(token, column < length, document_mask)
            z = similarities(queries, q, q_rest, row, documents, token, DIM, FIRST, REST, RESIDENT, STAGES)
            z *= factor[:, None] * factors_of(token, document_factors, here, 1.0)[None, :]
            z = tl.where(here[None, :], z, float("-inf"))
            higher = larger(top, largest(z))
            base = finite_or_zero(higher)
            total = total * tl.exp(top - base) + tl.sum(tl.exp(z - base[:, None]), 1)
            top = higher
        smooth = temperature * (finite_or_zero(top) + tl.log(total))
        tl.store(found + row.to(tl.int64) * Nd + number, tl.where(present, smooth, 0.0), mask=inside)


@triton.jit(do_not_specialize=["TQ", "TD", "Nd", "Ld", "blocks", "count", "temperature"])
def soft_query_gradients(
    queries, query_factors, query_weights, documents, document_offsets, document_factors, document_mask,
    found, gradient, scales, sums,
    TQ, TD, Nd, Ld, blocks, count, temperature,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``sums [groups, TQ, DIM]``: ``sum_d g_sd sum_t p_st id_t d_t`` over groups of ``count`` documents.

    Gradients of query tokens as they are multiplied, in float32. Shares are divided by ``scales [TQ]`` meanwhile.
    Program: BLOCK_M query tokens and BLOCK_D components, with the documents of a group.
    """
    program = tl.program_id(0)
    slices: tl.constexpr = (DIM + BLOCK_D - 1) // BLOCK_D
    group = program // (blocks * slices)
    row = program // slices % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = program % slices * BLOCK_D
    inside = row < TQ
    row = tl.minimum(row, TQ - 1)
    present = rows_present(row, inside, query_weights)
    factor = factors_of(row, query_factors, present, 1 / temperature)
    scale = tl.full([BLOCK_M], 1.0, tl.float32)
    if scales is not None:
        scale = tl.load(scales + row)
    q = None
    q_rest = None
    if RESIDENT:
        q = load_tokens(queries, row, 0, DIM, FIRST, FIRST <= DIM)
        if REST > 0:
            q_rest = load_tokens(queries, row, FIRST, DIM, REST, FIRST + REST <= DIM)
    total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for step in tl.range(0, tl.minimum(count, Nd - group * count)):
        number = group * count + step
        first, length = extent(document_offsets, number, Ld)
        place = row.to(tl.int64) * Nd + number
        lse = tl.load(found + place) / temperature
        lse = tl.where(lse == float("-inf"), 0.0, lse)
        weight = tl.where(present, tl.load(gradient + place), 0.0) / scale
        for start in tl.range(0, length, BLOCK_N, num_stages=STAGES):
            column = start + tl.arange(0, BLOCK_N)
            token = tl.minimum(first + column, TD - 1)
            here = tokens_present(token, column < length, document_mask)
            token_factor = factors_of(token, document_factors, here, 1.0)
            z = similarities(queries, q, q_rest, row, documents, token, DIM, FIRST, REST, RESIDENT, STAGES)
            z *= factor[:, None] * token_factor[None, :]
            shares = tl.exp(z - lse[:, None]) * (weight[:, None] * token_factor[None, :])
            shares = tl.where(here[None, :] & (weight != 0)[:, None], shares, 0.0)
            d = load_tokens(documents, token, columns, DIM, BLOCK_D, DIM % BLOCK_D == 0)
            total = accurate_dot(shares, tl.where(here[:, None], d, 0.0), total)
    column = columns + tl.arange(0, BLOCK_D)
    pointers = sums + (group.to(tl.int64) * TQ + row)[:, None] * DIM + column[None, :]
    tl.store(pointers, total * scale[:, None], mask=inside[:, None] & (column[None, :] < DIM))


@triton.jit(do_not_specialize=["TQ", "TD", "Nd", "Ld", "tiles", "temperature"])
def soft_document_gradients(
    queries, query_factors, query_weights, documents, document_offsets, document_factors, document_mask,
    found, gradient, scales, sums,
    TQ, TD, Nd, Ld, tiles, temperature,
    DIM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``sums [TD, DIM]``: ``sum_s g_sd p_st iq_s q_s``, of document tokens as they are multiplied, in float32.

    Shares are divided by ``scales [Nd]`` meanwhile. Program: BLOCK_M tokens of a document and BLOCK_D components.
    """
    program = tl.program_id(0)
    slices: tl.constexpr = (DIM + BLOCK_D - 1) // BLOCK_D
    number = program // (tiles * slices)
    columns = program % slices * BLOCK_D
    first, length = extent(document_offsets, number, Ld)
    place = program // slices % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    if program // slices % tiles * BLOCK_M < length:
        inside = place < length
        token = tl.minimum(first + place, TD - 1)
        present = tokens_present(token, inside, document_mask)
        factor = factors_of(token, document_factors, present, 1 / temperature)
        scale = 1.0
        if scales is not None:
            scale = tl.load(scales + number)
        d = None
        d_rest = None
        if RESIDENT:
            d = load_tokens(documents, token, 0, DIM, FIRST, FIRST <= DIM)
            if REST > 0:
                d_rest = load_tokens(documents, token, FIRST, DIM, REST, FIRST + REST <= DIM)
        total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        for start in tl.range(0, TQ, BLOCK_N, num_stages=STAGES):
            row = start + tl.arange(0, BLOCK_N)
            here = rows_present(tl.minimum(row, TQ - 1), row < TQ, query_weights)
            row = tl.minimum(row, TQ - 1)
            row_factor = factors_of(row, query_factors, here, 1.0)
            answer = row.to(tl.int64) * Nd + number
            lse = tl.load(found + answer) / temperature
            lse = tl.where(lse == float("-inf"), 0.0, lse)
            weight = tl.where(here, tl.load(gradient + answer), 0.0) / scale
            z = similarities(documents, d, d_rest, token, queries, row, DIM, FIRST, REST, RESIDENT, STAGES)
            z *= factor[:, None] * row_factor[None, :]
            shares = tl.exp(z - lse[None, :]) * (weight * row_factor)[None, :]
            shares = tl.where(present[:, None] & (weight != 0)[None, :], shares, 0.0)
            q = load_tokens(queries, row, columns, DIM, BLOCK_D, DIM % BLOCK_D == 0)
            total = accurate_dot(shares, tl.where(here[:, None], q, 0.0), total)
        column = columns + tl.arange(0, BLOCK_D)
        pointers = sums + token.to(tl.int64)[:, None] * DIM + column[None, :]
        tl.store(pointers, total * scale, mask=inside[:, None] & (column[None, :] < DIM))
