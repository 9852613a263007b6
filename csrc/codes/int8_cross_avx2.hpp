// Products by vector of rows that lie as tiles do. Include only where AVX2 is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8_wide_avx2.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kPage = 4096;  // bytes, at whose end the processor stops fetching ahead of itself

// The products of B tiles of 16 rows with M lanes. What is widened of the rows serves all lanes.
template <int M, int B>
inline __attribute__((always_inline)) void cross_tiles(const uint8_t* tiles, const Wide& lanes, int32_t* out,
                                                       int64_t stride) {
    constexpr int kHalves = 2 * B;  // registers of 8 rows
    const int64_t bytes = lanes.words * 4 * kLanes;
    const __m256i low = _mm256_set1_epi16(0xFF);
    __m256i sums[M][kHalves];
    clear(sums);
    for (int64_t g = 0; g < lanes.words; ++g) {
        const uint8_t* const at = tiles + g * 4 * kLanes;
        __m256i x[kHalves];
#pragma GCC unroll 2
        for (int b = 0; b < B; ++b) _mm_prefetch(reinterpret_cast<const char*>(at + b * bytes + kPage), _MM_HINT_T0);
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h) x[h] = _mm256_and_si256(load_bytes(at + h / 2 * bytes + h % 2 * 32), low);
        add_products(lanes.even(0) + g, 2 * lanes.words, x, sums);
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h) x[h] = _mm256_srli_epi16(load_bytes(at + h / 2 * bytes + h % 2 * 32), 8);
        add_products(lanes.odd(0) + g, 2 * lanes.words, x, sums);
    }
#pragma GCC unroll 4
    for (int j = 0; j < M; ++j)
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * stride + 8 * h), sums[j][h]);
}

template <int M>
inline void cross_all(const uint8_t* tiles, int64_t count, const Wide& lanes, int32_t* out, int64_t stride) {
    const int64_t bytes = lanes.words * 4 * kLanes;
    int64_t t = 0;
    if (M <= 2)  // then there are registers for two tiles
        for (; t + 2 <= count; t += 2) cross_tiles<M, 2>(tiles + t * bytes, lanes, out + t * kLanes, stride);
    for (; t < count; ++t) cross_tiles<M, 1>(tiles + t * bytes, lanes, out + t * kLanes, stride);
}

inline void cross_turned_avx2(const uint8_t* tiles, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                              int32_t* out, int64_t stride) {
    const int64_t count = (n + kLanes - 1) / kLanes;
    Wide wide(depth);
    for (int j = 0; j < m; j += Wide::kMost) {
        const int some = m - j < Wide::kMost ? m - j : Wide::kMost;
        wide.take_lanes(lanes + j, some);
        int32_t* const to = out + j * stride;
        switch (some) {
            case 1:
                cross_all<1>(tiles, count, wide, to, stride);
                break;
            case 2:
                cross_all<2>(tiles, count, wide, to, stride);
                break;
            case 3:
                cross_all<3>(tiles, count, wide, to, stride);
                break;
            default:
                cross_all<4>(tiles, count, wide, to, stride);
        }
    }
}

}  // namespace
}  // namespace lateint::codes
