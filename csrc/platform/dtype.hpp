// Element types of tokens.
#pragma once

#include <cstdint>

namespace lateint {

// As Python passes them (lateint_kernels.arrays.DTYPE_CODES).
enum class Dtype : int { float32 = 0, float16 = 1, bfloat16 = 2, int8 = 3 };
constexpr int64_t itemsize(Dtype dtype) { return dtype == Dtype::float32 ? 4 : dtype == Dtype::int8 ? 1 : 2; }

}  // namespace lateint
