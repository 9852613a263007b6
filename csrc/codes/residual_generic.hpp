// What decoding shares; and encoding and rotation, written once and vectorised by the compiler for each instruction set
// that includes this. Their sums run in a fixed order of eight lanes and nothing contracts to FMA, so all builds give
// the same bits.
#pragma once

#include <cmath>
#include <cstring>

#include "codes/residual.hpp"
#include "platform/floats.hpp"

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace lateint::codes {
namespace {

constexpr int64_t kAhead = 24;  // tokens between the prefetch of a centroid and its use

inline void prefetch_centroid(const Codec& codec, const CodedTokens& tokens, int64_t token) {
    const uint8_t* row = codec.centroids + tokens.centroid(token) * codec.depth;
    for (int64_t k = 0; k < codec.depth; k += 64) __builtin_prefetch(row + k);
}

// Codes of 8 bits are the bytes themselves.
inline void copy_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    const int64_t bytes = codec.code_bytes();
    for (int64_t i = 0; i < n; ++i) std::memcpy(rows + i * codec.depth, tokens.codes + (first + i) * bytes, bytes);
}

// The eight lanes of a sum. A compiler that is left to find them itself adds them one by one.
typedef float Lanes __attribute__((vector_size(32)));

inline float sum8(const Lanes& lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Rounds to the nearest integer, ties to even, for |x| < 2^22, without a library call.
inline float round_even(float x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23
    return (x + magic) - magic;
}

inline void widen_generic(const void* row, Dtype dtype, int64_t dim, float* out) {
    if (dtype == Dtype::float32) {
        std::memcpy(out, row, dim * sizeof(float));
    } else if (dtype == Dtype::int8) {
        for (int64_t k = 0; k < dim; ++k) out[k] = static_cast<const int8_t*>(row)[k];
    } else if (dtype == Dtype::bfloat16) {
        for (int64_t k = 0; k < dim; ++k) out[k] = bfloat16_to_float(static_cast<const uint16_t*>(row)[k]);
    } else {
        const uint16_t* halves = static_cast<const uint16_t*>(row);
        int64_t k = 0;
#if defined(__F16C__)
        for (; k + 8 <= dim; k += 8)
            _mm256_storeu_ps(out + k, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + k))));
#elif defined(__aarch64__)
        for (; k + 4 <= dim; k += 4) vst1q_f32(out + k, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves + k))));
#endif
        for (; k < dim; ++k) out[k] = float16_to_float(halves[k]);
    }
}

// The level index (as a float) nearest to each residual at level distance 1 / inverse.
inline void pick_codes(const float* residual, int64_t width, float inverse, float top, float* codes) {
    const float half = 0.5f * top;
    for (int64_t k = 0; k < width; ++k) {
        float code = round_even(residual[k] * inverse + half);
        code = code < 0.0f ? 0.0f : code;
        codes[k] = code > top ? top : code;
    }
}

// The level distance that fits the codes best in the least-squares sense.
inline float fit_distance(const float* residual, const float* codes, int64_t width, float top) {
    Lanes num{}, den{};
    const float half = 0.5f * top;
    for (int64_t k = 0; k < width; k += 8) {
        Lanes level, x;
        std::memcpy(&level, codes + k, sizeof level);
        std::memcpy(&x, residual + k, sizeof x);
        level = level - half;
        num = num + x * level;
        den = den + level * level;
    }
    return sum8(num) / sum8(den);
}

// A sum that leaves [0, 255] would wrap when decoded: the nearest code that does not is taken instead.
inline void keep_in_range(const Codec& codec, const uint8_t* centroid, uint8_t scale, uint8_t* codes) {
    const int8_t* levels = codec.levels[scale];
    const int top = (1 << codec.nbits) - 1, reach = levels[top];
    uint8_t least = 255, most = 0;
    for (int64_t k = 0; k < codec.width; ++k) {
        least = centroid[k] < least ? centroid[k] : least;
        most = centroid[k] > most ? centroid[k] : most;
    }
    if (least >= reach && most + reach <= 255) return;
    for (int64_t k = 0; k < codec.width; ++k) {
        while (centroid[k] + levels[codes[k]] > 255 && codes[k] > 0) --codes[k];
        while (centroid[k] + levels[codes[k]] < 0 && codes[k] < top) ++codes[k];
    }
}

// Small non-negative integers held in floats, as bytes.
inline void float_codes_to_bytes(const float* codes, int64_t width, uint8_t* bytes) {
    for (int64_t k = 0; k < width; ++k) {
        const float shifted = codes[k] + 8388608.0f;  // 2^23: the integer is then the low bits of the float
        uint32_t bits;
        std::memcpy(&bits, &shifted, 4);
        bytes[k] = static_cast<uint8_t>(bits);
    }
}

inline void pack_codes(const Codec& codec, const uint8_t* codes, uint8_t* packed) {
    const int64_t bytes = codec.code_bytes();
    std::memcpy(packed, codes, bytes);
    for (int s = 1; s < 8 / codec.nbits; ++s) {
        const uint8_t* plane = codes + s * bytes;
        const int shift = s * codec.nbits;
        for (int64_t j = 0; j < bytes; ++j) packed[j] = static_cast<uint8_t>(packed[j] | plane[j] << shift);
    }
}

inline void to_bytes_generic(const float* scaled, int64_t n, uint8_t* bytes) {
    constexpr int64_t kPart = 64;
    float part[kPart];  // between two loops: compilers find vectors in each, but none in both together
    for (int64_t begin = 0; begin < n; begin += kPart) {
        const int64_t size = n - begin < kPart ? n - begin : kPart;
        for (int64_t k = 0; k < size; ++k) {
            float x = round_even(scaled[begin + k]) + 128.0f;
            x = x < 0.0f ? 0.0f : x;
            part[k] = x > 255.0f ? 255.0f : x;
        }
        float_codes_to_bytes(part, size, bytes + begin);
    }
}

inline uint8_t encode_generic(const Codec& codec, const float* scaled, const uint8_t* centroid, uint8_t* packed) {
    if (codec.nbits == 8) {
        to_bytes_generic(scaled, codec.width, packed);
        return 0;
    }
    const int64_t width = codec.width;
    const float top = static_cast<float>((1 << codec.nbits) - 1), unit = static_cast<float>(scale_unit(codec.nbits));
    // Best uniform level distance for a Gaussian of unit variance.
    const float start = codec.nbits == 1 ? 1.596f : codec.nbits == 2 ? 0.996f : 0.335f;
    float residual[kMaxWidth], codes[kMaxWidth];
    Lanes squares{};
    uint8_t chosen[kMaxWidth];
    for (int64_t k = 0; k < width; ++k) {
        // Beyond what a byte can hold nothing is gained, and a scale that reached for it would spoil the rest.
        float x = scaled[k] > -128.0f ? scaled[k] : -128.0f;
        x = x < 127.0f ? x : 127.0f;
        residual[k] = x - (static_cast<float>(centroid[k]) - 128.0f);
    }
    for (int64_t k = 0; k < width; k += 8) {
        Lanes x;
        std::memcpy(&x, residual + k, sizeof x);
        squares = squares + x * x;
    }
    float distance = start * std::sqrt(sum8(squares) / static_cast<float>(width));
    for (int pass = 0; pass < 2 && distance > 0.0f; ++pass) {
        pick_codes(residual, width, 1.0f / distance, top, codes);
        distance = fit_distance(residual, codes, width, top);
    }
    float scaled_distance = round_even(distance * unit);
    scaled_distance = scaled_distance < 1.0f ? 1.0f : scaled_distance;
    const uint8_t scale = static_cast<uint8_t>(scaled_distance > 255.0f ? 255.0f : scaled_distance);
    pick_codes(residual, width, unit / static_cast<float>(scale), top, codes);
    float_codes_to_bytes(codes, width, chosen);
    keep_in_range(codec, centroid, scale, chosen);
    pack_codes(codec, chosen, packed);
    return scale;
}

#if defined(__AVX512F__)
constexpr int kFloats = 16;
constexpr int64_t kTurnedTogether = 8;  // tokens, whose sums stay in registers
#elif defined(__AVX2__)
constexpr int kFloats = 8;
constexpr int64_t kTurnedTogether = 4;
#else
constexpr int kFloats = 4;
constexpr int64_t kTurnedTogether = 4;
#endif
typedef float Floats __attribute__((vector_size(kFloats * 4)));  // one register
constexpr int kColumns = 2 * kFloats;

// Columns [0, kColumns) of T tokens, `width` apart: out[t] = sum_k in[t][from[k]] * matrix[k], over k in order. Loops
// over sums are unrolled at once, or they would be moved between registers and memory at each step.
template <int64_t T>
inline void rotate_columns(const float* in, int64_t width, const int32_t* from, const float* matrix, int64_t block,
                           float* out) {
    Floats sums[T][2];
#pragma GCC unroll 8
    for (int64_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = Floats{};
    for (int64_t k = 0; k < block; ++k) {
        const float* const column = in + from[k];
        Floats left, right;
        std::memcpy(&left, matrix + k * block, sizeof left);
        std::memcpy(&right, matrix + k * block + kFloats, sizeof right);
#pragma GCC unroll 8
        for (int64_t t = 0; t < T; ++t) {
            const float x = column[t * width];
            sums[t][0] = sums[t][0] + left * x, sums[t][1] = sums[t][1] + right * x;
        }
    }
#pragma GCC unroll 8
    for (int64_t t = 0; t < T; ++t) {
        std::memcpy(out + t * width, &sums[t][0], sizeof sums[t][0]);
        std::memcpy(out + t * width + kFloats, &sums[t][1], sizeof sums[t][1]);
    }
}

// A block of components of T tokens.
template <int64_t T>
inline void rotate_block(const float* in, int64_t width, const int32_t* from, const float* matrix, int64_t block,
                         float* out) {
    int64_t j = 0;
    for (; j + kColumns <= block; j += kColumns) rotate_columns<T>(in, width, from, matrix + j, block, out + j);
    for (; j < block; ++j)
        for (int64_t t = 0; t < T; ++t) {
            float sum = 0;
            for (int64_t k = 0; k < block; ++k) sum = sum + matrix[k * block + j] * in[t * width + from[k]];
            out[t * width + j] = sum;
        }
}

// out[i][j] = sum_k in[i][permutation[b][k]] * rotation[b][k][j] within each block b; sums run over k in order.
inline void rotate_generic(const float* in, int64_t n, int64_t width, int64_t block, const float* rotation,
                           const int32_t* permutation, float* out) {
    for (int64_t begin = 0; begin < width; begin += block) {
        const float* const matrix = rotation + begin * block;
        const int32_t* const from = permutation + begin;
        int64_t i = 0;
        for (; i + kTurnedTogether <= n; i += kTurnedTogether)
            rotate_block<kTurnedTogether>(in + i * width, width, from, matrix, block, out + i * width + begin);
        for (; i < n; ++i) rotate_block<1>(in + i * width, width, from, matrix, block, out + i * width + begin);
    }
}

}  // namespace
}  // namespace lateint::codes
