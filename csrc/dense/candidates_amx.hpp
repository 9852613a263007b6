// Document tokens that may be the best of some query tokens: found by an estimate, then computed in float32.
//
// What is computed is the largest float32 product over the whole document, whatever the estimate was and in whatever
// order candidates turn up: a token is left out only if the bounds of both errors say that it is worse than another.
#pragma once

#include <immintrin.h>

#include "dense/kernel.hpp"

namespace lateint::dense {
namespace {

// The first `count` of sixteen numbers of a document, as floats.
template <Dtype dtype>
inline __m512 widen(const char* from, int64_t count) {
    const __mmask16 mask = count >= 16 ? 0xffff : static_cast<__mmask16>((1u << (count < 0 ? 0 : count)) - 1);
    if constexpr (dtype == Dtype::float32) return _mm512_maskz_loadu_ps(mask, from);
    if constexpr (dtype == Dtype::float16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
    if constexpr (dtype == Dtype::bfloat16) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
    }
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, from)));
}

template <Dtype dtype>
inline float dot(const float* query, const char* token, int64_t dim) {
    constexpr int64_t kItem = itemsize(dtype);
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int64_t k = 0;
    for (; k + 64 <= dim; k += 64) {
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            sums[part] = _mm512_fmadd_ps(_mm512_loadu_ps(query + k + part * 16),
                                         widen<dtype>(token + (k + part * 16) * kItem, 16), sums[part]);
        }
    }
    for (; k < dim; k += 16) {
        const __m512 rest = widen<Dtype::float32>(reinterpret_cast<const char*>(query + k), dim - k);
        sums[0] = _mm512_fmadd_ps(rest, widen<dtype>(token + k * kItem, dim - k), sums[0]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

// Which rows of a chunk are candidates, and of which lanes.
struct Candidates {
    int32_t *rows, *lanes;

    static int64_t bytes(int64_t chunk_rows) { return 2 * (chunk_rows + 16) * 4; }
    Candidates(char* memory, int64_t chunk_rows)
        : rows(reinterpret_cast<int32_t*>(memory)), lanes(rows + chunk_rows + 16) {}

    // may_win(row) is the mask of lanes; it is also asked of rows up to the next multiple of 16. Returns how many.
    template <class MayWin>
    int64_t list(int64_t size, const MayWin& may_win) const {
        int64_t found = 0;
        const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        for (int64_t row = 0; row < size; row += 16) {
            alignas(32) uint16_t masks[16];
#pragma GCC unroll 16
            for (int64_t i = 0; i < 16; ++i) masks[i] = may_win(row + i);
            const __mmask16 here = size - row >= 16 ? 0xffff : static_cast<__mmask16>((1u << (size - row)) - 1);
            const __m512i sixteen = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(masks)));
            const __mmask16 any = _mm512_mask_test_epi32_mask(here, sixteen, sixteen);
            const __m512i numbers = _mm512_add_epi32(places, _mm512_set1_epi32(static_cast<int>(row)));
            _mm512_storeu_si512(rows + found, _mm512_maskz_compress_epi32(any, numbers));
            _mm512_storeu_si512(lanes + found, _mm512_maskz_compress_epi32(any, sixteen));
            found += __builtin_popcount(any);
        }
        return found;
    }

    // best[lane] becomes the largest of itself and its candidates' products; tokens are rows of `dtype`.
    template <Dtype dtype>
    void compute(int64_t found, const float* queries, const char* tokens, int64_t dim, float* best) const {
        for (int64_t i = 0; i < found; ++i) {
            const char* const token = tokens + rows[i] * dim * itemsize(dtype);
            for (uint32_t left = static_cast<uint32_t>(lanes[i]); left != 0; left &= left - 1) {
                const int lane = __builtin_ctz(left);
                const float value = dot<dtype>(queries + lane * dim, token, dim);
                best[lane] = value > best[lane] ? value : best[lane];
            }
        }
    }
};

}  // namespace
}  // namespace lateint::dense
