// Exact MaxSim on dense tokens: score(q, d) = sum_i max_j <q_i, d_j>.
//
// Sixteen query tokens, perhaps of several queries, lie in the lanes of a "tile"; document tokens are broadcast against
// one or two tiles at a time and the running maxima stay in registers, so the similarity matrix never exists.
#pragma once

#include <cstdint>

#include "dense/sketch.hpp"
#include "platform/dtype.hpp"

namespace lateint::dense {

// Ragged matrices: matrix i is rows offsets[i] .. offsets[i + 1] of tokens.
struct Matrices {
    const void* data;
    Dtype dtype;
    const int64_t* offsets;
    int64_t count;
    // Of float32 documents, or nullptr: faster where the instruction set has a kernel for it, and the same scores.
    const int8_t* codes = nullptr;
    const SketchScale* scales = nullptr;
};

// out [queries.count, documents.count]; every query and document holds a token, and both are int8 or queries are not.
void maxsim(const Matrices& queries, const Matrices& documents, int64_t dim, int threads, float* out);

// out [pairs]: the score of query query_index[p] and document document_index[p].
void maxsim_pairs(const Matrices& queries, const Matrices& documents, int64_t dim, const int64_t* query_index,
                  const int64_t* document_index, int64_t pairs, int threads, float* out);

}  // namespace lateint::dense
