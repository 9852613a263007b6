// Products by vector of rows that lie as tiles do, for the tables of 64-bit ARM. They differ in how four rows are
// multiplied with a lane. A struct T does that:
//   kMostLanes                  lanes multiplied together, whose sums fit into the registers
//   kParts                      registers that the sums of four rows with a lane take
//   start(lane, depth)          what is added to each sum of a lane
//   rows(words)                 four components of four rows
//   add(rows, lane, parts)      adds their products with the same components of a lane, which are there four times
//   total(parts)                the sums of the four rows
#pragma once

#include <arm_neon.h>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

constexpr int kMostTurned = 16;  // lanes of a call

// The word four times.
inline int8x16_t spread_word(const int8_t* word) {
    int32_t value;
    __builtin_memcpy(&value, word, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(value));
}

// For sets that multiply signed bytes only: rows are taken 128 less, and 128 times its sum is added for each lane.
struct SignedLanes {
    static int32x4_t start(const int8_t* lane, int64_t depth) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int64_t k = 0; k < depth; k += 4) sum = vpadalq_s16(sum, vpaddlq_s8(spread_word(lane + k * kLanes)));
        return vshlq_n_s32(sum, 7);
    }
    static int8x16_t rows(const uint8_t* words) {
        return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(words), vdupq_n_u8(0x80)));
    }
};

// The products of a tile of 16 rows with M lanes. What is loaded of the rows serves all lanes.
template <class T, int M>
inline __attribute__((always_inline)) void cross_tile(const uint8_t* tile, int64_t depth, const int8_t* const* lanes,
                                                      const int32x4_t* starts, int32_t* out, int64_t stride) {
    int32x4_t sums[M][4][T::kParts];
    for (int j = 0; j < M; ++j)
        for (int i = 0; i < 4; ++i)
            for (int p = 0; p < T::kParts; ++p) sums[j][i][p] = vdupq_n_s32(0);
    for (int64_t k = 0; k < depth * kLanes; k += 4 * kLanes) {
        int8x16_t v[M];
        for (int j = 0; j < M; ++j) v[j] = spread_word(lanes[j] + k);
        for (int i = 0; i < 4; ++i) {
            const auto x = T::rows(tile + k + i * 16);
            for (int j = 0; j < M; ++j) T::add(x, v[j], sums[j][i]);
        }
    }
    for (int j = 0; j < M; ++j)
        for (int i = 0; i < 4; ++i) vst1q_s32(out + j * stride + i * 4, vaddq_s32(starts[j], T::total(sums[j][i])));
}

// All lanes, M together; those that are left, fewer together.
template <class T, int M>
inline void cross_all_lanes(const uint8_t* tile, int64_t depth, const int8_t* const* lanes, int m,
                            const int32x4_t* starts, int32_t* out, int64_t stride) {
    int j = 0;
    for (; j + M <= m; j += M) cross_tile<T, M>(tile, depth, lanes + j, starts + j, out + j * stride, stride);
    if constexpr (M > 1) cross_all_lanes<T, M - 1>(tile, depth, lanes + j, m - j, starts + j, out + j * stride, stride);
}

template <class T>
void cross_turned_neon(const uint8_t* tiles, int64_t n, int64_t depth, const int8_t* const* lanes, int m, int32_t* out,
                       int64_t stride) {
    int32x4_t starts[kMostTurned];
    for (int j = 0; j < m; ++j) starts[j] = T::start(lanes[j], depth);
    for (int64_t r = 0; r < n; r += kLanes)
        cross_all_lanes<T, T::kMostLanes>(tiles + r * depth, depth, lanes, m, starts, out + r, stride);
}

}  // namespace
}  // namespace lateint::codes
