// AVX2: bytes are widened to 16 bits (even and odd ones apart), because vpmaddubsw would saturate.
#include <immintrin.h>

#include "codes/int8.hpp"
#include "codes/int8_cross.hpp"
#include "codes/int8_cross_avx2.hpp"
#include "codes/int8_select_avx2.hpp"
#include "codes/int8_wide_avx2.hpp"

namespace lateint::codes {
namespace {

constexpr int kRows = Wide::kMost;  // multiplied together

// Sums of R rows with a tile, in 2 R registers of 8 vectors each. What is widened of the tile serves all rows.
template <int R>
inline __attribute__((always_inline)) void block(const Wide& rows, const int8_t* tile, __m256i (&sums)[R][2]) {
    clear(sums);
    for (int64_t g = 0; g < rows.words; ++g) {
        const int8_t* const at = tile + g * 4 * kLanes;
        const __m256i v[2] = {load_bytes(at), load_bytes(at + 32)};
        const __m256i even[2] = {_mm256_srai_epi16(_mm256_slli_epi16(v[0], 8), 8),
                                 _mm256_srai_epi16(_mm256_slli_epi16(v[1], 8), 8)};
        add_products(rows.even(0) + g, 2 * rows.words, even, sums);
        const __m256i odd[2] = {_mm256_srai_epi16(v[0], 8), _mm256_srai_epi16(v[1], 8)};
        add_products(rows.odd(0) + g, 2 * rows.words, odd, sums);
    }
}

template <int R>
inline void store_block(const Wide& rows, const int8_t* tile, int32_t* out, int lanes) {
    __m256i sums[R][2];
    block<R>(rows, tile, sums);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + int64_t(r) * lanes + 8 * h), sums[r][h]);
}

void dot(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    const int lanes = ntiles * kLanes;
    Wide wide(depth);
    int64_t r = 0;
    for (; r + kRows <= n; r += kRows) {
        wide.take_rows(rows + r * depth, kRows);
        for (int t = 0; t < ntiles; ++t)
            store_block<kRows>(wide, tiles + t * depth * kLanes, out + r * lanes + t * kLanes, lanes);
    }
    for (; r < n; ++r) {
        wide.take_rows(rows + r * depth, 1);
        for (int t = 0; t < ntiles; ++t)
            store_block<1>(wide, tiles + t * depth * kLanes, out + r * lanes + t * kLanes, lanes);
    }
}

void dot_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* best) {
    static_assert(kRowStep % kRows == 0);
    Wide wide(depth);
    for (int64_t r = 0; r < n; r += kRows) {
        wide.take_rows(rows + r * depth, kRows);
        for (int t = 0; t < ntiles; ++t) {
            __m256i sums[kRows][2];
            block<kRows>(wide, tiles + t * depth * kLanes, sums);
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h) {
                __m256i* const at = reinterpret_cast<__m256i*>(best + t * kLanes + 8 * h);
                const __m256i top = _mm256_max_epi32(_mm256_max_epi32(sums[0][h], sums[1][h]),
                                                     _mm256_max_epi32(sums[2][h], sums[3][h]));
                _mm256_storeu_si256(at, _mm256_max_epi32(_mm256_loadu_si256(at), top));
            }
        }
    }
}

void nothing() {}

}  // namespace

const Int8Kernels kInt8Avx2 = {dot,        dot_max,        cross_by_tiles<dot>, cross_turned_avx2, 16,
                               above_avx2, keep_best_avx2, nearest_avx2,        reaching_avx2,     nothing,
                               nothing};

}  // namespace lateint::codes
