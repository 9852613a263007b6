// S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> }
//
// A block keeps ROWS query tokens (several short queries, or a part of a long one) and streams documents past them in
// tiles of COLUMNS tokens, copied ahead in STAGES buffers. Warps are 32 rows apart, and share a tile's columns 16
// by 16. Each thread keeps the maxima of its share of the products in registers; at a document's end they meet in
// shared memory, where the sum of each query is formed in a fixed order. Nothing is added atomically.
//
// Defined from outside: TOKEN, DIM, ROWS, COLUMNS, STAGES, and FACTORS and ARGMAX, 0 or 1.
#include "forward.cuh"

namespace lateint {

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * 32;
constexpr int PITCH = DIM + 8;             // of a row in shared memory: the 8 rows of a matrix are in different banks
constexpr int SPLITS = WARPS * 32 / ROWS;  // warps that share a tile's columns
constexpr int GROUPS = COLUMNS / SPLITS / 16;  // of 16 columns, of a warp
constexpr int STEPS = DIM / 16;
constexpr bool HELD = DIM <= 128;  // the query tokens stay in registers
static_assert(GROUPS * SPLITS * 16 == COLUMNS && STEPS * 16 == DIM, "tiles must divide");

// Of shared memory; the same sum is in lateint_kernels/dense/cuda/forward.py.
struct Layout {
    TOKEN queries[ROWS * PITCH];
    TOKEN documents[STAGES][COLUMNS * PITCH];
    float column_factors[STAGES][COLUMNS];
    float row_factors[ROWS];
    Best best[2][SPLITS * ROWS];
};

__device__ inline void load_queries(const Forward& a, Layout& shared, const Rows& rows) {
    for (int chunk = threadIdx.x; chunk < ROWS * DIM / 8; chunk += THREADS) {
        const int row = chunk / (DIM / 8), column = chunk % (DIM / 8) * 8, token = token_of(a, rows, row, ROWS);
        const TOKEN* from =
            static_cast<const TOKEN*>(a.queries) + static_cast<int64>(token < 0 ? 0 : token) * DIM + column;
        copy_async16(shared.queries + row * PITCH + column, from, token >= 0);
    }
    for (int row = threadIdx.x; row < ROWS; row += THREADS) {
        const int token = token_of(a, rows, row, ROWS);
        shared.row_factors[row] = token < 0 ? 0.0f : a.row_factors ? a.row_factors[token] : 1.0f;
    }
    commit_copies();
}

// Starts the copy of a tile; always ends a group, so that groups count tiles.
__device__ inline void load_tile(const Forward& a, Layout& shared, int stage, const Cursor& at) {
    if (at.item < at.end) {
        const int64 first = at.begin + at.token;
        for (int chunk = threadIdx.x; chunk < COLUMNS * DIM / 8; chunk += THREADS) {
            const int token = chunk / (DIM / 8), column = chunk % (DIM / 8) * 8;
            const bool there = at.token + token < at.length;
            const TOKEN* from = static_cast<const TOKEN*>(a.documents) + (there ? first + token : 0) * DIM + column;
            copy_async16(shared.documents[stage] + token * PITCH + column, from, there);
        }
        if (FACTORS) {
            for (int token = threadIdx.x; token < COLUMNS; token += THREADS) {
                const bool there = at.token + token < at.length;
                copy_async4(&shared.column_factors[stage][token], a.column_factors + (there ? first + token : 0),
                            there);
            }
        }
    }
    commit_copies();
}

// The 16 rows `half` of this warp, columns step * 16 on, of the query tokens.
__device__ inline void load_rows(unsigned (&out)[4], const Layout& shared, int half, int step) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 / SPLITS * 32 + half * 16 + lane % 16;
    load_matrices(out, shared.queries + row * PITCH + step * 16 + lane / 16 * 8);
}

__device__ inline void hold_rows(unsigned (&held)[2][HELD ? STEPS : 1][4], const Layout& shared) {
    if (!HELD) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int step = 0; step < (HELD ? STEPS : 1); ++step) load_rows(held[half][step], shared, half, step);
    }
}

// Takes similarities [16 rows, 8 columns] of one product into the maxima of its two rows in this thread.
__device__ inline void take(Best (&best)[2], const float (&sum)[4], const float* factors, int column, int limit,
                            int token) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
        const int at = column + c % 2;
        float value = sum[c];
        if (FACTORS) value = is_absent(factors[at]) ? minus_infinity() : value * factors[at];
        if (at >= limit) value = minus_infinity();
        if (ARGMAX && value > best[c / 2].value) best[c / 2].position = token + at;
        best[c / 2].value = larger(best[c / 2].value, value);
    }
}

// One tile: the products of this warp's 32 rows and its groups of 16 columns.
__device__ inline void score_tile(const Layout& shared, int stage, const unsigned (&held)[2][HELD ? STEPS : 1][4],
                                  const Cursor& at, Best (&best)[2][2]) {
    const int lane = threadIdx.x % 32, split = threadIdx.x / 32 % SPLITS, limit = at.length - at.token;
    // ldmatrix: columns 0-7 of the group with the first and the second 8 numbers of a step, then columns 8-15.
    const TOKEN* documents = shared.documents[stage] + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 8;
    for (int group = 0; group < GROUPS; ++group) {
        const int first = (group * SPLITS + split) * 16;
        if (first >= limit) break;
        float sums[2][2][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            unsigned columns[4], rows[2][4];
            load_matrices(columns, documents + first * PITCH + step * 16);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if (!HELD) load_rows(rows[half], shared, half, step);
#pragma unroll
                for (int side = 0; side < 2; ++side) {
                    multiply(sums[half][side], HELD ? held[half][HELD ? step : 0] : rows[half], columns[side * 2],
                             columns[side * 2 + 1], TOKEN{});
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                take(best[half], sums[half][side], shared.column_factors[stage], first + side * 8 + lane % 4 * 2, limit,
                     at.token);
            }
        }
    }
}

__device__ inline void forget(Best (&best)[2][2]) {
    for (int half = 0; half < 2; ++half) {
        for (int row = 0; row < 2; ++row) best[half][row] = Best{minus_infinity(), 0};
    }
}

// At a document's end: this warp's maxima over its columns, into shared memory.
__device__ inline void hand_over(Layout& shared, int buffer, Best (&best)[2][2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            Best found = best[half][row];
            for (int offset = 1; offset < 4; offset *= 2) {
                found = better(found, Best{__shfl_xor_sync(ALL_LANES, found.value, offset),
                                           __shfl_xor_sync(ALL_LANES, found.position, offset)});
            }
            const int place = warp / SPLITS * 32 + half * 16 + row * 8 + lane / 4;
            if (lane % 4 == 0) shared.best[buffer][warp % SPLITS * ROWS + place] = found;
        }
    }
    forget(best);
}

// Block (x, y): tile x of the queries (of pairs: part x of each query) with items y * items_per_block on.
__device__ inline void forward(const Forward& a, Layout& shared) {
    Cursor at{static_cast<int64>(blockIdx.y) * a.items_per_block, 0, 0, 0, 0};
    at.end = at.item + a.items_per_block < a.items ? at.item + a.items_per_block : a.items;
    enter(a, at);
    Cursor ahead = at;
    Rows rows = rows_of(a, blockIdx.x, at.item, ROWS);
    load_queries(a, shared, rows);
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        load_tile(a, shared, stage, ahead);
        if (ahead.item < ahead.end) advance(a, ahead, COLUMNS);
    }
    wait_copies<STAGES - 1>();
    __syncthreads();
    unsigned held[2][HELD ? STEPS : 1][4];
    hold_rows(held, shared);
    Best best[2][2];
    forget(best);

    int64 finished = -1;  // an item whose maxima are in shared memory, not yet written
    int buffer = 0;
    for (int stage = 0; at.item < at.end; stage = (stage + 1) % STAGES) {
        wait_copies<STAGES - 2>();
        __syncthreads();  // this tile is there; all are done with the one before and have handed over
        load_tile(a, shared, (stage + STAGES - 1) % STAGES, ahead);
        if (ahead.item < ahead.end) advance(a, ahead, COLUMNS);
        if (finished >= 0)
            write_item(a, rows, finished, shared.best[buffer ^ 1], SPLITS, ROWS, shared.row_factors, WARPS);
        finished = -1;
        if (a.pair_query && at.token == 0 && a.pair_query[at.item] != rows.first_query) {
            __syncthreads();  // all have written the item before, with its factors
            rows = rows_of(a, blockIdx.x, at.item, ROWS);
            load_queries(a, shared, rows);
            wait_copies<0>();
            __syncthreads();
            hold_rows(held, shared);
        }
        score_tile(shared, stage, held, at, best);
        const Cursor before = at;
        advance(a, at, COLUMNS);
        if (at.item == before.item) continue;
        hand_over(shared, buffer, best);
        finished = before.item;
        buffer ^= 1;
    }
    __syncthreads();
    if (finished >= 0) write_item(a, rows, finished, shared.best[buffer ^ 1], SPLITS, ROWS, shared.row_factors, WARPS);
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(lateint::THREADS, 1) forward(const lateint::Forward arguments) {
    extern __shared__ float4 shared[];
    lateint::forward(arguments, *reinterpret_cast<lateint::Layout*>(shared));
}
