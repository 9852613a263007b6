// Portable versions: the definition of the integer kernels.
#include "codes/int8.hpp"
#include "codes/int8_cross.hpp"
#include "codes/int8_select.hpp"

namespace lateint::codes {
namespace {

int32_t product(const uint8_t* row, int64_t depth, const int8_t* tile, int j) {
    int32_t sum = 0;
    for (int64_t k = 0; k < depth; ++k) sum += row[k] * tile[k / 4 * 64 + j * 4 + k % 4];
    return sum;
}

void dot(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    for (int64_t r = 0; r < n; ++r)
        for (int j = 0; j < ntiles * kLanes; ++j)
            *out++ = product(rows + r * depth, depth, tiles + j / kLanes * depth * kLanes, j % kLanes);
}

void dot_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best) {
    for (int64_t r = 0; r < n; ++r)
        for (int j = 0; j < m; ++j) {
            const int32_t s = product(rows + r * depth, depth, tiles + j / kLanes * depth * kLanes, j % kLanes);
            if (s > best[j]) best[j] = s;
        }
}

void nearest(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first, int32_t* best,
             int32_t* index) {
    for (int64_t r = 0; r < n; ++r)
        for (int j = 0; j < lanes; ++j) {
            const int32_t s = scores[r * lanes + j] - bias[j];
            if (s > best[r]) best[r] = s, index[r] = first + j;
        }
}

void nothing() {}

}  // namespace

const Int8Kernels kInt8Scalar = {dot,
                                 dot_max,
                                 cross_by_tiles<dot>,
                                 nullptr,
                                 0,
                                 above_plain,
                                 keep_best_plain,
                                 nearest,
                                 reaching_plain,
                                 less_bias,
                                 best_lanes<turn_scores_plain, mask_plain>,
                                 nothing,
                                 nothing};

}  // namespace lateint::codes
