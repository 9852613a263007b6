// v_t = sum_{(i, s): argmax = t} g_ij w_s iq_s q_s;   dd_t = c_t id_t (v_t - id_t^2 <v_t, d_t> d_t)
//
// A block owns some tokens of one document, and each of its warps some of those, so that nothing is added to by two and
// no atomics are needed. The query rows are walked in their order, in chunks staged in shared memory; a warp picks the
// rows its tokens won, 32 at a time, and adds them to float32 sums in shared memory. A sum thus depends on the order of
// the queries alone: not on the slicing, the number of warps, or the GPU.
#include "backward.cuh"

namespace lateint {

struct Winner {
    int row;       // of the queries
    int token;     // of the block's slice, or -1: none of them
    float weight;  // g w iq
};

constexpr int ENTRIES = 2;  // of a chunk, staged by one thread
constexpr int PICKED = 64;  // places for the rows a warp has picked: up to 31 left over and 32 more
constexpr int BATCH = 4;    // rows on their way from memory at a time
constexpr int COLUMNS = 4;  // of a lane

// Which token of the slice the idx-th entry of this document goes to.
__device__ inline Winner find_winner(const Backward& a, int document, int64 pairs_begin, int64 idx, int first,
                                     int count) {
    Winner none{0, -1, 0.0f};
    int row, query;
    int64 score, position;
    if (a.pair_order) {
        const int64 pair = a.pair_order[pairs_begin + idx / a.max_query_length];
        const int s = static_cast<int>(idx % a.max_query_length);
        query = static_cast<int>(a.pair_query[pair]);
        row = static_cast<int>(a.query_offsets[query]) + s;
        if (row >= a.query_offsets[query + 1]) return none;
        score = pair;
        position = pair * a.max_query_length + s;
    } else {
        row = static_cast<int>(idx);
        query = query_of(a, row);
        score = static_cast<int64>(query) * a.document_count + document;
        position = static_cast<int64>(document) * a.query_tokens + row;
    }
    const float g = a.grad_scores[score];
    const float w = factor(a.query_weights, row);
    if (g == 0.0f || w == 0.0f) return none;
    const int token = load_position(a.argmax, position, a.position_bytes) - first;
    if (token < 0 || token >= count) return none;
    return Winner{row, token, g * w * factor(a.query_inverse_norms, row)};
}

template <typename T>
__device__ inline void add_rows(const Backward& a, const Winner* staged, const unsigned short* picked, int count,
                                float* sums) {
    const T* queries = static_cast<const T*>(a.queries);
    for (int column = threadIdx.x % 32 * COLUMNS; column < a.dim; column += 32 * COLUMNS) {
        for (int begin = 0; begin < count; begin += BATCH) {
            Pack<T, COLUMNS> rows[BATCH];
#pragma unroll
            for (int u = 0; u < BATCH; ++u) {
                if (begin + u >= count) continue;
                const int row = staged[picked[begin + u]].row;
                rows[u] = load<T, COLUMNS>(queries + static_cast<int64>(row) * a.dim + column);
            }
#pragma unroll
            for (int u = 0; u < BATCH; ++u) {
                if (begin + u >= count) continue;
                const Winner winner = staged[picked[begin + u]];
                float* place = sums + winner.token * a.dim + column;
                Pack<float, COLUMNS> sum = load<float, COLUMNS>(place);
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) sum.values[c] += winner.weight * to_float(rows[u].values[c]);
                store(place, sum.values);
            }
        }
    }
}

// The rows of a staged chunk that this warp's tokens won, added in their order.
template <typename T>
__device__ inline void add_chunk(const Backward& a, const Winner* staged, int size, unsigned short* picked,
                                 float* sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int held = 0;
    for (int begin = 0; begin < size; begin += 32) {
        const int token = staged[begin + lane].token;
        const bool mine = token >= 0 && token % warps == warp;
        const unsigned lanes = __ballot_sync(ALL_LANES, mine);
        if (mine) picked[held + __popc(lanes & ((1u << lane) - 1))] = static_cast<unsigned short>(begin + lane);
        held += __popc(lanes);
        __syncwarp();
        if (held < 32) continue;
        add_rows<T>(a, staged, picked, 32, sums);
        held -= 32;
        __syncwarp();
        if (lane < held) picked[lane] = picked[32 + lane];
        __syncwarp();
    }
    add_rows<T>(a, staged, picked, held, sums);
}

template <typename T>
__device__ inline void write_token(const Backward& a, int64 token, const float* sum) {
    const int lane = threadIdx.x % 32;
    const float inverse_norm = factor(a.document_inverse_norms, token);
    const float scale = factor(a.document_scales, token) * inverse_norm;
    const T* vector = static_cast<const T*>(a.documents) + token * a.dim;
    T* out = static_cast<T*>(a.grad_documents) + token * a.dim;
    float dot = 0.0f;
    bool won = false;  // a token that won nothing gets zeros, whatever it holds
    for (int column = lane * COLUMNS; column < a.dim; column += 32 * COLUMNS) {
        const Pack<T, COLUMNS> values = load<T, COLUMNS>(vector + column);
        for (int c = 0; c < COLUMNS; ++c) {
            won = won || sum[column + c] != 0.0f;
            dot += sum[column + c] * to_float(values.values[c]);
        }
    }
    won = __ballot_sync(ALL_LANES, won) != 0;
    const bool project = a.document_inverse_norms && inverse_norm < CLAMPED_INVERSE_NORM;
    const float along = project ? warp_sum(dot) * inverse_norm * inverse_norm : 0.0f;
    for (int column = lane * COLUMNS; column < a.dim; column += 32 * COLUMNS) {
        float result[COLUMNS] = {};
        if (won) {
            const Pack<T, COLUMNS> values = load<T, COLUMNS>(vector + column);
            for (int c = 0; c < COLUMNS; ++c) {
                const float slope = project ? along * to_float(values.values[c]) : 0.0f;
                result[c] = scale * (sum[column + c] - slope);
            }
        }
        store(out + column, result);
    }
}

// Block (x, y): slice y of document x. Shared memory: sums [slice, dim], staged [ENTRIES * threads], picked [warps,
// PICKED].
template <typename T>
__device__ inline void document_gradient(const Backward& a, char* shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, chunk = ENTRIES * blockDim.x;
    const int document = blockIdx.x;
    const int64 begin = a.document_offsets[document] + static_cast<int64>(blockIdx.y) * a.slice;
    const int64 left = a.document_offsets[document + 1] - begin;
    if (left <= 0) return;
    const int count = static_cast<int>(left < a.slice ? left : a.slice);

    float* sums = reinterpret_cast<float*>(shared);
    Winner* staged = reinterpret_cast<Winner*>(sums + a.slice * a.dim);
    unsigned short* picked = reinterpret_cast<unsigned short*>(staged + chunk) + warp * PICKED;
    for (int token = warp; token < count; token += warps) {
        for (int column = lane; column < a.dim; column += 32) sums[token * a.dim + column] = 0.0f;
    }

    const int64 pairs_begin = a.pair_order ? a.pair_begin[document] : 0;
    const int64 pairs = a.pair_order ? a.pair_begin[document + 1] - pairs_begin : 0;
    const int64 size = a.pair_order ? pairs * a.max_query_length : a.query_tokens;
    const int first = blockIdx.y * a.slice;
    Winner next[ENTRIES];
    for (int64 at = -chunk; at < size; at += chunk) {
        if (at >= 0) {
            __syncthreads();  // the chunk before is done with
            for (int e = 0; e < ENTRIES; ++e) staged[e * blockDim.x + threadIdx.x] = next[e];
            __syncthreads();
        }
#pragma unroll
        for (int e = 0; e < ENTRIES; ++e) {
            const int64 idx = at + chunk + e * blockDim.x + threadIdx.x;
            next[e] = idx < size ? find_winner(a, document, pairs_begin, idx, first, count) : Winner{0, -1, 0.0f};
        }
        if (at >= 0) add_chunk<T>(a, staged, chunk, picked, sums);
    }

    __syncwarp();
    for (int token = warp; token < count; token += warps) write_token<T>(a, begin + token, sums + token * a.dim);
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(512, 2) document_gradient(const lateint::Backward arguments) {
    extern __shared__ float4 shared[];
    lateint::document_gradient<lateint::TOKEN>(arguments, reinterpret_cast<char*>(shared));
}
