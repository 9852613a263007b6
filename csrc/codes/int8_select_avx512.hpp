// AVX-512 selection steps, shared by the AVX-512 and AMX tables. Include only where AVX-512 is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

inline int64_t above_avx512(const int32_t* scores, int64_t n, int lanes, const int32_t* thresholds, uint32_t* hits) {
    int64_t count = 0;
    for (int64_t r = 0; r < n; ++r)
        for (int j = 0; j < lanes; j += 16) {
            const __m512i s = _mm512_loadu_si512(scores + r * lanes + j);
            unsigned mask = _mm512_cmpgt_epi32_mask(s, _mm512_loadu_si512(thresholds + j));
            for (; mask; mask &= mask - 1) hits[count++] = static_cast<uint32_t>(r << 16 | (j + __builtin_ctz(mask)));
        }
    return count;
}

inline void nearest_avx512(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first,
                           int32_t* best, int32_t* index) {
    const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t r = 0; r < n; ++r) {
        const int32_t* row = scores + r * lanes;
        __m512i top = _mm512_sub_epi32(_mm512_loadu_si512(row), _mm512_loadu_si512(bias));
        __m512i where = iota, at = iota;
        for (int j = 16; j < lanes; j += 16) {
            const __m512i s = _mm512_sub_epi32(_mm512_loadu_si512(row + j), _mm512_loadu_si512(bias + j));
            at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
            const __mmask16 more = _mm512_cmpgt_epi32_mask(s, top);
            top = _mm512_max_epi32(top, s);
            where = _mm512_mask_mov_epi32(where, more, at);
        }
        const int32_t value = _mm512_reduce_max_epi32(top);
        if (value <= best[r]) continue;
        const __mmask16 ties = _mm512_cmpeq_epi32_mask(top, _mm512_set1_epi32(value));
        best[r] = value;
        index[r] = first + _mm512_mask_reduce_min_epi32(ties, where);
    }
}

}  // namespace
}  // namespace lateint::codes
