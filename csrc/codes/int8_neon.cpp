// NEON: products of bytes fit into 16 bits, and are added to 32 in pairs.
#include "codes/int8_neon.hpp"

namespace lateint::codes {
namespace {

struct Tile : SignedTile {
    using SignedTile::SignedTile;
    static constexpr int kRows = 2;

    template <int R>
    inline __attribute__((always_inline)) void multiply(const uint8_t* rows, int32x4_t (&sums)[R][4]) const {
        int32x4_t pairs[R][8];  // two of each vector, still to be added
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 8; ++j) pairs[r][j] = vdupq_n_s32(0);
        for (int64_t k = 0; k < depth; k += 4) {
            int8x16_t v[4];
            for (int j = 0; j < 4; ++j) v[j] = vld1q_s8(tile + k * kLanes + j * 16);
            for (int r = 0; r < R; ++r) {
                uint32_t word;
                __builtin_memcpy(&word, rows + r * depth + k, 4);
                const int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080));
                for (int j = 0; j < 4; ++j) {
                    pairs[r][2 * j] = vpadalq_s16(pairs[r][2 * j], vmull_s8(vget_low_s8(x), vget_low_s8(v[j])));
                    pairs[r][2 * j + 1] = vpadalq_s16(pairs[r][2 * j + 1], vmull_high_s8(x, v[j]));
                }
            }
        }
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 4; ++j)
                sums[r][j] = vaddq_s32(start[j], vpaddq_s32(pairs[r][2 * j], pairs[r][2 * j + 1]));
    }
};

struct Lanes : SignedLanes {
    static constexpr int kMostLanes = 2, kParts = 2;  // the sums of two components each, still to be added

    static void add(int8x16_t x, int8x16_t v, int32x4_t (&pairs)[kParts]) {
        pairs[0] = vpadalq_s16(pairs[0], vmull_s8(vget_low_s8(x), vget_low_s8(v)));
        pairs[1] = vpadalq_s16(pairs[1], vmull_high_s8(x, v));
    }
    static int32x4_t total(const int32x4_t (&pairs)[kParts]) { return vpaddq_s32(pairs[0], pairs[1]); }
};

}  // namespace

const Int8Kernels kInt8Neon = kernels_neon<Tile, Lanes>();

}  // namespace lateint::codes
