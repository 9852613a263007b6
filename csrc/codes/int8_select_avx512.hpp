// AVX-512 selection steps, shared by the AVX-512 and AMX tables. Include only where AVX-512 is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8.hpp"
#include "codes/int8_select.hpp"
#include "codes/transpose_avx512.hpp"

namespace lateint::codes {
namespace {

// The first n of 16 lanes.
inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>(n < 16 ? (1u << n) - 1 : 0xFFFFu); }

inline int64_t above_avx512(const int32_t* scores, int64_t n, int32_t threshold, uint32_t first, int32_t* kept,
                            uint32_t* rows) {
    const __m512i bound = _mm512_set1_epi32(threshold);
    __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)),
                                  _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 there = first_lanes(n - i);
        const __m512i s = _mm512_maskz_loadu_epi32(there, scores + i);
        const __mmask16 mask = _mm512_mask_cmpgt_epi32_mask(there, s, bound);
        // A whole register each: compressing into memory is microcode on some processors.
        _mm512_storeu_si512(kept + count, _mm512_maskz_compress_epi32(mask, s));
        _mm512_storeu_si512(rows + count, _mm512_maskz_compress_epi32(mask, at));
        count += __builtin_popcount(mask);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
    return count;
}

inline int64_t reaching_avx512(const uint32_t* entries, int64_t n, uint32_t bound, uint32_t* places) {
    const __m512i least = _mm512_set1_epi32(static_cast<int>(bound));
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 there = first_lanes(n - i);
        uint32_t mask = _mm512_mask_cmpge_epu32_mask(there, _mm512_maskz_loadu_epi32(there, entries + i), least);
        for (; mask != 0; mask &= mask - 1)
            places[count++] = static_cast<uint32_t>(i) + static_cast<uint32_t>(__builtin_ctz(mask));
    }
    return count;
}

inline void best_lanes_avx512(const int32_t* scores, const int32_t* bias, const int32_t* counts, uint32_t* rows) {
    const __m512i less = _mm512_loadu_si512(bias), wanted = _mm512_loadu_si512(counts);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i columns[16];
    for (int r = 0; r < 16; ++r) columns[r] = _mm512_sub_epi32(_mm512_loadu_si512(scores + r * 16), less);
    transpose_words(columns);
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
        __m512i better = _mm512_setzero_si512();
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            if (i == j) continue;
            const __mmask16 beats = i < j ? _mm512_cmpge_epi32_mask(columns[i], columns[j])
                                          : _mm512_cmpgt_epi32_mask(columns[i], columns[j]);
            better = _mm512_mask_add_epi32(better, beats, better, one);
        }
        rows[j] = _mm512_cmplt_epi32_mask(better, wanted);
    }
}

inline int32_t keep_best_avx512(int32_t* scores, uint32_t* rows, int64_t n, int64_t count) {
    const int32_t last = nth_largest(scores, n, count);
    const __m512i bound = _mm512_set1_epi32(last);
    const __m512i highest = _mm512_set1_epi32(static_cast<int>(highest_row(scores, rows, n, count, last)));
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 there = first_lanes(n - i);
        const __m512i s = _mm512_maskz_loadu_epi32(there, scores + i), row = _mm512_maskz_loadu_epi32(there, rows + i);
        const __mmask16 ties = _mm512_cmpeq_epi32_mask(s, bound) & _mm512_cmple_epu32_mask(row, highest);
        const __mmask16 mask = there & (_mm512_cmpgt_epi32_mask(s, bound) | ties);
        const __mmask16 front = first_lanes(__builtin_popcount(mask));
        _mm512_mask_storeu_epi32(scores + kept, front, _mm512_maskz_compress_epi32(mask, s));
        _mm512_mask_storeu_epi32(rows + kept, front, _mm512_maskz_compress_epi32(mask, row));
        kept += __builtin_popcount(mask);
    }
    return last;
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
