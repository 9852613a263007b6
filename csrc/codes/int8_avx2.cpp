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

// Sums of R rows with the first H halves of a tile, of 8 vectors each. What is widened of the tile serves all rows.
template <int R, int H>
inline __attribute__((always_inline)) void block(const Wide& rows, const int8_t* tile, __m256i (&sums)[R][H]) {
    clear(sums);
    for (int64_t g = 0; g < rows.words; ++g) {
        __m256i v[H], part[H];
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) v[h] = load_bytes(tile + g * 4 * kLanes + 32 * h);
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) part[h] = _mm256_srai_epi16(_mm256_slli_epi16(v[h], 8), 8);
        add_products(rows.even(0) + g, 2 * rows.words, part, sums);
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) part[h] = _mm256_srai_epi16(v[h], 8);
        add_products(rows.odd(0) + g, 2 * rows.words, part, sums);
    }
}

template <int R>
inline void store_block(const Wide& rows, const int8_t* tile, int32_t* out, int lanes) {
    __m256i sums[R][2];
    block(rows, tile, sums);
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

template <int H>
inline void raise(const Wide& rows, const int8_t* tile, int32_t* best) {
    __m256i sums[kRows][H];
    block(rows, tile, sums);
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
        const __m256i top =
            _mm256_max_epi32(_mm256_max_epi32(sums[0][h], sums[1][h]), _mm256_max_epi32(sums[2][h], sums[3][h]));
        store_lanes(best + 8 * h, _mm256_max_epi32(load_lanes(best + 8 * h), top));
    }
}

void dot_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best) {
    static_assert(kRowStep % kRows == 0);
    Wide wide(depth);
    for (int64_t r = 0; r < n; r += kRows) {
        wide.take_rows(rows + r * depth, kRows);
        int j = 0;
        for (; j + kLanes / 2 < m; j += kLanes) raise<2>(wide, tiles + j * depth, best + j);
        if (j < m) raise<1>(wide, tiles + j * depth, best + j);
    }
}

void nothing() {}

}  // namespace

const Int8Kernels kInt8Avx2 = {dot,
                               dot_max,
                               cross_by_tiles<dot>,
                               cross_turned_avx2,
                               16,
                               above_avx2,
                               keep_best_avx2,
                               nearest_avx2,
                               reaching_avx2,
                               less_bias,
                               best_lanes<turn_scores_plain, mask_avx2>,
                               nothing,
                               nothing};

}  // namespace lateint::codes
