// Encoding and rotation, written once and vectorised by the compiler for each instruction set that includes this.
// Sums run in a fixed order of eight lanes and nothing contracts to FMA, so all builds give the same bits.
#pragma once

#include <cmath>
#include <cstring>

#include "residual.hpp"

namespace lateint {
namespace {

constexpr int64_t kMaxWidth = 4096;

inline float sum8(const float* lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Rounds to the nearest integer, ties to even, for |x| < 2^22, without a library call.
inline float round_even(float x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23
    return (x + magic) - magic;
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
    float num[8] = {}, den[8] = {};
    const float half = 0.5f * top;
    for (int64_t k = 0; k < width; k += 8)
        for (int i = 0; i < 8; ++i) {
            const float level = codes[k + i] - half;
            num[i] += residual[k + i] * level;
            den[i] += level * level;
        }
    return sum8(num) / sum8(den);
}

// A sum that leaves [0, 255] would wrap when decoded: the nearest code that does not is taken instead.
inline void keep_in_range(const Codec& codec, const uint8_t* centroid, uint8_t scale, float top, float* codes) {
    const int8_t* levels = codec.levels[scale];
    for (int64_t k = 0; k < codec.width; ++k) {
        int code = static_cast<int>(codes[k]);
        while (centroid[k] + levels[code] > 255 && code > 0) --code;
        while (centroid[k] + levels[code] < 0 && code < static_cast<int>(top)) ++code;
        codes[k] = static_cast<float>(code);
    }
}

inline void pack_codes(const Codec& codec, const float* codes, uint8_t* packed) {
    const int64_t bytes = codec.code_bytes();
    for (int64_t j = 0; j < bytes; ++j) packed[j] = static_cast<uint8_t>(static_cast<int>(codes[j]));
    for (int64_t s = 1; s < 8 / codec.nbits; ++s)
        for (int64_t j = 0; j < bytes; ++j)
            packed[j] |= static_cast<uint8_t>(static_cast<int>(codes[s * bytes + j]) << (s * codec.nbits));
}

inline void to_bytes_generic(const float* scaled, int64_t n, uint8_t* bytes) {
    for (int64_t i = 0; i < n; ++i) {
        float x = round_even(scaled[i]) + 128.0f;
        x = x < 0.0f ? 0.0f : x;
        x = x > 255.0f ? 255.0f : x;
        bytes[i] = static_cast<uint8_t>(static_cast<int>(x));
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
    float residual[kMaxWidth], codes[kMaxWidth], squares[8] = {};
    for (int64_t k = 0; k < width; ++k) residual[k] = scaled[k] - (static_cast<float>(centroid[k]) - 128.0f);
    for (int64_t k = 0; k < width; k += 8)
        for (int i = 0; i < 8; ++i) squares[i] += residual[k + i] * residual[k + i];
    float distance = start * std::sqrt(sum8(squares) / static_cast<float>(width));
    for (int pass = 0; pass < 2 && distance > 0.0f; ++pass) {
        pick_codes(residual, width, 1.0f / distance, top, codes);
        distance = fit_distance(residual, codes, width, top);
    }
    float scaled_distance = round_even(distance * unit);
    scaled_distance = scaled_distance < 1.0f ? 1.0f : scaled_distance;
    const uint8_t scale = static_cast<uint8_t>(scaled_distance > 255.0f ? 255.0f : scaled_distance);
    pick_codes(residual, width, unit / static_cast<float>(scale), top, codes);
    keep_in_range(codec, centroid, scale, top, codes);
    pack_codes(codec, codes, packed);
    return scale;
}

// out[i][j] = sum_k in[i][k] * rotation[b][k][j] within each block b; sums run over k in order.
inline void rotate_generic(const float* in, int64_t n, int64_t width, int64_t block, const float* rotation,
                           float* out) {
    constexpr int kTokens = 4, kColumns = 32;
    for (int64_t b = 0; b < width / block; ++b) {
        const float* matrix = rotation + b * block * block;
        for (int64_t i = 0; i < n; i += kTokens) {
            const int64_t tokens = n - i < kTokens ? n - i : kTokens;
            const float* rows[kTokens];
            for (int t = 0; t < kTokens; ++t) rows[t] = in + (i + (t < tokens ? t : 0)) * width + b * block;
            for (int64_t j = 0; j < block; j += kColumns) {
                const int64_t columns = block - j < kColumns ? block - j : kColumns;
                float sums[kTokens][kColumns] = {};
                if (columns == kColumns) {
                    for (int64_t k = 0; k < block; ++k)
                        for (int t = 0; t < kTokens; ++t)
                            for (int c = 0; c < kColumns; ++c) sums[t][c] += rows[t][k] * matrix[k * block + j + c];
                } else {
                    for (int64_t k = 0; k < block; ++k)
                        for (int t = 0; t < kTokens; ++t)
                            for (int64_t c = 0; c < columns; ++c) sums[t][c] += rows[t][k] * matrix[k * block + j + c];
                }
                for (int64_t t = 0; t < tokens; ++t)
                    std::memcpy(out + (i + t) * width + b * block + j, sums[t], columns * sizeof(float));
            }
        }
    }
}

}  // namespace
}  // namespace lateint
