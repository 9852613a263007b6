// vpdpbusd dot products, shared by the AVX-512 and AMX tables. Include only where AVX-512 VNNI is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

// Sums of R rows with T tiles, kept in R * T registers; each row component quad is broadcast once for all tiles. Loops
// over them are unrolled at once: left to the optimizer, sums are moved between registers and memory at each step.
template <int R, int T>
inline __attribute__((always_inline)) void vnni_block(const uint8_t* rows, int64_t depth, const int8_t* tiles,
                                                      __m512i (&sums)[R][T]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) sums[r][t] = _mm512_setzero_si512();
    for (int64_t k = 0; k < depth; k += 4) {
        __m512i v[T];
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) v[t] = _mm512_loadu_si512(tiles + t * depth * kLanes + k * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            int32_t word;
            __builtin_memcpy(&word, rows + r * depth + k, 4);
            const __m512i x = _mm512_set1_epi32(word);
#pragma GCC unroll 2
            for (int t = 0; t < T; ++t) sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], x, v[t]);
        }
    }
}

template <int R, int T>
inline void vnni_store(const uint8_t* rows, int64_t depth, const int8_t* tiles, int32_t* out, int lanes) {
    __m512i sums[R][T];
    vnni_block<R, T>(rows, depth, tiles, sums);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) _mm512_storeu_si512(out + int64_t(r) * lanes + t * kLanes, sums[r][t]);
}

template <int T>
inline void vnni_dot(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int32_t* out, int lanes) {
    int64_t r = 0;
    for (; r + 8 <= n; r += 8) vnni_store<8, T>(rows + r * depth, depth, tiles, out + r * lanes, lanes);
    if (r + 4 <= n) vnni_store<4, T>(rows + r * depth, depth, tiles, out + r * lanes, lanes), r += 4;
    if (r + 2 <= n) vnni_store<2, T>(rows + r * depth, depth, tiles, out + r * lanes, lanes), r += 2;
    if (r < n) vnni_store<1, T>(rows + r * depth, depth, tiles, out + r * lanes, lanes);
}

inline void dot_avx512(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    const int lanes = ntiles * kLanes;
    int t = 0;
    for (; t + 2 <= ntiles; t += 2) vnni_dot<2>(rows, n, depth, tiles + t * depth * kLanes, out + t * kLanes, lanes);
    if (t < ntiles) vnni_dot<1>(rows, n, depth, tiles + t * depth * kLanes, out + t * kLanes, lanes);
}

template <int T>
inline void vnni_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int32_t* best) {
    __m512i top[T];
    for (int t = 0; t < T; ++t) top[t] = _mm512_loadu_si512(best + t * kLanes);
    for (int64_t r = 0; r < n; r += 8) {
        __m512i sums[8][T];
        vnni_block<8, T>(rows + r * depth, depth, tiles, sums);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
#pragma GCC unroll 2
            for (int t = 0; t < T; ++t) top[t] = _mm512_max_epi32(top[t], sums[i][t]);
    }
    for (int t = 0; t < T; ++t) _mm512_storeu_si512(best + t * kLanes, top[t]);
}

inline void dot_max_avx512(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best) {
    const int ntiles = static_cast<int>(tiles_for(m));
    int t = 0;
    for (; t + 2 <= ntiles; t += 2) vnni_max<2>(rows, n, depth, tiles + t * depth * kLanes, best + t * kLanes);
    if (t < ntiles) vnni_max<1>(rows, n, depth, tiles + t * depth * kLanes, best + t * kLanes);
}

}  // namespace
}  // namespace lateint::codes
