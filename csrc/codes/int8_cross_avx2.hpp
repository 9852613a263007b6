// Products by vector of rows that lie as tiles do. Include only where AVX2 is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

// The products of B tiles of 16 rows with M lanes. What is widened of the rows serves all lanes.
template <int M, int B>
inline __attribute__((always_inline)) void cross_tiles(const uint8_t* tiles, int64_t depth, const int8_t* const* lanes,
                                                       int32_t* out, int64_t stride) {
    constexpr int kHalves = 2 * B;  // registers of 8 rows
    const __m256i low = _mm256_set1_epi16(0xFF);
    __m256i sums[M][kHalves];
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j)
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h) sums[j][h] = _mm256_setzero_si256();
    for (int64_t k = 0; k < depth * kLanes; k += 4 * kLanes) {
        __m256i even[kHalves], odd[kHalves];
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h) {
            const uint8_t* const half = tiles + h / 2 * depth * kLanes + k + h % 2 * 32;
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half));
            even[h] = _mm256_and_si256(x, low);
            odd[h] = _mm256_srli_epi16(x, 8);
        }
#pragma GCC unroll 4
        for (int j = 0; j < M; ++j) {
            int32_t word;
            __builtin_memcpy(&word, lanes[j] + k, 4);
            const __m256i v = _mm256_set1_epi32(word);
            const __m256i v_even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), v_odd = _mm256_srai_epi16(v, 8);
#pragma GCC unroll 4
            for (int h = 0; h < kHalves; ++h) {
                sums[j][h] = _mm256_add_epi32(sums[j][h], _mm256_madd_epi16(even[h], v_even));
                sums[j][h] = _mm256_add_epi32(sums[j][h], _mm256_madd_epi16(odd[h], v_odd));
            }
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j)
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * stride + 8 * h), sums[j][h]);
}

// One lane is multiplied with two tiles at a time, for widening it takes as long as widening half a tile.
inline void cross_turned_avx2(const uint8_t* tiles, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                              int32_t* out, int64_t stride) {
    const int64_t count = (n + kLanes - 1) / kLanes, bytes = depth * kLanes;
    const int single = m % 4 == 1 ? m - 1 : m;
    for (int64_t t = 0; t < count; ++t) {
        int j = 0;
        for (; j + 4 <= single; j += 4)
            cross_tiles<4, 1>(tiles + t * bytes, depth, lanes + j, out + j * stride + t * kLanes, stride);
        if (single - j == 3)
            cross_tiles<3, 1>(tiles + t * bytes, depth, lanes + j, out + j * stride + t * kLanes, stride);
        if (single - j == 2)
            cross_tiles<2, 1>(tiles + t * bytes, depth, lanes + j, out + j * stride + t * kLanes, stride);
    }
    if (single == m) return;
    int64_t t = 0;
    for (; t + 2 <= count; t += 2)
        cross_tiles<1, 2>(tiles + t * bytes, depth, lanes + single, out + single * stride + t * kLanes, stride);
    if (t < count)
        cross_tiles<1, 1>(tiles + t * bytes, depth, lanes + single, out + single * stride + t * kLanes, stride);
}

}  // namespace
}  // namespace lateint::codes
