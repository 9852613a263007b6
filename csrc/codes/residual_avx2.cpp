#include <immintrin.h>

#include "codes/residual_generic.hpp"

namespace lateint::codes {
namespace {

// Up to 16 bytes from p without reading past them.
inline __m128i load_part(const uint8_t* p, int64_t bytes) {
    if (bytes >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    uint8_t part[16] = {};
    std::memcpy(part, p, bytes);
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(part));
}

inline void store_part(uint8_t* p, __m128i v, int64_t bytes) {
    if (bytes >= 16) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
    uint8_t part[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(part), v);
    std::memcpy(p, part, bytes);
}

template <int nbits>
inline void decode_row(const uint8_t* code, int64_t bytes, const uint8_t* centroid, __m128i levels, uint8_t* row) {
    constexpr int kPlanes = 8 / nbits;
    constexpr char kMask = (1 << nbits) - 1;
    const __m256i both = _mm256_broadcastsi128_si256(levels);
    int64_t j = 0;
    for (; j + 32 <= bytes; j += 32) {
        const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(code + j));
#pragma GCC unroll 8
        for (int s = 0; s < kPlanes; ++s) {
            const __m256i index = _mm256_and_si256(_mm256_srli_epi16(packed, s * nbits), _mm256_set1_epi8(kMask));
            const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(centroid + s * bytes + j));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + s * bytes + j),
                                _mm256_add_epi8(c, _mm256_shuffle_epi8(both, index)));
        }
    }
    for (; j < bytes; j += 16) {
        const __m128i packed = load_part(code + j, bytes - j);
#pragma GCC unroll 8
        for (int s = 0; s < kPlanes; ++s) {
            const __m128i index = _mm_and_si128(_mm_srli_epi16(packed, s * nbits), _mm_set1_epi8(kMask));
            const __m128i c = load_part(centroid + s * bytes + j, bytes - j);
            store_part(row + s * bytes + j, _mm_add_epi8(c, _mm_shuffle_epi8(levels, index)), bytes - j);
        }
    }
}

template <int nbits>
void decode_all(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    const int64_t bytes = codec.code_bytes(), end = first + n;
    for (int64_t i = first; i < end; ++i, rows += codec.depth) {
        if (i + kAhead < end) prefetch_centroid(codec, tokens, i + kAhead);
        const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codec.levels[tokens.scales[i]]));
        decode_row<nbits>(tokens.codes + i * bytes, bytes, codec.centroids + tokens.centroid(i) * codec.depth, levels,
                          rows);
    }
}

void decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    switch (codec.nbits) {
        case 1:
            return decode_all<1>(codec, tokens, first, n, rows);
        case 2:
            return decode_all<2>(codec, tokens, first, n, rows);
        case 4:
            return decode_all<4>(codec, tokens, first, n, rows);
        default:
            return copy_rows(codec, tokens, first, n, rows);
    }
}

}  // namespace

const ResidualKernels kResidualAvx2 = {decode_rows, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint::codes
