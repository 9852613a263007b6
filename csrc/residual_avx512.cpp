#include <immintrin.h>

#include "residual_generic.hpp"

namespace lateint {
namespace {

constexpr int64_t kAhead = 24;  // tokens between the prefetch of a centroid and its use

inline void prefetch_centroid(const Codec& codec, const Tokens& tokens, int64_t token) {
    const uint8_t* row = codec.centroids + tokens.centroid(token) * codec.depth;
    for (int64_t k = 0; k < codec.depth; k += 64) __builtin_prefetch(row + k);
}

inline __m512i levels_of(const Codec& codec, const Tokens& tokens, int64_t token) {
    return _mm512_broadcast_i32x4(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(codec.levels[tokens.scales[token]])));
}

// Width 128: the code of a token is repeated over the register, so that two shifts bring all components out.
inline __m512i repeated_code(const uint8_t* code, int nbits) {
    if (nbits == 4) return _mm512_loadu_si512(code);
    if (nbits == 2) return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(code)));
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(code)));
}

template <int nbits>
inline void decode_128(const Codec& codec, const Tokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    constexpr int64_t bytes = 16 * nbits;
    // Sixteen-bit lanes of the register are shifted by the plane they belong to, 8 * nbits lanes a plane.
    uint16_t shifts[2][32];
    for (int half = 0; half < 2; ++half)
        for (int lane = 0; lane < 32; ++lane) shifts[half][lane] = (half * 4 / nbits + lane / (8 * nbits)) * nbits;
    const __m512i shift0 = _mm512_loadu_si512(shifts[0]), shift1 = _mm512_loadu_si512(shifts[1]);
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << nbits) - 1));
    const int64_t end = first + n;
    for (int64_t i = first; i < end; ++i, rows += 128) {
        if (i + kAhead < end) prefetch_centroid(codec, tokens, i + kAhead);
        const uint8_t* centroid = codec.centroids + int64_t(tokens.centroid(i)) * 128;
        const __m512i levels = levels_of(codec, tokens, i), packed = repeated_code(tokens.codes + i * bytes, nbits);
        const __m512i index0 = _mm512_and_si512(_mm512_srlv_epi16(packed, shift0), mask);
        const __m512i index1 = _mm512_and_si512(_mm512_srlv_epi16(packed, shift1), mask);
        _mm512_storeu_si512(rows, _mm512_add_epi8(_mm512_loadu_si512(centroid), _mm512_shuffle_epi8(levels, index0)));
        _mm512_storeu_si512(rows + 64,
                            _mm512_add_epi8(_mm512_loadu_si512(centroid + 64), _mm512_shuffle_epi8(levels, index1)));
    }
}

// Width up to 128, code in one register: each component's byte is brought to its place (vpermb), then shifted by the
// plane it belongs to (vpmultishiftqb reads eight bits from any bit of its quadword; what is beyond the code is
// masked).
void decode_narrow(const Codec& codec, const Tokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    const int64_t bytes = codec.code_bytes(), end = first + n;
    const __mmask64 code_part = bytes == 64 ? ~0ull : (1ull << bytes) - 1;
    const int halves = codec.width > 64 ? 2 : 1;
    __m512i places[2], shifts[2];
    __mmask64 parts[2];
    for (int half = 0; half < halves; ++half) {
        uint8_t place[64] = {}, shift[64] = {};
        const int64_t count = std::min<int64_t>(64, codec.width - 64 * half);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t k = 64 * half + i;
            place[i] = k % bytes;
            shift[i] = i % 8 * 8 + k / bytes * codec.nbits;
        }
        places[half] = _mm512_loadu_si512(place);
        shifts[half] = _mm512_loadu_si512(shift);
        parts[half] = count == 64 ? ~0ull : (1ull << count) - 1;
    }
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << codec.nbits) - 1));
    for (int64_t i = first; i < end; ++i, rows += codec.depth) {
        if (i + kAhead < end) prefetch_centroid(codec, tokens, i + kAhead);
        const uint8_t* centroid = codec.centroids + tokens.centroid(i) * codec.depth;
        const __m512i levels = levels_of(codec, tokens, i);
        const __m512i packed = _mm512_maskz_loadu_epi8(code_part, tokens.codes + i * bytes);
        for (int half = 0; half < halves; ++half) {
            const __m512i placed = _mm512_permutexvar_epi8(places[half], packed);
            const __m512i index = _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts[half], placed), mask);
            // Rows are padded, so whole registers of the centroid may be read.
            const __m512i sum =
                _mm512_add_epi8(_mm512_loadu_si512(centroid + 64 * half), _mm512_shuffle_epi8(levels, index));
            _mm512_mask_storeu_epi8(rows + 64 * half, parts[half], sum);
        }
    }
}

void decode_any(const Codec& codec, const Tokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    const int64_t bytes = codec.code_bytes(), end = first + n;
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << codec.nbits) - 1));
    for (int64_t i = first; i < end; ++i, rows += codec.depth) {
        if (i + kAhead < end) prefetch_centroid(codec, tokens, i + kAhead);
        const uint8_t *code = tokens.codes + i * bytes, *centroid = codec.centroids + tokens.centroid(i) * codec.depth;
        const __m512i levels = levels_of(codec, tokens, i);
        for (int64_t j = 0; j < bytes; j += 64) {
            const __mmask64 part = bytes - j >= 64 ? ~0ull : (1ull << (bytes - j)) - 1;
            const __m512i packed = _mm512_maskz_loadu_epi8(part, code + j);
            for (int s = 0; s < 8 / codec.nbits; ++s) {
                const int64_t k = s * bytes + j;
                const __m512i index =
                    _mm512_and_si512(_mm512_srl_epi16(packed, _mm_cvtsi32_si128(s * codec.nbits)), mask);
                const __m512i sum =
                    _mm512_add_epi8(_mm512_maskz_loadu_epi8(part, centroid + k), _mm512_shuffle_epi8(levels, index));
                _mm512_mask_storeu_epi8(rows + k, part, sum);
            }
        }
    }
}

void decode(const Codec& codec, const Tokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    if (codec.nbits == 8) {
        const int64_t bytes = codec.code_bytes();
        for (int64_t i = 0; i < n; ++i) std::memcpy(rows + i * codec.depth, tokens.codes + (first + i) * bytes, bytes);
    } else if (codec.width == 128 && codec.nbits == 1) {
        decode_128<1>(codec, tokens, first, n, rows);
    } else if (codec.width == 128 && codec.nbits == 2) {
        decode_128<2>(codec, tokens, first, n, rows);
    } else if (codec.width == 128) {
        decode_128<4>(codec, tokens, first, n, rows);
    } else if (codec.width < 128) {
        decode_narrow(codec, tokens, first, n, rows);
    } else {
        decode_any(codec, tokens, first, n, rows);
    }
}

}  // namespace

const ResidualKernels kResidualAvx512 = {decode, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint
