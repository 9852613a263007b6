// I8MM: usmmla multiplies eight unsigned bytes of two rows with eight signed ones of two vectors, 2 x 8 by 8 x 2; usdot
// four unsigned bytes of each of four rows with four signed ones.
#include "codes/int8_neon.hpp"

namespace lateint::codes {
namespace {

struct Tile {
    const int8_t* tile;
    int64_t depth;
    static constexpr int kRows = 4;

    Tile(const int8_t* tile, int64_t depth) : tile(tile), depth(depth) {}

    template <int R>
    inline __attribute__((always_inline)) void multiply(const uint8_t* rows, int32x4_t (&sums)[R][4]) const {
        constexpr int kPairs = (R + 1) / 2, kSecond = R > 1 ? 1 : 0;  // a single row is its own partner
        int32x4_t squares[kPairs][8];                                 // of two rows with vectors 2 j and 2 j + 1
        for (int p = 0; p < kPairs; ++p)
            for (int j = 0; j < 8; ++j) squares[p][j] = vdupq_n_s32(0);
        for (int64_t k = 0; k < depth; k += 8) {
            uint8x16_t x[kPairs];
            for (int p = 0; p < kPairs; ++p) {
                const uint8_t* const row = rows + 2 * p * depth + k;
                x[p] = vcombine_u8(vld1_u8(row), vld1_u8(row + kSecond * depth));
            }
            for (int j = 0; j < 4; ++j) {
                const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(tile + k * kLanes + j * 16));
                const int32x4_t high = vreinterpretq_s32_s8(vld1q_s8(tile + (k + 4) * kLanes + j * 16));
                const int8x16_t first = vreinterpretq_s8_s32(vzip1q_s32(low, high));
                const int8x16_t second = vreinterpretq_s8_s32(vzip2q_s32(low, high));
                for (int p = 0; p < kPairs; ++p) {
                    squares[p][2 * j] = vusmmlaq_s32(squares[p][2 * j], x[p], first);
                    squares[p][2 * j + 1] = vusmmlaq_s32(squares[p][2 * j + 1], x[p], second);
                }
            }
        }
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 4; ++j) {
                const int64x2_t first = vreinterpretq_s64_s32(squares[r / 2][2 * j]);
                const int64x2_t second = vreinterpretq_s64_s32(squares[r / 2][2 * j + 1]);
                sums[r][j] = vreinterpretq_s32_s64(r % 2 == 0 ? vzip1q_s64(first, second) : vzip2q_s64(first, second));
            }
    }
};

struct Lanes {
    static constexpr int kMostLanes = 4, kParts = 1;

    static int32x4_t start(const int8_t*, int64_t) { return vdupq_n_s32(0); }
    static uint8x16_t rows(const uint8_t* words) { return vld1q_u8(words); }
    static void add(uint8x16_t x, int8x16_t v, int32x4_t (&sums)[kParts]) { sums[0] = vusdotq_s32(sums[0], x, v); }
    static int32x4_t total(const int32x4_t (&sums)[kParts]) { return sums[0]; }
};

}  // namespace

const Int8Kernels kInt8I8mm = kernels_neon<Tile, Lanes>();

}  // namespace lateint::codes
