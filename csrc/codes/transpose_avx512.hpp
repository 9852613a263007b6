// A square of words turned in registers. Include only where AVX-512 is enabled.
#pragma once

#include <immintrin.h>

#include <algorithm>

namespace lateint::codes {
namespace {

// Turns 16 rows of 16 words: w[i] becomes word i of each row.
inline void transpose_words(__m512i (&w)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(w[i], w[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(w[i], w[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        w[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        w[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        w[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        w[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // w[4 g + c] now holds, in 128-bit lane l, word 4 l + c of rows 4 g to 4 g + 3.
    for (int c = 0; c < 4; ++c) {
        const __m512i low = _mm512_shuffle_i32x4(w[c], w[4 + c], 0x88),
                      high = _mm512_shuffle_i32x4(w[c], w[4 + c], 0xDD);
        const __m512i low2 = _mm512_shuffle_i32x4(w[8 + c], w[12 + c], 0x88),
                      high2 = _mm512_shuffle_i32x4(w[8 + c], w[12 + c], 0xDD);
        t[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(low, low2, 0xDD);
        t[4 + c] = _mm512_shuffle_i32x4(high, high2, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(high, high2, 0xDD);
    }
    std::copy(t, t + 16, w);
}

}  // namespace
}  // namespace lateint::codes
