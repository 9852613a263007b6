// DotProd: sdot multiplies four bytes of a row with those of four vectors.
#include "codes/int8_neon.hpp"

namespace lateint::codes {
namespace {

struct Tile : SignedTile {
    using SignedTile::SignedTile;
    static constexpr int kRows = 4;

    // Components k + 4 kWord to k + 4 kWord + 3.
    template <int kWord, int R>
    inline __attribute__((always_inline)) void add_word(int64_t k, const int8x16_t (&x)[R],
                                                        int32x4_t (&sums)[R][4]) const {
        int8x16_t v[4];
        for (int j = 0; j < 4; ++j) v[j] = vld1q_s8(tile + (k + 4 * kWord) * kLanes + j * 16);
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 4; ++j) sums[r][j] = vdotq_laneq_s32(sums[r][j], v[j], x[r], kWord);
    }

    template <int R>
    inline __attribute__((always_inline)) void multiply(const uint8_t* rows, int32x4_t (&sums)[R][4]) const {
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 4; ++j) sums[r][j] = start[j];
        for (int64_t k = 0; k < depth; k += 16) {
            int8x16_t x[R];
            for (int r = 0; r < R; ++r) {
                x[r] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(rows + r * depth + k), vdupq_n_u8(0x80)));
            }
            add_word<0>(k, x, sums);
            add_word<1>(k, x, sums);
            add_word<2>(k, x, sums);
            add_word<3>(k, x, sums);
        }
    }
};

struct Lanes : SignedLanes {
    static constexpr int kMostLanes = 4, kParts = 1;

    static void add(int8x16_t x, int8x16_t v, int32x4_t (&sums)[kParts]) { sums[0] = vdotq_s32(sums[0], x, v); }
    static int32x4_t total(const int32x4_t (&sums)[kParts]) { return sums[0]; }
};

}  // namespace

const Int8Kernels kInt8Dotprod = kernels_neon<Tile, Lanes>();

}  // namespace lateint::codes
