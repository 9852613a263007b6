// Checks of token matrices that need a look at every value. Rows are contiguous.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"

namespace lateint::dense {

// The first row that holds an infinity or a NaN; -1 if none does.
int64_t first_nonfinite_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads);

// The first row whose values are all zero; -1 if none is.
int64_t first_zero_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads);

}  // namespace lateint::dense
