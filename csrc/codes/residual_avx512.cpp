#include <immintrin.h>

#include "codes/residual_generic.hpp"

namespace lateint::codes {
namespace {

inline __m512i levels_of(const Codec& codec, const CodedTokens& tokens, int64_t token) {
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
inline void decode_128(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
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

// 64 components in a row are unpacked at a time: each one's byte is brought to its place, then shifted by the plane it
// belongs to (vpmultishiftqb reads eight bits from any bit of a quadword; what is beyond the code is masked).
struct Block {
    int64_t from;            // of the bytes: they end with the code, or go on at its beginning
    __mmask64 until, after;  // which are before its end, and which go on
    __mmask64 inside;        // the width
};

inline Block block_at(const Codec& codec, int64_t first) {
    const int64_t bytes = codec.code_bytes(), left = codec.width - first, from = first % bytes;
    const __mmask64 inside = left < 64 ? (1ull << left) - 1 : ~0ull;
    const __mmask64 before = bytes - from < 64 ? (1ull << (bytes - from)) - 1 : ~0ull;
    return {from, inside & before, inside & ~before, inside};
}

template <bool one_register>
void decode_blocks(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    constexpr int64_t kBlocks = 8;
    const int64_t bytes = codec.code_bytes();
    const uint8_t *places = codec.places.get(), *shifts = codec.shifts.get();
    const __mmask64 whole = bytes < 64 ? (1ull << bytes) - 1 : ~0ull;
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << codec.nbits) - 1));
    for (int64_t begin = 0; begin < codec.width; begin += 64 * kBlocks) {
        Block blocks[kBlocks];
        int64_t count = 0;
        for (; count < kBlocks && begin + 64 * count < codec.width; ++count)
            blocks[count] = block_at(codec, begin + 64 * count);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t token = first + i;
            if (i + kAhead < n) prefetch_centroid(codec, tokens, token + kAhead);
            const uint8_t* code = tokens.codes + token * bytes;
            const uint8_t* centroid = codec.centroids + tokens.centroid(token) * codec.depth + begin;
            uint8_t* row = rows + i * codec.depth + begin;
            const __m512i levels = levels_of(codec, tokens, token);
            const __m512i packed = one_register ? _mm512_maskz_loadu_epi8(whole, code) : levels;
            for (int64_t b = 0; b < count; ++b) {
                const Block& block = blocks[b];
                const int64_t k = begin + 64 * b;
                __m512i placed;
                if (one_register) {
                    placed = _mm512_permutexvar_epi8(_mm512_loadu_si512(places + k), packed);
                } else {
                    placed = _mm512_maskz_loadu_epi8(block.until, code + block.from);
                    placed = _mm512_mask_loadu_epi8(placed, block.after, code + block.from - bytes);
                }
                const __m512i index =
                    _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_loadu_si512(shifts + k), placed), mask);
                // Rows of centroids are padded, so a whole register may be read.
                const __m512i sum =
                    _mm512_add_epi8(_mm512_loadu_si512(centroid + 64 * b), _mm512_shuffle_epi8(levels, index));
                _mm512_mask_storeu_epi8(row + 64 * b, block.inside, sum);
            }
        }
    }
}

void decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    if (codec.nbits == 8) {
        copy_rows(codec, tokens, first, n, rows);
    } else if (codec.width == 128 && codec.nbits == 1) {
        decode_128<1>(codec, tokens, first, n, rows);
    } else if (codec.width == 128 && codec.nbits == 2) {
        decode_128<2>(codec, tokens, first, n, rows);
    } else if (codec.width == 128) {
        decode_128<4>(codec, tokens, first, n, rows);
    } else if (codec.code_bytes() <= 64) {
        decode_blocks<true>(codec, tokens, first, n, rows);
    } else {
        decode_blocks<false>(codec, tokens, first, n, rows);
    }
}

}  // namespace

const ResidualKernels kResidualAvx512 = {decode_rows, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint::codes
