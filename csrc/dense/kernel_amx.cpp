// Products that are what was asked for: bf16 by bf16, int8 by int8.
#include "dense/tiles_amx.hpp"

namespace lateint::dense {
namespace {

template <bool kInteger>
int64_t native_tile_bytes(int64_t dim) {
    return align64(dim * (kInteger ? 1 : 2)) * 16;
}

template <bool kInteger>
int64_t native_scratch_bytes(int64_t dim, int64_t) {
    return chunk_scratch_bytes(align64(dim * (kInteger ? 1 : 2)));
}

void pack_int8(const void* queries, int rows, int64_t dim, void* tile) {
    pack_rows(static_cast<const char*>(queries), rows, dim, static_cast<char*>(tile));
}

void pack_bfloat16(const void* queries, int rows, int64_t dim, void* tile) {
    const char* const source = static_cast<const char*>(queries);  // floats whose lower halves are zero
    char* target = static_cast<char*>(tile);
    for (int64_t step = 0; step < align64(dim * 2) / 4; ++step, target += 64) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const char* const pair = source + (lane * dim + step * 2) * 4;
            uint16_t two[2] = {0, 0};
            if (lane < rows && step * 2 < dim) __builtin_memcpy(&two[0], pair + 2, 2);
            if (lane < rows && step * 2 + 1 < dim) __builtin_memcpy(&two[1], pair + 6, 2);
            __builtin_memcpy(target + lane * 4, two, 4);
        }
    }
}

// Whole blocks are read where they are if their rows are whole tile rows; others are copied and filled up with zeros.
template <bool kInt8>
struct Native {
    static constexpr bool kInteger = kInt8, kKeep = false;
    int64_t bytes;  // of a token
    char* best;

    int64_t row_bytes() const { return bytes; }
    int64_t width() const { return align64(bytes); }
    bool in_place(int64_t rows) const { return rows == kBlock && bytes == width(); }
    void ready(const char* from, int64_t rows, int64_t begin, int64_t end, char* to) const {
        if (in_place(rows)) {
            for (int64_t i = begin * bytes; i < end * bytes; i += 64) _mm_prefetch(from + i, _MM_HINT_T0);
        } else {
            for (int64_t row = begin; row < end; ++row)
                copy_row(from + row * bytes, bytes, width(), to + row * width());
        }
    }
    template <int kTiles>
    void fold(int64_t tile, const char* sums, int64_t rows) const {
#pragma GCC unroll 2
        for (int which = 0; which < kTiles; ++which) {
            char* const lanes = best + (tile + which) * 64;
            if constexpr (kInteger) {
                __m512i top = _mm512_load_si512(lanes);
                for (int64_t row = 0; row < rows; ++row) {
                    top = _mm512_max_epi32(top, _mm512_load_si512(sums_of(sums, row, which)));
                }
                _mm512_store_si512(lanes, top);
            } else {
                fold_floats(lanes, sums_of(sums, 0, which), rows);
            }
        }
    }
    void finish(int64_t, int, const char*, int64_t, int64_t) const {}
};

template <bool kInteger>
void native_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* result) {
    Native<kInteger> work{dim * (kInteger ? 1 : 2), static_cast<char*>(result)};
    const __m512i lowest = kInteger ? _mm512_set1_epi32(INT32_MIN) : _mm512_castps_si512(lowest_float());
    for (int64_t tile = 0; tile < count; ++tile) _mm512_store_si512(work.best + tile * 64, lowest);
    over_blocks(work, static_cast<const char*>(tiles), native_tile_bytes<kInteger>(dim), count,
                static_cast<const char*>(tokens), rows, static_cast<char*>(scratch));
}

constexpr Kernel kInt8 = {native_tile_bytes<true>, native_scratch_bytes<true>, pack_int8, configure_tiles,
                          release_tiles,           native_best<true>};
constexpr Kernel kBfloat16 = {
    native_tile_bytes<false>, native_scratch_bytes<false>, pack_bfloat16, configure_tiles, release_tiles,
    native_best<false>};

}  // namespace

const Kernel* kernel_amx(QueryKind queries, Dtype documents) {
    if (queries == QueryKind::int8) return &kInt8;
    if (queries == QueryKind::bfloat16 && documents == Dtype::bfloat16) return &kBfloat16;
    return screen_kernel_amx(documents);
}

}  // namespace lateint::dense
