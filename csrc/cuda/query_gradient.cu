// u_s = sum_j g_ij c_a id_a d_a  with a = argmax of (s, j)
// dq_s = w_s iq_s (u_s - iq_s^2 <u_s, q_s> q_s);   dw_s = iq_s <u_s, q_s>
//
// A warp owns a query token and gathers the document tokens that won it, 32 documents at a time: a lane looks up one
// winner, then LANES lanes share each row, 16 bytes a lane. The order of the sum is fixed.
#include "backward.cuh"

namespace lateint {

struct Source {
    int row;       // of the documents
    float weight;  // g c id; 0: nothing to add
};

__device__ inline Source find_source(const Backward& a, int row, int query, int64 k) {
    int64 document = k, score = static_cast<int64>(query) * a.document_count + k, position = k * a.query_tokens + row;
    if (a.pair_order) {
        score = a.pair_order[k];
        document = a.pair_document[score];
        position = score * a.max_query_length + row - a.query_offsets[query];
    }
    const float g = a.grad_scores[score];
    const int64 winner = a.document_offsets[document] + load_position(a.argmax, position, a.position_bytes);
    if (g == 0.0f || winner >= a.document_offsets[document + 1]) return Source{0, 0.0f};
    return Source{static_cast<int>(winner),
                  g * factor(a.document_scales, winner) * factor(a.document_inverse_norms, winner)};
}

template <typename T>
struct Shape {
    static constexpr int WIDTH = 16 / sizeof(T);                       // columns of a lane, in one load
    static constexpr int STRIDE = LANES * WIDTH;                       // columns of all lanes
    static constexpr int GROUPS = 32 / LANES;                          // rows read by one instruction
    static constexpr int BATCH = BLOCKS > 2 ? 1 : GROUPS > 4 ? 1 : 4;  // instructions on their way at a time
};

// sums += the rows of 32 sources, one held by each lane.
template <typename T>
__device__ inline void add_sources(const Backward& a, Source mine, float (&sums)[BLOCKS][Shape<T>::WIDTH]) {
    constexpr int WIDTH = Shape<T>::WIDTH, GROUPS = Shape<T>::GROUPS, BATCH = Shape<T>::BATCH;
    const int group = threadIdx.x % 32 / LANES, column = threadIdx.x % LANES * WIDTH;
    const T* documents = static_cast<const T*>(a.documents);
    for (int begin = 0; begin < 32; begin += BATCH * GROUPS) {
        Source sources[BATCH];
        Pack<T, WIDTH> rows[BATCH][BLOCKS];
#pragma unroll
        for (int u = 0; u < BATCH; ++u) {
            const int lane = begin + u * GROUPS + group;
            sources[u] = Source{__shfl_sync(ALL_LANES, mine.row, lane), __shfl_sync(ALL_LANES, mine.weight, lane)};
            if (sources[u].weight == 0.0f) continue;
            const T* row = documents + static_cast<int64>(sources[u].row) * a.dim;
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) {
                if (column + b * Shape<T>::STRIDE < a.dim)
                    rows[u][b] = load<T, WIDTH>(row + column + b * Shape<T>::STRIDE);
            }
        }
#pragma unroll
        for (int u = 0; u < BATCH; ++u) {
            if (sources[u].weight == 0.0f) continue;
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) {
                if (column + b * Shape<T>::STRIDE >= a.dim) continue;
#pragma unroll
                for (int c = 0; c < WIDTH; ++c) sums[b][c] += sources[u].weight * to_float(rows[u][b].values[c]);
            }
        }
    }
}

template <typename T>
__device__ inline void write_row(const Backward& a, int row, float weight,
                                 const float (&sums)[BLOCKS][Shape<T>::WIDTH]) {
    constexpr int WIDTH = Shape<T>::WIDTH;
    const int lane = threadIdx.x % 32, column = lane % LANES * WIDTH;
    const int64 start = static_cast<int64>(row) * a.dim;
    const float inverse_norm = factor(a.query_inverse_norms, row);
    const bool project = a.query_inverse_norms && inverse_norm < CLAMPED_INVERSE_NORM;

    const T* vector = static_cast<const T*>(a.queries) + start + column;
    float dot = 0.0f;
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
        if (weight == 0.0f || column + b * Shape<T>::STRIDE >= a.dim) continue;
        const Pack<T, WIDTH> values = load<T, WIDTH>(vector + b * Shape<T>::STRIDE);
        for (int c = 0; c < WIDTH; ++c) dot += sums[b][c] * to_float(values.values[c]);
    }
    dot = warp_sum(lane < LANES ? dot : 0.0f);
    if (lane == 0 && a.grad_weights) a.grad_weights[row] = inverse_norm * dot;
    if (lane >= LANES || !a.grad_queries) return;
    const float along = project ? dot * inverse_norm * inverse_norm : 0.0f;
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
        if (column + b * Shape<T>::STRIDE >= a.dim) continue;
        float result[WIDTH] = {};
        if (weight != 0.0f) {
            const Pack<T, WIDTH> values = load<T, WIDTH>(vector + b * Shape<T>::STRIDE);
            for (int c = 0; c < WIDTH; ++c) {
                const float slope = project ? along * to_float(values.values[c]) : 0.0f;
                result[c] = weight * inverse_norm * (sums[b][c] - slope);
            }
        }
        store(static_cast<T*>(a.grad_queries) + start + column + b * Shape<T>::STRIDE, result);
    }
}

// A warp for each query token.
template <typename T>
__device__ inline void query_gradient(const Backward& a) {
    constexpr int WIDTH = Shape<T>::WIDTH;
    const int64 index = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (index >= a.query_tokens) return;
    const int row = static_cast<int>(index), lane = threadIdx.x % 32, query = query_of(a, row);
    const float weight = factor(a.query_weights, row);
    const int64 begin = a.pair_order ? a.pair_begin[query] : 0;
    const int64 end = weight == 0.0f ? begin : a.pair_order ? a.pair_begin[query + 1] : a.document_count;

    float sums[BLOCKS][WIDTH] = {};
    Source next = begin + lane < end ? find_source(a, row, query, begin + lane) : Source{0, 0.0f};
    for (int64 k = begin; k < end; k += 32) {
        const Source mine = next;
        next = k + 32 + lane < end ? find_source(a, row, query, k + 32 + lane) : Source{0, 0.0f};
        if (__ballot_sync(ALL_LANES, mine.weight != 0.0f)) add_sources<T>(a, mine, sums);
    }
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
        for (int c = 0; c < WIDTH; ++c) {
            for (int offset = LANES; offset < 32; offset *= 2) {
                sums[b][c] += __shfl_xor_sync(ALL_LANES, sums[b][c], offset);
            }
        }
    }
    write_row<T>(a, row, weight, sums);
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(256) query_gradient(const lateint::Backward arguments) {
    lateint::query_gradient<lateint::TOKEN>(arguments);
}
