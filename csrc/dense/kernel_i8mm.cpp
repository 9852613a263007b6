// smmla multiplies eight bytes of two document tokens with eight of two query tokens, 2 x 8 by 8 x 2. A tile is
// [steps][16 lanes][8 bytes]; a last step that is part empty is filled up with zeros.
#include "dense/bytes_neon.hpp"

namespace lateint::dense {
namespace {

struct Eights {
    static constexpr int kNumbers = 8;
};

constexpr int kPairs = 2;      // of document tokens, multiplied together with all pairs of a tile
constexpr int kTilePairs = 8;  // of query tokens
constexpr int64_t kBlockBytes = 24 << 10;

int64_t row_bytes(int64_t dim) { return steps_of<Eights>(dim) * 8; }
int64_t tile_bytes(int64_t dim) { return row_bytes(dim) * kLanes; }
int64_t rows_of_block(int64_t dim) {
    const int64_t rows = kBlockBytes / row_bytes(dim);
    return rows < 1 ? 1 : rows;
}
int64_t scratch_bytes(int64_t dim, int64_t) { return rows_of_block(dim) * row_bytes(dim); }

void pack(const void* queries, int rows, int64_t dim, void* tile) {
    pack_steps<Eights, int8_t, int8_t>(queries, rows, dim, tile, same);
}

// best[j]: of query tokens 2 j and 2 j + 1, the even document tokens apart from the odd ones.
void multiply(const int8_t* tile, const int8_t* const (&rows)[2 * kPairs], int64_t bytes,
              int32x4_t (&best)[kTilePairs]) {
    int32x4_t sums[kPairs][kTilePairs];
    for (int p = 0; p < kPairs; ++p)
        for (int j = 0; j < kTilePairs; ++j) sums[p][j] = vdupq_n_s32(0);
    for (int64_t k = 0; k < bytes; k += 8) {
        int8x16_t tokens[kPairs];
        for (int p = 0; p < kPairs; ++p)
            tokens[p] = vcombine_s8(vld1_s8(rows[2 * p] + k), vld1_s8(rows[2 * p + 1] + k));
        for (int j = 0; j < kTilePairs; ++j) {
            const int8x16_t query = vld1q_s8(tile + k * kLanes + j * 16);
            for (int p = 0; p < kPairs; ++p) sums[p][j] = vmmlaq_s32(sums[p][j], tokens[p], query);
        }
    }
    for (int p = 0; p < kPairs; ++p)
        for (int j = 0; j < kTilePairs; ++j) best[j] = vmaxq_s32(best[j], sums[p][j]);
}

void block(const int8_t* tile, const int8_t* tokens, int64_t rows, int64_t bytes, bool first, int32_t* result) {
    int32x4_t best[kTilePairs];
    for (int j = 0; j < kTilePairs; ++j) {
        const int32x2_t before = first ? vdup_n_s32(INT32_MIN) : vld1_s32(result + 2 * j);
        best[j] = vcombine_s32(before, before);
    }
    for (int64_t row = 0; row < rows; row += 2 * kPairs) {
        const int8_t* together[2 * kPairs];  // the last token again where there are no more: that changes no maximum
        for (int64_t i = 0; i < 2 * kPairs; ++i) together[i] = tokens + (row + i < rows ? row + i : rows - 1) * bytes;
        multiply(tile, together, bytes, best);
    }
    for (int j = 0; j < kTilePairs; ++j) {
        vst1_s32(result + 2 * j, vmax_s32(vget_low_s32(best[j]), vget_high_s32(best[j])));
    }
}

void best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
          void* result) {
    const int64_t bytes = row_bytes(dim), most = rows_of_block(dim);
    for (int64_t start = 0; start < rows; start += most) {
        const int64_t size = rows - start < most ? rows - start : most;
        const char* source = static_cast<const char*>(tokens) + start * dim;
        if (dim != bytes) {
            fill_up(source, size, dim, bytes, static_cast<char*>(scratch));
            source = static_cast<const char*>(scratch);
        }
        for (int64_t tile = 0; tile < count; ++tile) {
            block(static_cast<const int8_t*>(tiles) + tile * tile_bytes(dim), reinterpret_cast<const int8_t*>(source),
                  size, bytes, start == 0, static_cast<int32_t*>(result) + tile * kLanes);
        }
    }
}

constexpr Kernel kInt8 = {tile_bytes, scratch_bytes, pack, no_state, no_state, best};

}  // namespace

const Kernel* kernel_i8mm(QueryKind queries, Dtype) { return queries == QueryKind::int8 ? &kInt8 : nullptr; }

}  // namespace lateint::dense
