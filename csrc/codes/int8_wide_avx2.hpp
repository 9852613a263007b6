// Vectors with their bytes widened to 16 bits, and what is multiplied with them. Include only where AVX2 is enabled.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// A few vectors of bytes, so that one load spreads two of their components over a register: word g of even(i) has
// components 4 g and 4 g + 2 of vector i, word g of odd(i) has 4 g + 1 and 4 g + 3.
class Wide {
public:
    static constexpr int kMost = 4;  // vectors

    explicit Wide(int64_t depth) : words(depth / 4) {}

    void take_rows(const uint8_t* rows, int count) {
        const __m256i low = _mm256_set1_epi16(0xFF);
        for (int r = 0; r < count; ++r)
            for (int64_t g = 0; g < words; g += 8) {
                const __m256i x = load_bytes(rows + (r * words + g) * 4);
                _mm256_store_si256(reinterpret_cast<__m256i*>(room_ + 2 * r * words + g), _mm256_and_si256(x, low));
                _mm256_store_si256(reinterpret_cast<__m256i*>(room_ + (2 * r + 1) * words + g),
                                   _mm256_srli_epi16(x, 8));
            }
    }

    void take_lanes(const int8_t* const* lanes, int count) {
        for (int j = 0; j < count; ++j)
            for (int64_t g = 0; g < words; ++g) {
                int32_t word;
                std::memcpy(&word, lanes[j] + g * 4 * kLanes, 4);
                const __m128i v = _mm_cvtsi32_si128(word);
                room_[2 * j * words + g] = _mm_cvtsi128_si32(_mm_srai_epi16(_mm_slli_epi16(v, 8), 8));
                room_[(2 * j + 1) * words + g] = _mm_cvtsi128_si32(_mm_srai_epi16(v, 8));
            }
    }

    const int32_t* even(int i) const { return room_ + 2 * i * words; }
    const int32_t* odd(int i) const { return even(i) + words; }

    const int64_t words;  // of even and odd each

private:
    alignas(32) int32_t room_[kMost * kMostDepth / 2];
};

// Adds to sums[i][h] the products of v[h] with the two components that words[i * stride] has of vector i.
template <int N, int H>
inline __attribute__((always_inline)) void add_products(const int32_t* words, int64_t stride, const __m256i (&v)[H],
                                                        __m256i (&sums)[N][H]) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
        const __m256i x = _mm256_set1_epi32(words[i * stride]);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
            sums[i][h] = _mm256_add_epi32(sums[i][h], _mm256_madd_epi16(x, v[h]));
            __asm__("" : "+x"(sums[i][h]));  // or products are added to each other first, and registers run out
        }
    }
}

template <int N, int H>
inline __attribute__((always_inline)) void clear(__m256i (&sums)[N][H]) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) sums[i][h] = _mm256_setzero_si256();
}

}  // namespace
}  // namespace lateint::codes
