// What the tables of 64-bit ARM share: they differ in how rows are multiplied with a tile, and rows in tiles with lanes
// (int8_cross_neon.hpp). A struct T does the former:
//   kRows                       rows multiplied together
//   T(tile, depth)              what is known of a tile before any row comes
//   multiply<R>(rows, sums)     sums[r][j] = products of row r with vectors 4 j to 4 j + 3, R = kRows or 1
#pragma once

#include <arm_neon.h>

#include "codes/int8.hpp"
#include "codes/int8_cross.hpp"
#include "codes/int8_cross_neon.hpp"
#include "codes/int8_select.hpp"

namespace lateint::codes {
namespace {

// For sets that multiply signed bytes only: rows are taken 128 less, and each sum begins with 128 times its vector's
// sum.
struct SignedTile {
    const int8_t* tile;
    int64_t depth;
    int32x4_t start[4];

    SignedTile(const int8_t* tile, int64_t depth) : tile(tile), depth(depth) {
        for (int j = 0; j < 4; ++j) {
            int32x4_t sum = vdupq_n_s32(0);
            for (int64_t k = 0; k < depth; k += 4) {
                sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(tile + k * kLanes + j * 16)));
            }
            start[j] = vshlq_n_s32(sum, 7);
        }
    }
};

template <class T, int R>
inline void store_rows(const T& tile, const uint8_t* rows, int32_t* out, int lanes) {
    int32x4_t sums[R][4];
    tile.template multiply<R>(rows, sums);
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < 4; ++j) vst1q_s32(out + int64_t(r) * lanes + j * 4, sums[r][j]);
}

template <class T>
void dot_neon(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    const int lanes = ntiles * kLanes;
    for (int t = 0; t < ntiles; ++t, out += kLanes) {
        const T tile(tiles + t * depth * kLanes, depth);
        int64_t r = 0;
        for (; r + T::kRows <= n; r += T::kRows)
            store_rows<T, T::kRows>(tile, rows + r * depth, out + r * lanes, lanes);
        for (; r < n; ++r) store_rows<T, 1>(tile, rows + r * depth, out + r * lanes, lanes);
    }
}

template <class T>
void dot_max_neon(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best) {
    static_assert(kRowStep % T::kRows == 0);
    const int ntiles = static_cast<int>(tiles_for(m));
    for (int t = 0; t < ntiles; ++t, best += kLanes) {
        const T tile(tiles + t * depth * kLanes, depth);
        int32x4_t top[4];
        for (int j = 0; j < 4; ++j) top[j] = vld1q_s32(best + j * 4);
        for (int64_t r = 0; r < n; r += T::kRows) {
            int32x4_t sums[T::kRows][4];
            tile.template multiply<T::kRows>(rows + r * depth, sums);
            for (int i = 0; i < T::kRows; ++i)
                for (int j = 0; j < 4; ++j) top[j] = vmaxq_s32(top[j], sums[i][j]);
        }
        for (int j = 0; j < 4; ++j) vst1q_s32(best + j * 4, top[j]);
    }
}

inline void nearest_neon(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first, int32_t* best,
                         int32_t* index) {
    constexpr int32_t kIota[4] = {0, 1, 2, 3};
    for (int64_t r = 0; r < n; ++r) {
        const int32_t* row = scores + r * lanes;
        int32x4_t at = vld1q_s32(kIota), where = at, top = vsubq_s32(vld1q_s32(row), vld1q_s32(bias));
        for (int j = 4; j < lanes; j += 4) {
            const int32x4_t s = vsubq_s32(vld1q_s32(row + j), vld1q_s32(bias + j));
            at = vaddq_s32(at, vdupq_n_s32(4));
            where = vbslq_s32(vcgtq_s32(s, top), at, where);
            top = vmaxq_s32(top, s);
        }
        const int32_t value = vmaxvq_s32(top);
        if (value <= best[r]) continue;
        best[r] = value;
        const uint32x4_t ties = vceqq_s32(top, vdupq_n_s32(value));
        index[r] = first + vminvq_s32(vbslq_s32(ties, where, vdupq_n_s32(INT32_MAX)));
    }
}

inline void nothing() {}

template <class T, class Lanes>
constexpr Int8Kernels kernels_neon() {
    return {dot_neon<T>,
            dot_max_neon<T>,
            cross_by_tiles<dot_neon<T>>,
            cross_turned_neon<Lanes>,
            kMostTurned,
            above_plain,
            keep_best_plain,
            nearest_neon,
            reaching_plain,
            less_bias,
            best_lanes<turn_scores_plain, mask_plain>,
            nothing,
            nothing};
}

}  // namespace
}  // namespace lateint::codes
