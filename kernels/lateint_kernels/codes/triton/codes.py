"""Products of queries with residual codes: signed bytes, int32 sums, all exact."""

# Kernels are Triton, whose types mypy does not know.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def load_rows(table, rows, first, DEPTH: tl.constexpr, BLOCK: tl.constexpr):
    """Components ``first : first + BLOCK`` of rows of DEPTH bytes, 0 beyond: ``[rows, BLOCK]`` int8."""
    columns = first + tl.arange(0, BLOCK)
    pointers = table + rows.to(tl.int64)[:, None] * DEPTH + columns[None, :]
    if DEPTH % BLOCK == 0:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=columns[None, :] < DEPTH, other=0)


@triton.jit
def load_codes(codes, rows, first, NBITS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Codes of components ``first : first + BLOCK`` of tokens, ``[rows, BLOCK]`` int32: see docs/format.md."""
    BYTES: tl.constexpr = WIDTH * NBITS // 8
    PLANES: tl.constexpr = 8 // NBITS
    if BLOCK == WIDTH:  # each byte is loaded once
        packed = tl.load(codes + rows.to(tl.int64)[:, None] * BYTES + tl.arange(0, BYTES)[None, :])
        shifts = tl.arange(0, PLANES) * NBITS
        planes = (packed.to(tl.int32)[:, None, :] >> shifts[None, :, None]) & (2**NBITS - 1)
        return tl.reshape(planes, [rows.shape[0], BLOCK])
    else:
        columns = first + tl.arange(0, BLOCK)
        pointers = codes + rows.to(tl.int64)[:, None] * BYTES + (columns % BYTES)[None, :]
        packed = tl.load(pointers, mask=columns[None, :] < WIDTH, other=0)
        return (packed.to(tl.int32) >> (columns // BYTES * NBITS)[None, :]) & (2**NBITS - 1)


@triton.jit
def decode(
    codes, scales, centroid_low, centroid_high, centroids, rows, first,
    NBITS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Components ``first : first + BLOCK`` of tokens, ``[rows, BLOCK]`` int8; any number from WIDTH on.

    The level of code c is ``(2c - top) s / (2 unit)``, rounded half away from zero: with floors, ``(2 s c + unit - top
    s - [2c < top]) / (2 unit)``.
    """
    code = load_codes(codes, rows, first, NBITS, WIDTH, BLOCK)
    if NBITS == 8:
        return (code - 128).to(tl.int8)
    else:
        UNIT: tl.constexpr = 16 if NBITS == 4 else 4
        SHIFT: tl.constexpr = 5 if NBITS == 4 else 3
        scale = tl.load(scales + rows).to(tl.int32)[:, None]
        upper_half = code >> (NBITS - 1)
        level = (2 * scale * code + (UNIT - 1 - (2**NBITS - 1) * scale) + upper_half) >> SHIFT
        centroid = tl.load(centroid_low + rows).to(tl.int32) & 0xFFFF
        if centroid_high is not None:
            centroid |= tl.load(centroid_high + rows).to(tl.int32) << 16
        return (load_rows(centroids, centroid, first, DEPTH, BLOCK).to(tl.int32) + level).to(tl.int8)


@triton.jit(do_not_specialize=["T", "dim"])
def rotate(
    tokens, blocks, permutation, rotated, T, dim,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Query tokens ``[T, dim]`` permuted, 0 from dim on, and each block of BLOCK components times its matrix.

    Program: ROWS tokens and a block. To be compiled without fused multiply-add; sums run over components in order.
    """
    block = tl.program_id(0) % BLOCKS
    row = tl.program_id(0) // BLOCKS * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(0, BLOCK):
        source = tl.load(permutation + block * BLOCK + k)
        inside = row < tl.where(source < dim, T, 0)
        x = tl.load(tokens + row.to(tl.int64) * dim + source, mask=inside, other=0.0)
        factor = tl.load(blocks + (block * BLOCK + k) * BLOCK + column, mask=column < BLOCK, other=0.0)
        total += x[:, None] * factor[None, :]
    target = rotated + row.to(tl.int64)[:, None] * (BLOCKS * BLOCK) + block * BLOCK + column[None, :]
    tl.store(target, total, mask=(row < T)[:, None] & (column < BLOCK)[None, :])


@triton.jit(do_not_specialize=["C", "longest", "pieces", "count"])
def best_products(
    queries, query_offsets, positions, offsets, codes, scales, centroid_low, centroid_high, centroids, best,
    C, longest, pieces, count,
    NBITS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``best[q, c, i] = max_j <q_i, x_j>`` over the tokens x_j of the document at ``positions[q, c]``, if it has any.

    Program: a piece of BLOCK_M tokens of a query with ``count`` documents. Where a tile reaches past the end of a
    document, the last token is repeated, which changes no maximum.
    """
    program = tl.program_id(0)
    piece = program % pieces
    groups = tl.cdiv(C, count)
    query = program // pieces // groups
    first_candidate = program // pieces % groups * count
    query_first = tl.load(query_offsets + query)
    length = (tl.load(query_offsets + query + 1) - query_first).to(tl.int32)
    if piece * BLOCK_M >= length:
        return
    place = piece * BLOCK_M + tl.arange(0, BLOCK_M)
    row = query_first + tl.minimum(place, length - 1)
    if BLOCK_K >= WIDTH:
        q = load_rows(queries, row, 0, DEPTH, BLOCK_K)
    first_pair = query.to(tl.int64) * C + first_candidate
    for pair in range(first_pair, first_pair + tl.minimum(count, C - first_candidate)):
        position = tl.load(positions + pair)
        known = position >= 0
        position = tl.maximum(position, 0)
        first = tl.load(offsets + position)
        tokens = tl.where(known, tl.load(offsets + position + 1) - first, 0).to(tl.int32)
        top = tl.full([BLOCK_M], -(2**31), tl.int32)
        for start in tl.range(0, tokens, BLOCK_N, num_stages=STAGES):
            rows = first + tl.minimum(start + tl.arange(0, BLOCK_N), tokens - 1)
            if BLOCK_K >= WIDTH:
                x = decode(codes, scales, centroid_low, centroid_high, centroids, rows, 0, NBITS, WIDTH, DEPTH, BLOCK_K)
                found = tl.dot(q, tl.trans(x), out_dtype=tl.int32)
            else:
                found = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
                for k in tl.range(0, WIDTH, BLOCK_K):
                    part = load_rows(queries, row, k, DEPTH, BLOCK_K)
                    x = decode(
                        codes, scales, centroid_low, centroid_high, centroids, rows, k, NBITS, WIDTH, DEPTH, BLOCK_K
                    )
                    found = tl.dot(part, tl.trans(x), found, out_dtype=tl.int32)
            top = tl.maximum(top, tl.max(found, 1))
        target = best + pair * longest + place
        if tokens > 0:
            tl.store(target, top, mask=place < length)


@triton.jit(do_not_specialize=["C", "stride", "longest", "blocks"])
def weighted_sums(scales, best, constants, sums, C, stride, longest, blocks, BLOCK: tl.constexpr):
    """``sums[q, c] = constants[q] + sum_i scales[q, i] * best[q, c, i]`` in float64, i in order.

    To be compiled without fused multiply-add: products are rounded before they are added, as on a CPU. ``best[q, c]``
    begins at ``(q * C + c) * stride``.
    """
    query = tl.program_id(0) // blocks
    candidate = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = candidate < C
    pointers = best + (query.to(tl.int64) * C + tl.minimum(candidate, C - 1)) * stride
    total = tl.load(constants + query) + tl.zeros([BLOCK], tl.float64)
    for i in range(0, longest):
        total += tl.load(scales + query.to(tl.int64) * longest + i) * tl.load(pointers + i).to(tl.float64)
    tl.store(sums + query.to(tl.int64) * C + candidate, total, mask=inside)
