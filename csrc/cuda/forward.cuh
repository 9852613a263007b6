// What scores are computed from, and how a maximum over document tokens is kept. Python fills Forward byte for byte
// (lateint_kernels/dense/cuda/forward.py).
#pragma once

#include "tensor_core.cuh"

namespace lateint {

struct Forward {
    const void* queries;            // [TQ, dim]
    const int64* query_offsets;     // [Nq + 1]
    const void* documents;          // [TD, dim]
    const int64* document_offsets;  // [Nd + 1]
    const float* row_factors;       // w iq [TQ], or null: 1; 0: the token is absent
    const float* column_factors;    // c id [TD], or null: 1; -0: the token is absent
    const int64* pair_query;        // [P], or null: all pairs
    const int64* pair_document;     // [P]
    float* scores;                  // [parts, Nq, Nd], of pairs [parts, P]
    void* argmax;                   // [Nd, TQ], of pairs [P, max_query_length]
    int query_tokens;               // TQ
    int query_count;                // Nq
    int items;                      // Nd, of pairs P
    int items_per_block;
    int max_query_length;
    int parts;             // into which a query longer than a block's rows is cut
    int queries_per_tile;  // side by side in a block's rows
    int position_bytes;    // of an argmax
};

// The largest similarity of a query token so far, and where in the document it was.
struct Best {
    float value;
    int position;
};

__device__ inline float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ inline bool is_absent(float column_factor) { return __float_as_uint(column_factor) == 0x80000000u; }

// Of equals the first in the document wins; NaN beats everything.
__device__ inline Best better(Best x, Best y) {
    const bool second = y.value > x.value || (y.value == x.value && y.position < x.position);
    return Best{larger(x.value, y.value), second ? y.position : x.position};
}

__device__ inline void store_position(void* positions, int64 index, int bytes, int position) {
    if (bytes == 1) {
        static_cast<unsigned char*>(positions)[index] = static_cast<unsigned char>(position);
    } else if (bytes == 2) {
        static_cast<short*>(positions)[index] = static_cast<short>(position);
    } else {
        static_cast<int*>(positions)[index] = position;
    }
}

// The queries in a block's rows: `queries_per_tile` whole ones side by side, each in `slot` rows, or one part of one. A
// tile past the last has none.
struct Rows {
    int first_query, queries, slot, part;
};

__device__ inline Rows rows_of(const Forward& a, int tile, int64 item, int block_rows) {
    if (a.pair_query) return Rows{static_cast<int>(a.pair_query[item]), 1, block_rows, tile};
    if (a.parts > 1) return Rows{tile / a.parts, tile / a.parts < a.query_count, block_rows, tile % a.parts};
    const int first = tile * a.queries_per_tile, left = a.query_count - first;
    return Rows{first, left < a.queries_per_tile ? left : a.queries_per_tile, block_rows / a.queries_per_tile, 0};
}

// The query token in a row of the block, or -1.
__device__ inline int token_of(const Forward& a, const Rows& rows, int row, int block_rows) {
    const int query = rows.first_query + row / rows.slot, s = row % rows.slot + rows.part * block_rows;
    if (row / rows.slot >= rows.queries) return -1;
    const int64 token = a.query_offsets[query] + s;
    return token < a.query_offsets[query + 1] ? static_cast<int>(token) : -1;
}

__device__ inline int64 document_of(const Forward& a, int64 item) {
    return a.pair_document ? a.pair_document[item] : item;
}

// Where a block's walk through the tokens of its documents is: `size` tokens from `token` on.
struct Cursor {
    int64 item, end;
    int64 begin;  // of the document
    int length, token;
};

__device__ inline void enter(const Forward& a, Cursor& at) {
    if (at.item >= at.end) return;
    const int64 document = document_of(a, at.item);
    at.begin = a.document_offsets[document];
    at.length = static_cast<int>(a.document_offsets[document + 1] - at.begin);
    at.token = 0;
}

// To the next `step` tokens; a document of no tokens takes one step as well.
__device__ inline void advance(const Forward& a, Cursor& at, int step) {
    at.token += step;
    if (at.token < at.length) return;
    ++at.item;
    enter(a, at);
}

// Sums each query's maxima and writes them. `best` [splits, block_rows] holds what each of the warps side by side
// found.
__device__ inline void write_item(const Forward& a, const Rows& rows, int64 item, const Best* best, int splits,
                                  int block_rows, const float* row_factors, int warps) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % warps;
    for (int q = warp; q < rows.queries; q += warps) {
        float sum = 0.0f;
        for (int s = lane; s < rows.slot; s += 32) {
            const int row = q * rows.slot + s;
            Best found = best[row];
            for (int split = 1; split < splits; ++split) found = better(found, best[split * block_rows + row]);
            if (row_factors[row] != 0.0f) sum += row_factors[row] * found.value;
            if (!a.argmax) continue;
            const int token = token_of(a, rows, row, block_rows);
            if (token < 0) continue;
            const int64 within = a.pair_query ? token - a.query_offsets[rows.first_query] : token;
            const int64 width = a.pair_query ? a.max_query_length : a.query_tokens;
            store_position(a.argmax, item * width + within, a.position_bytes, found.position);
        }
        sum = warp_sum(sum);
        if (lane > 0) continue;
        const int64 size = static_cast<int64>(a.pair_query ? 1 : a.query_count) * a.items;
        const int64 place = a.pair_query ? item : static_cast<int64>(rows.first_query + q) * a.items + item;
        a.scores[rows.part * size + place] = sum;
    }
}

}  // namespace lateint
