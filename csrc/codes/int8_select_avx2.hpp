// AVX2 selection steps. Include only where AVX2 is enabled.
#pragma once

#include <immintrin.h>

#include "codes/int8.hpp"
#include "codes/int8_select.hpp"

namespace lateint::codes {
namespace {

// By mask of eight lanes: the numbers of those that are set, in their order, in eight bytes.
struct SetLanes {
    uint64_t of[256] = {};
    constexpr SetLanes() {
        for (uint64_t mask = 0; mask < 256; ++mask) {
            int count = 0;
            for (uint64_t lane = 0; lane < 8; ++lane)
                if (mask >> lane & 1) of[mask] |= lane << 8 * count++;
        }
    }
};
constexpr SetLanes kSetLanes;

// The lanes of the mask at the front.
inline __m256i compress(__m256i v, int mask) {
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kSetLanes.of[mask])));
    return _mm256_permutevar8x32_epi32(v, order);
}

inline int mask_of(__m256i lanes) { return _mm256_movemask_ps(_mm256_castsi256_ps(lanes)); }

inline __m256i load_lanes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_lanes(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

inline uint32_t mask_avx2(const Scores& scores) {
    __m256i half[2];
    std::memcpy(half, scores.of, sizeof half);
    return static_cast<uint32_t>(mask_of(half[0]) | mask_of(half[1]) << 8);
}

inline int64_t above_avx2(const int32_t* scores, int64_t n, int32_t threshold, uint32_t first, int32_t* kept,
                          uint32_t* rows) {
    const __m256i bound = _mm256_set1_epi32(threshold), lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int64_t count = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i s = load_lanes(scores + i);
        const int mask = mask_of(_mm256_cmpgt_epi32(s, bound));
        if (mask == 0) continue;  // most, once the threshold has risen
        store_lanes(kept + count, compress(s, mask));
        const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first + i)), lanes);
        store_lanes(rows + count, compress(at, mask));
        count += __builtin_popcount(mask);
    }
    return count +
           above_plain(scores + i, n - i, threshold, first + static_cast<uint32_t>(i), kept + count, rows + count);
}

inline int64_t reaching_avx2(const uint32_t* entries, int64_t n, uint32_t bound, uint32_t* places) {
    const __m256i least = _mm256_set1_epi32(static_cast<int>(bound));
    int64_t count = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        uint32_t mask = 0;
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            const __m256i entry = load_lanes(entries + i + 8 * v);
            const __m256i reaches = _mm256_cmpeq_epi32(_mm256_max_epu32(entry, least), entry);
            mask |= static_cast<uint32_t>(mask_of(reaches)) << 8 * v;
        }
        for (; mask != 0; mask &= mask - 1)
            places[count++] = static_cast<uint32_t>(i) + static_cast<uint32_t>(__builtin_ctz(mask));
    }
    const int64_t rest = reaching_plain(entries + i, n - i, bound, places + count);
    for (int64_t j = count; j < count + rest; ++j) places[j] += static_cast<uint32_t>(i);
    return count + rest;
}

inline int32_t keep_best_avx2(int32_t* scores, uint32_t* rows, int64_t n, int64_t count) {
    const int32_t last = nth_largest(scores, n, count);
    const uint32_t highest = highest_row(scores, rows, n, count, last);
    const __m256i bound = _mm256_set1_epi32(last), most = _mm256_set1_epi32(static_cast<int>(highest));
    int64_t kept = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i s = load_lanes(scores + i), row = load_lanes(rows + i);
        const __m256i low = _mm256_cmpeq_epi32(_mm256_min_epu32(row, most), row);
        const __m256i ties = _mm256_and_si256(_mm256_cmpeq_epi32(s, bound), low);
        const int mask = mask_of(_mm256_or_si256(_mm256_cmpgt_epi32(s, bound), ties));
        // What lies behind those that are kept has been read.
        store_lanes(scores + kept, compress(s, mask));
        store_lanes(rows + kept, compress(row, mask));
        kept += __builtin_popcount(mask);
    }
    keep_rows(scores, rows, i, n, last, highest, kept);
    return last;
}

// The largest or the lowest of eight lanes, in all of them.
template <__m256i (*pick)(__m256i, __m256i)>
inline __m256i reduce(__m256i v) {
    v = pick(v, _mm256_permute2x128_si256(v, v, 1));
    v = pick(v, _mm256_shuffle_epi32(v, 0x4E));
    return pick(v, _mm256_shuffle_epi32(v, 0xB1));
}
inline __m256i larger(__m256i a, __m256i b) { return _mm256_max_epi32(a, b); }
inline __m256i lower(__m256i a, __m256i b) { return _mm256_min_epi32(a, b); }

inline void nearest_avx2(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first, int32_t* best,
                         int32_t* index) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t r = 0; r < n; ++r) {
        const int32_t* row = scores + r * lanes;
        __m256i top = _mm256_sub_epi32(load_lanes(row), load_lanes(bias)), where = iota, at = iota;
        for (int j = 8; j < lanes; j += 8) {
            const __m256i s = _mm256_sub_epi32(load_lanes(row + j), load_lanes(bias + j));
            at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
            where = _mm256_blendv_epi8(where, at, _mm256_cmpgt_epi32(s, top));
            top = _mm256_max_epi32(top, s);
        }
        const __m256i most = reduce<larger>(top);
        const int32_t value = _mm256_cvtsi256_si32(most);
        if (value <= best[r]) continue;
        const __m256i others = _mm256_xor_si256(_mm256_cmpeq_epi32(top, most), _mm256_set1_epi32(-1));
        const __m256i ties = _mm256_or_si256(where, _mm256_srli_epi32(others, 1));
        best[r] = value;
        index[r] = first + _mm256_cvtsi256_si32(reduce<lower>(ties));
    }
}

}  // namespace
}  // namespace lateint::codes
