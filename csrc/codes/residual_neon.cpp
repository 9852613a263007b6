#include <arm_neon.h>

#include "codes/residual_generic.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kBytes = 16;  // of a register

// Up to 16 bytes from p without reading past them.
inline uint8x16_t load_part(const uint8_t* p, int64_t bytes) {
    if (bytes >= kBytes) return vld1q_u8(p);
    uint8_t part[kBytes] = {};
    std::memcpy(part, p, bytes);
    return vld1q_u8(part);
}

inline void store_part(uint8_t* p, uint8x16_t v, int64_t bytes) {
    if (bytes >= kBytes) return vst1q_u8(p, v);
    uint8_t part[kBytes];
    vst1q_u8(part, v);
    std::memcpy(p, part, bytes);
}

void decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    if (codec.nbits == 8) return copy_rows(codec, tokens, first, n, rows);
    const int64_t bytes = codec.code_bytes(), end = first + n;
    const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>((1 << codec.nbits) - 1));
    for (int64_t i = first; i < end; ++i, rows += codec.depth) {
        if (i + kAhead < end) prefetch_centroid(codec, tokens, i + kAhead);
        const uint8_t* code = tokens.codes + i * bytes;
        const uint8_t* centroid = codec.centroids + tokens.centroid(i) * codec.depth;
        const uint8x16_t levels = vreinterpretq_u8_s8(vld1q_s8(codec.levels[tokens.scales[i]]));
        for (int64_t j = 0; j < bytes; j += kBytes) {
            const int64_t part = bytes - j;
            const uint8x16_t packed = load_part(code + j, part);
            for (int s = 0; s < 8 / codec.nbits; ++s) {
                const int64_t k = s * bytes + j;
                const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-s * codec.nbits));
                const uint8x16_t index = vandq_u8(vshlq_u8(packed, down), mask);
                store_part(rows + k, vaddq_u8(load_part(centroid + k, part), vqtbl1q_u8(levels, index)), part);
            }
        }
    }
}

}  // namespace

const ResidualKernels kResidualNeon = {decode_rows, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint::codes
