// MaxSim that trains: scores with the position of each maximum, and the gradients that go through those positions.
//
//   S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> : t present in document j }
//
// The sums, the order of their terms and so every bit are the same for any number of threads.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"

namespace lateint::train {

// Everything points into memory of the caller's; nullptr means that the factor is 1, or the mask true, throughout.
struct Problem {
    const void* queries;  // [query_offsets[query_count], dim], of `dtype`
    const int64_t* query_offsets;
    int64_t query_count;
    const void* documents;  // [document_offsets[document_count], dim], of `dtype`
    const int64_t* document_offsets;
    int64_t document_count;
    Dtype dtype;  // float32, float16 or bfloat16
    int64_t dim;
    int64_t max_query_length;             // the row length of the positions of pairs
    const float* query_weights;           // w; a token of weight 0 is absent
    const float* query_inverse_norms;     // iq
    const float* document_inverse_norms;  // id
    const float* document_scales;         // c
    const uint8_t* document_mask;
    const int64_t* query_index;  // of the chosen pairs; nullptr: every query with every document
    const int64_t* document_index;
    int64_t pairs;

    int64_t query_rows() const { return query_offsets[query_count]; }
    int64_t document_rows() const { return document_offsets[document_count]; }
    bool grid() const { return query_index == nullptr; }
    float query_factor(int64_t s) const {  // w iq
        return (query_weights != nullptr ? query_weights[s] : 1) * query_inverse_norm(s);
    }
    float query_inverse_norm(int64_t s) const { return query_inverse_norms != nullptr ? query_inverse_norms[s] : 1; }
    bool query_present(int64_t s) const { return query_weights == nullptr || query_weights[s] != 0; }
    float document_factor(int64_t t) const {  // c id
        return (document_scales != nullptr ? document_scales[t] : 1) *
               (document_inverse_norms != nullptr ? document_inverse_norms[t] : 1);
    }
    bool document_present(int64_t t) const { return document_mask == nullptr || document_mask[t] != 0; }
};

// Positions inside a document, of 1 (unsigned), 2 or 4 (signed) bytes: [documents, query rows] of a grid, or
// [pairs, max_query_length].
struct Positions {
    void* data;
    int bytes;
};

// scores [queries, documents] or [pairs]; positions.data may be nullptr.
void forward(const Problem& problem, float* scores, Positions positions, int threads);

// Gradients from those of the scores; any of them may be nullptr. In the inputs' dtype: query_gradients
// [query rows, dim], document_gradients [document rows, dim]; weight_gradients [query rows].
void backward(const Problem& problem, const float* score_gradients, Positions positions, void* query_gradients,
              void* document_gradients, float* weight_gradients, int threads);

// The smooth maximum found_sj = T log sum_t exp(iq_s c_t id_t <q_s, d_t> / T) over the tokens present in document j:
// [query rows, documents]. 0 for an absent query token, whose weight counts for nothing else; -inf for a document
// without tokens. Of the grid only.
void smooth_forward(const Problem& problem, float temperature, float* found, int threads);

// Gradients from those of `found`, either of them may be nullptr.
void smooth_backward(const Problem& problem, float temperature, const float* found, const float* gradients,
                     void* query_gradients, void* document_gradients, int threads);

// What a search over tokens would find, of the grid: best_sj = max_t iq_s c_t id_t <q_s, d_t> of document j, [query
// rows, documents], with the positions of `forward`, and least_s, the product of the last of the k document tokens that
// are most similar to query token s (of all, if they are fewer), [query rows]. 0 for an absent query token; -inf and 0
// for a document without tokens.
void retrieve(const Problem& problem, int64_t k, float* best, Positions positions, float* least, int threads);

}  // namespace lateint::train
