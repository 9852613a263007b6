#include <immintrin.h>

#include "codes/residual_generic.hpp"

namespace lateint::codes {
namespace {

// Up to 32 bytes from p without reading past them.
inline __m256i load_part(const uint8_t* p, int64_t bytes) {
    if (bytes >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    uint8_t part[32] = {};
    std::memcpy(part, p, bytes);
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part));
}

inline void store_part(uint8_t* p, __m256i v, int64_t bytes) {
    if (bytes >= 32) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
    uint8_t part[32];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(part), v);
    std::memcpy(p, part, bytes);
}

void decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    const int64_t bytes = codec.code_bytes();
    const __m256i mask = _mm256_set1_epi8(static_cast<char>((1 << codec.nbits) - 1));
    for (int64_t i = first; i < first + n; ++i, rows += codec.depth) {
        const uint8_t* code = tokens.codes + i * bytes;
        if (codec.nbits == 8) {
            std::memcpy(rows, code, bytes);
            continue;
        }
        const uint8_t* centroid = codec.centroids + tokens.centroid(i) * codec.depth;
        const __m256i levels = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(codec.levels[tokens.scales[i]])));
        for (int s = 0; s < 8 / codec.nbits; ++s)
            for (int64_t j = 0; j < bytes; j += 32) {
                const int64_t k = s * bytes + j, part = bytes - j;
                const __m256i packed = load_part(code + j, part);
                const __m256i index =
                    _mm256_and_si256(_mm256_srl_epi16(packed, _mm_cvtsi32_si128(s * codec.nbits)), mask);
                store_part(rows + k, _mm256_add_epi8(load_part(centroid + k, part), _mm256_shuffle_epi8(levels, index)),
                           part);
            }
    }
}

}  // namespace

const ResidualKernels kResidualAvx2 = {decode_rows, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint::codes
