// Token matrices of which every value is looked at. Rows are contiguous.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"

namespace lateint::dense {

// The first row that holds an infinity or a NaN, and the first whose values are all zero; -1 if none.
struct BadRows {
    int64_t nonfinite, zero;
};
BadRows bad_rows(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads);

// Whether all numbers are at most `limit` in magnitude; a NaN is not.
bool within(const float* numbers, int64_t count, float limit);

}  // namespace lateint::dense
