#include "codes/int8_cross_avx512.hpp"
#include "codes/int8_dot_avx512.hpp"
#include "codes/int8_select_avx512.hpp"

namespace lateint::codes {
namespace {
void nothing() {}
}  // namespace

const Int8Kernels kInt8Avx512 = {dot_avx512,        dot_max_avx512,   cross_avx512,   cross_turned_avx512, 16,
                                 above_avx512,      keep_best_avx512, nearest_avx512, reaching_avx512,     less_bias,
                                 best_lanes_avx512, nothing,          nothing};

}  // namespace lateint::codes
