// What both gradients are computed from. Python fills this struct byte for byte
// (lateint_kernels/dense/cuda/backward.py).
#pragma once

#include "device.cuh"

namespace lateint {

struct Backward {
    const void* queries;                  // [TQ, dim]
    const int64* query_offsets;           // [Nq + 1]
    const void* documents;                // [TD, dim]
    const int64* document_offsets;        // [Nd + 1]
    const float* query_weights;           // w [TQ], or null: 1; a token of weight 0 is absent
    const float* query_inverse_norms;     // iq [TQ], or null: 1, and no projection
    const float* document_inverse_norms;  // id [TD], likewise
    const float* document_scales;         // c [TD], or null: 1
    const float* grad_scores;             // g: [Nq, Nd], of pairs [P]
    const void* argmax;                   // [Nd, TQ], of pairs [P, max_query_length]
    const int* row_query;                 // [TQ] the query of a row; null: all queries are max_query_length long
    const int64* pair_query;              // [P]; null: all pairs, and so for the four below
    const int64* pair_document;           // [P]
    const int64* pair_order;              // [P] pairs sorted by the side whose gradient is wanted, stably
    const int64* pair_begin;              // [that side + 1] where in pair_order its pairs begin
    void* grad_queries;                   // [TQ, dim], or null: not wanted
    float* grad_weights;                  // [TQ], or null
    void* grad_documents;                 // [TD, dim]
    int query_tokens;                     // TQ
    int query_count;                      // Nq
    int document_count;                   // Nd
    int max_query_length;
    int dim;
    int position_bytes;  // of an argmax
    int slice;           // document tokens of a block
};

__device__ inline int query_of(const Backward& a, int row) {
    return a.row_query ? a.row_query[row] : row / a.max_query_length;
}

__device__ inline float factor(const float* factors, int64 index) { return factors ? factors[index] : 1.0f; }

}  // namespace lateint
