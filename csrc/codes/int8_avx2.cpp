// AVX2: bytes are widened to 16 bits (even and odd ones apart), because vpmaddubsw would saturate.
#include <immintrin.h>

#include "codes/int8.hpp"
#include "codes/int8_cross.hpp"
#include "codes/int8_cross_avx2.hpp"
#include "codes/int8_select.hpp"

namespace lateint::codes {
namespace {

constexpr int kRows = 4;

// Sums of R rows with a tile, in 2 R registers of 8 vectors each. What is widened of a row serves both halves of the
// tile, and what is widened of the tile all rows.
template <int R>
inline __attribute__((always_inline)) void block(const uint8_t* rows, int64_t depth, const int8_t* tile,
                                                 __m256i (&sums)[R][2]) {
    const __m256i low = _mm256_set1_epi16(0xFF);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < depth; k += 4) {
        __m256i even[2], odd[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile + k * kLanes + 32 * h));
            even[h] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
            odd[h] = _mm256_srai_epi16(v, 8);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            int32_t word;
            __builtin_memcpy(&word, rows + r * depth + k, 4);
            const __m256i x = _mm256_set1_epi32(word);
            const __m256i x_even = _mm256_and_si256(x, low), x_odd = _mm256_srli_epi16(x, 8);
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h) {
                sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(x_even, even[h]));
                sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(x_odd, odd[h]));
            }
        }
    }
}

template <int R>
inline void store_block(const uint8_t* rows, int64_t depth, const int8_t* tile, int32_t* out, int lanes) {
    __m256i sums[R][2];
    block<R>(rows, depth, tile, sums);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + int64_t(r) * lanes + 8 * h), sums[r][h]);
}

void dot(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    const int lanes = ntiles * kLanes;
    int64_t r = 0;
    for (; r + kRows <= n; r += kRows)
        for (int t = 0; t < ntiles; ++t)
            store_block<kRows>(rows + r * depth, depth, tiles + t * depth * kLanes, out + r * lanes + t * kLanes,
                               lanes);
    for (; r < n; ++r)
        for (int t = 0; t < ntiles; ++t)
            store_block<1>(rows + r * depth, depth, tiles + t * depth * kLanes, out + r * lanes + t * kLanes, lanes);
}

void dot_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* best) {
    for (int t = 0; t < ntiles; ++t) {
        __m256i* const at = reinterpret_cast<__m256i*>(best + t * kLanes);
        __m256i top[2] = {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
        for (int64_t r = 0; r < n; r += kRows) {
            __m256i sums[kRows][2];
            block<kRows>(rows + r * depth, depth, tiles + t * depth * kLanes, sums);
#pragma GCC unroll 4
            for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
                for (int h = 0; h < 2; ++h) top[h] = _mm256_max_epi32(top[h], sums[i][h]);
        }
        _mm256_storeu_si256(at, top[0]);
        _mm256_storeu_si256(at + 1, top[1]);
    }
}

void nearest(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first, int32_t* best,
             int32_t* index) {
    for (int64_t r = 0; r < n; ++r) {
        __m256i top = _mm256_set1_epi32(INT32_MIN), where = _mm256_setzero_si256();
        __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        for (int j = 0; j < lanes; j += 8) {
            const __m256i s =
                _mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + r * lanes + j)),
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + j)));
            const __m256i more = _mm256_cmpgt_epi32(s, top);
            top = _mm256_max_epi32(top, s);
            where = _mm256_blendv_epi8(where, at, more);
            at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
        }
        int32_t tops[8], wheres[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(tops), top);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(wheres), where);
        int pick = 0;
        for (int i = 1; i < 8; ++i)
            if (tops[i] > tops[pick] || (tops[i] == tops[pick] && wheres[i] < wheres[pick])) pick = i;
        if (tops[pick] > best[r]) best[r] = tops[pick], index[r] = first + wheres[pick];
    }
}

void nothing() {}

}  // namespace

const Int8Kernels kInt8Avx2 = {
    dot, dot_max, cross_by_tiles<dot>, cross_turned_avx2, 16, above_plain, keep_best_plain, nearest, nothing, nothing};

}  // namespace lateint::codes
