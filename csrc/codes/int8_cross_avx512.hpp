// Products by vector: rows are turned into columns of words once, for all lanes. Include only where VNNI is enabled.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "codes/int8.hpp"
#include "codes/transpose_avx512.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kCrossDepth = 256;  // components at a time: the words of 64 rows then stay in the first-level cache

// words[k / 4][64]: components [first, first + size) of n rows; the last row stands for those above.
inline void turn_rows(const uint8_t* rows, int64_t n, int64_t depth, int64_t first, int64_t size, __m512i* words) {
    for (int64_t block = 0; block < kCrossRows / 16; ++block)
        for (int64_t k = 0; k < size; k += 64) {
            __m512i w[16];
            for (int64_t i = 0; i < 16; ++i)
                w[i] = _mm512_loadu_si512(rows + std::min(block * 16 + i, n - 1) * depth + first + k);
            transpose_words(w);
            for (int64_t i = 0; i < 16; ++i) words[(k / 4 + i) * (kCrossRows / 16) + block] = w[i];
        }
}

// Adds the products of 64 rows with M lanes to what is in out (or to nothing, when it is the first part of the depth).
template <int M>
inline void cross_64(const __m512i* words, int64_t size, const int8_t* const* lanes, int64_t first, int32_t* out,
                     int64_t stride) {
    constexpr int kBlocks = kCrossRows / 16;
    __m512i sums[M][kBlocks];
    for (int j = 0; j < M; ++j)
        for (int b = 0; b < kBlocks; ++b)
            sums[j][b] = first ? _mm512_loadu_si512(out + j * stride + b * 16) : _mm512_setzero_si512();
    for (int64_t k = 0; k < size; k += 4)
        for (int j = 0; j < M; ++j) {
            int32_t word;
            std::memcpy(&word, lanes[j] + (first + k) * kLanes, 4);
            const __m512i v = _mm512_set1_epi32(word);
            for (int b = 0; b < kBlocks; ++b) sums[j][b] = _mm512_dpbusd_epi32(sums[j][b], words[k + b], v);
        }
    for (int j = 0; j < M; ++j)
        for (int b = 0; b < kBlocks; ++b) _mm512_storeu_si512(out + j * stride + b * 16, sums[j][b]);
}

inline void cross_avx512(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* const* lanes, int m, int32_t* out,
                         int64_t stride) {
    __m512i words[kCrossDepth / 4 * (kCrossRows / 16)];
    for (int64_t r = 0; r < n; r += kCrossRows)
        for (int64_t first = 0; first < depth; first += kCrossDepth) {
            const int64_t size = std::min(kCrossDepth, depth - first);
            turn_rows(rows + r * depth, std::min(kCrossRows, n - r), depth, first, size, words);
            int j = 0;
            for (; j + 4 <= m; j += 4) cross_64<4>(words, size, lanes + j, first, out + j * stride + r, stride);
            if (m - j >= 2) cross_64<2>(words, size, lanes + j, first, out + j * stride + r, stride), j += 2;
            if (j < m) cross_64<1>(words, size, lanes + j, first, out + j * stride + r, stride);
        }
}

// The products of B tiles of 16 rows with M lanes.
template <int M, int B>
inline void cross_tiles(const uint8_t* tiles, int64_t depth, const int8_t* const* lanes, int32_t* out, int64_t stride) {
    __m512i sums[M][B];
    for (int j = 0; j < M; ++j)
        for (int b = 0; b < B; ++b) sums[j][b] = _mm512_setzero_si512();
    for (int64_t k = 0; k < depth * kLanes; k += 4 * kLanes) {
        __m512i words[B];
        for (int b = 0; b < B; ++b) words[b] = _mm512_loadu_si512(tiles + b * depth * kLanes + k);
        for (int j = 0; j < M; ++j) {
            int32_t word;
            std::memcpy(&word, lanes[j] + k, 4);
            const __m512i v = _mm512_set1_epi32(word);
            for (int b = 0; b < B; ++b) sums[j][b] = _mm512_dpbusd_epi32(sums[j][b], words[b], v);
        }
    }
    for (int j = 0; j < M; ++j)
        for (int b = 0; b < B; ++b) _mm512_storeu_si512(out + j * stride + b * 16, sums[j][b]);
}

template <int B>
inline void cross_all_lanes(const uint8_t* tiles, int64_t depth, const int8_t* const* lanes, int m, int32_t* out,
                            int64_t stride) {
    int j = 0;
    for (; j + 4 <= m; j += 4) cross_tiles<4, B>(tiles, depth, lanes + j, out + j * stride, stride);
    if (m - j == 3) return cross_tiles<3, B>(tiles, depth, lanes + j, out + j * stride, stride);
    if (m - j == 2) return cross_tiles<2, B>(tiles, depth, lanes + j, out + j * stride, stride);
    if (m - j == 1) return cross_tiles<1, B>(tiles, depth, lanes + j, out + j * stride, stride);
}

inline void cross_turned_avx512(const uint8_t* tiles, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                                int32_t* out, int64_t stride) {
    for (int64_t left = (n + 15) / 16; left > 0; left -= 4, tiles += 4 * depth * kLanes, out += 4 * 16) {
        if (left >= 4)
            cross_all_lanes<4>(tiles, depth, lanes, m, out, stride);
        else if (left == 3)
            cross_all_lanes<3>(tiles, depth, lanes, m, out, stride);
        else if (left == 2)
            cross_all_lanes<2>(tiles, depth, lanes, m, out, stride);
        else
            cross_all_lanes<1>(tiles, depth, lanes, m, out, stride);
    }
}

}  // namespace
}  // namespace lateint::codes
