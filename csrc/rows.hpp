// Checks of token matrices that need a look at every value. Rows are contiguous.
#pragma once

#include <cstdint>

namespace lateint {

// Element types as Python passes them (lateint_kernels.arrays.DTYPE_CODES).
enum class Dtype : int { float32 = 0, float16 = 1, bfloat16 = 2, int8 = 3 };
constexpr int64_t itemsize(Dtype dtype) { return dtype == Dtype::float32 ? 4 : dtype == Dtype::int8 ? 1 : 2; }

// The first row that holds an infinity or a NaN; -1 if none does.
int64_t first_nonfinite_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads);

// The first row whose values are all zero; -1 if none is.
int64_t first_zero_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads);

}  // namespace lateint
