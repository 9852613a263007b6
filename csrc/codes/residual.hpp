// Residual codes. A token x (rotated, mean removed) is kept as
//   x / step ~ (centroid - 128) + level[scale][code],  level[s][c] = round((2 c - (2^nbits - 1)) s / (2 unit)),
// so that decoding gives unsigned bytes on one common step and scores are integer dot products (int8.hpp).
// With nbits = 8 the codes are those bytes themselves and the centroid serves candidate generation only.
#pragma once

#include <cstdint>
#include <memory>

#include "platform/dtype.hpp"
#include "platform/isa.hpp"

namespace lateint::codes {

// How fine the per-token scale is: a scale byte s means a distance of s / unit steps between levels.
constexpr int scale_unit(int nbits) { return nbits == 4 ? 16 : 4; }

struct Codec {
    int nbits;                 // 1, 2, 4 or 8
    int64_t width;             // components of a token, a multiple of 8
    int64_t depth;             // width rounded up to kDepthStep: row length of centroids and decoded tokens
    const uint8_t* centroids;  // [K, depth], padding 128
    int8_t levels[256][16];    // by scale byte and code (nbits <= 4)
    // Of each component, in [depth]: the byte of its code modulo 64, and from which bit of the eight bytes around it
    // the code is read where byte i of a code lies at i % 8.
    std::shared_ptr<uint8_t[]> places, shifts;

    Codec(int nbits, int64_t width, int64_t depth, const uint8_t* centroids);
    int64_t code_bytes() const { return width * nbits / 8; }
};

// Tokens as stored, document after document. Byte j of a code holds the codes of components j + s * code_bytes(),
// s = 0 .. 8 / nbits - 1, in bits [s * nbits, (s + 1) * nbits).
struct CodedTokens {
    int64_t count;                 // N
    const uint8_t* codes;          // [N, code_bytes]
    const uint8_t* scales;         // [N]; null with nbits = 8
    const uint16_t* centroid_ids;  // [N], low 16 bits
    const uint8_t* centroid_high;  // [N], bits 16-23; null where K <= 65536

    uint32_t centroid(int64_t token) const {
        return centroid_ids[token] | (centroid_high ? uint32_t(centroid_high[token]) << 16 : 0u);
    }
};

struct ResidualKernels {
    // Tokens [first, first + n) as rows of depth bytes; components from width on are left as they are.
    void (*decode)(const Codec&, const CodedTokens&, int64_t first, int64_t n, uint8_t* rows);
    // One token: scaled = x / step (width floats), centroid = its row. Writes code_bytes() bytes, returns the scale.
    uint8_t (*encode)(const Codec&, const float* scaled, const uint8_t* centroid, uint8_t* code);
    // out[i] = in[i], permuted, times the rotation [width / block][block][block], block by block: component k of a
    // block is that which permutation [width / block][block] names.
    void (*rotate)(const float* in, int64_t n, int64_t width, int64_t block, const float* rotation,
                   const int32_t* permutation, float* out);
    // One row of tokens as floats.
    void (*widen)(const void* row, Dtype dtype, int64_t dim, float* out);
    // bytes[i] = clamp(round(scaled[i]) + 128)
    void (*to_bytes)(const float* scaled, int64_t n, uint8_t* bytes);
};

const ResidualKernels& residual_kernels();  // those of active_isa()

constexpr int64_t kTokensPerTask = 256;
constexpr int64_t kMaxWidth = 4096;

// Rotated tokens scaled [n, width] with their centroids: codes [n, code_bytes], scales [n].
void encode(const Codec& codec, const float* scaled, const uint32_t* centroid_ids, int64_t n, int threads,
            uint8_t* codes, uint8_t* scales);

// Tokens [first, first + n) as bytes [n, width].
void decode(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* bytes);

// scaled [n, width] as bytes [n, depth]: rounded, plus 128, clipped, padded with 128.
void to_bytes(const float* scaled, int64_t n, int64_t width, int64_t depth, int threads, uint8_t* bytes);

// The largest size of a component of each token that `to_bytes` may have clipped, 0 for the others.
void peaks(const uint8_t* bytes, int64_t depth, const float* scaled, int64_t width, int64_t n, int threads, float* out);

extern const ResidualKernels kResidualScalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const ResidualKernels kResidualAvx2;
extern const ResidualKernels kResidualAvx512;
#elif defined(__aarch64__)
extern const ResidualKernels kResidualNeon;
#endif

}  // namespace lateint::codes
