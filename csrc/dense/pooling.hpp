// Token pooling: the tokens of a document that are alike become one.
#pragma once

#include <cstdint>

namespace lateint::dense {

// How many tokens a document of so many is pooled to: of `factor` there remains one, rounded up.
inline int64_t pooled_length(int64_t length, int64_t factor) { return (length + factor - 1) / factor; }

// Clusters each document by Ward's method, one merge at a time, until pooled_length clusters are left, and gives the
// mean of each. tokens [offsets[documents], dim]; pooled likewise with lengths pooled_length: clusters are in the order
// of their first tokens. Sums are in double and in one order, so the result is the same on any machine and thread
// count.
void pool(const float* tokens, const int64_t* offsets, int64_t documents, int64_t dim, int64_t factor, float* pooled,
          int threads);

// Which cluster each token is in, for runs of tokens [offsets[runs], dim] that are clustered into counts[run] clusters
// each: 0, 1, ... within the run, in the order of their first tokens. With `cosine` tokens are 1 - <a, b> apart, as
// other libraries have it, instead of |a - b|. means [sum of counts, dim] may be nullptr.
void cluster(const float* tokens, const int64_t* offsets, int64_t runs, int64_t dim, const int64_t* counts, bool cosine,
             int64_t* clusters, float* means, int threads);

}  // namespace lateint::dense
