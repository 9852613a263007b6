// What the MaxSim kernels of AMX share: tile registers multiply sixteen document tokens by sixteen query tokens.
#pragma once

#include <immintrin.h>

#include "dense/kernel.hpp"
#include "platform/tiles_amx.hpp"

namespace lateint::dense {
namespace {

constexpr int64_t kBlock = 32;  // document tokens: two tile registers

// The element type of the tile products. Registers 0-3 are sums [document tile][query tile], 4-5 documents, 6-7
// queries.
template <bool kInteger, int kDocumentTiles, int kQueryTiles>
inline __attribute__((always_inline)) void products() {
    if constexpr (kInteger) {
        _tile_dpbssd(0, 4, 6);
        if constexpr (kQueryTiles == 2) _tile_dpbssd(1, 4, 7);
        if constexpr (kDocumentTiles == 2) _tile_dpbssd(2, 5, 6);
        if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_dpbssd(3, 5, 7);
    } else {
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (kQueryTiles == 2) _tile_dpbf16ps(1, 4, 7);
        if constexpr (kDocumentTiles == 2) _tile_dpbf16ps(2, 5, 6);
        if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_dpbf16ps(3, 5, 7);
    }
}

// sums [2 query tiles][32 document tokens][16]; documents are rows of `width` bytes, a multiple of 64, `stride` apart.
// The tile unit works on its own, so `between()` is called width / 64 times to fill that time.
template <bool kInteger, int kDocumentTiles, int kQueryTiles, class Between>
inline __attribute__((always_inline)) void similarities(const char* documents, int64_t stride, int64_t width,
                                                        const char* tile, int64_t tile_bytes, char* sums,
                                                        const Between& between) {
    memory_barrier();
    _tile_zero(0);
    if constexpr (kQueryTiles == 2) _tile_zero(1);
    if constexpr (kDocumentTiles == 2) _tile_zero(2);
    if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_zero(3);
    for (int64_t k = 0; k < width; k += 64) {
        _tile_loadd(4, documents + k, stride);
        if constexpr (kDocumentTiles == 2) _tile_loadd(5, documents + k + 16 * stride, stride);
        _tile_loadd(6, tile + k * 16, 64);
        if constexpr (kQueryTiles == 2) _tile_loadd(7, tile + k * 16 + tile_bytes, 64);
        products<kInteger, kDocumentTiles, kQueryTiles>();
        between();
    }
    _tile_stored(0, sums, 64);
    if constexpr (kQueryTiles == 2) _tile_stored(1, sums + 2048, 64);
    if constexpr (kDocumentTiles == 2) _tile_stored(2, sums + 1024, 64);
    if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_stored(3, sums + 3072, 64);
}

constexpr int64_t kSumsBytes = 4096;  // of a block and two query tiles

inline const char* sums_of(const char* sums, int64_t row, int which) {
    return sums + row / kBlock * kSumsBytes + which * (kSumsBytes / 2) + row % kBlock * 64;
}

// Document tokens, as bf16 or int8, that stay in the first cache while all query tiles go over them.
constexpr int64_t kMostRows = 128;
inline int64_t chunk_rows(int64_t width) {
    const int64_t rows = (32 << 10) / width / kBlock * kBlock;
    return rows < 2 * kBlock ? 2 * kBlock : rows > kMostRows ? kMostRows : rows;
}

inline int64_t chunk_scratch_bytes(int64_t width) {
    return chunk_rows(width) / kBlock * kSumsBytes + chunk_rows(width) * width;
}

// One document against all tiles, two at a time. While the tile unit multiplies, the vector unit makes the next block
// ready and takes in the sums of the block before. `Work` says what that means:
//   kInteger                           which products
//   row_bytes(), width()               of a document token as it comes and as it is multiplied
//   in_place(rows)                     whether a block of `rows` is multiplied where it is
//   ready(from, rows, begin, end, to)  makes rows [begin, end) of a block of `rows` ready; `to` is its copy
//   fold<kTiles>(tile, sums, rows)     takes in sums [kTiles][32][16] of tile `tile` (and the next)
//   kKeep                              whether finish() wants the sums of the whole chunk
//   finish(tile, tiles, sums, start, rows)  after all blocks of a chunk that starts at row `start`
template <class Work>
inline void over_blocks(Work& work, const char* tiles, int64_t tile_bytes, int64_t count, const char* tokens,
                        int64_t rows, char* scratch) {
    constexpr bool kInteger = Work::kInteger;
    const int64_t width = work.width(), row_bytes = work.row_bytes(), most = chunk_rows(width);
    const int64_t calls = width / 64, share = (kBlock + calls - 1) / calls;
    char* const sums = scratch;
    char* const copies = scratch + most / kBlock * kSumsBytes;
    // Copies that only one pair of tiles reads need not outlive the next block, and so stay in the first cache.
    const auto copy_at = [=](int64_t row) { return copies + (count > 2 ? row : row % (2 * kBlock)) * width; };
    for (int64_t start = 0; start < rows; start += most) {
        const int64_t size = rows - start < most ? rows - start : most;
        const char* const from = tokens + start * row_bytes;
        const int64_t first = size < kBlock ? size : kBlock;
        work.ready(from, first, 0, first, copies);
        for (int64_t tile = 0; tile < count; tile += 2) {
            const bool two = tile + 1 < count;
            const char* const queries = tiles + tile * tile_bytes;
            const char* last = nullptr;
            for (int64_t row = 0; row < size; row += kBlock) {
                const int64_t left = size - row, rows_here = left < kBlock ? left : kBlock;
                const int64_t next = tile > 0 ? 0 : left - rows_here < kBlock ? left - rows_here : kBlock;
                char* const target = sums + (Work::kKeep ? row / kBlock : row / kBlock % 2) * kSumsBytes;
                const bool direct = work.in_place(rows_here);
                const char* const documents = direct ? from + row * row_bytes : copy_at(row);
                const int64_t stride = direct ? row_bytes : width;
                int64_t readied = 0;
                const auto between = [&]() __attribute__((always_inline)) {
                    if (readied < next) {
                        const int64_t end = readied + share < next ? readied + share : next;
                        work.ready(from + (row + kBlock) * row_bytes, next, readied, end, copy_at(row + kBlock));
                        readied = end;
                    }
                    if (last != nullptr) {
                        if (two) {
                            work.template fold<2>(tile, last, kBlock);
                        } else {
                            work.template fold<1>(tile, last, kBlock);
                        }
                        last = nullptr;
                    }
                };
                if (rows_here > 16) {
                    if (two) {
                        similarities<kInteger, 2, 2>(documents, stride, width, queries, tile_bytes, target, between);
                    } else {
                        similarities<kInteger, 2, 1>(documents, stride, width, queries, tile_bytes, target, between);
                    }
                } else if (two) {
                    similarities<kInteger, 1, 2>(documents, stride, width, queries, tile_bytes, target, between);
                } else {
                    similarities<kInteger, 1, 1>(documents, stride, width, queries, tile_bytes, target, between);
                }
                last = target;
            }
            const int64_t rest = size - (size - 1) / kBlock * kBlock;
            if (two) {
                work.template fold<2>(tile, last, rest);
            } else {
                work.template fold<1>(tile, last, rest);
            }
            work.finish(tile, two ? 2 : 1, sums, start, size);
        }
    }
}

inline __m512 lowest_float() { return _mm512_set1_ps(-__builtin_inff()); }

inline void fold_floats(char* lanes, const char* sums, int64_t rows) {
    __m512 top = _mm512_load_ps(lanes), other = lowest_float();
    int64_t row = 0;
    for (; row + 2 <= rows; row += 2) {
        top = _mm512_max_ps(top, _mm512_load_ps(sums + row * 64));
        other = _mm512_max_ps(other, _mm512_load_ps(sums + row * 64 + 64));
    }
    if (row < rows) top = _mm512_max_ps(top, _mm512_load_ps(sums + row * 64));
    _mm512_store_ps(lanes, _mm512_max_ps(top, other));
}

inline void copy_row(const char* from, int64_t bytes, int64_t width, char* to) {
    for (int64_t i = 0; i < width; i += 64) {
        const int64_t left = bytes - i;
        const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        _mm512_storeu_si512(to + i, _mm512_maskz_loadu_epi8(mask, from + i));
    }
}

// [width / 4][16][4 bytes]: the lanes of each four bytes of a row, rows being `bytes` long.
inline void pack_rows(const char* rows, int count, int64_t bytes, char* tile) {
    for (int64_t step = 0; step < align64(bytes) / 4; ++step, tile += 64) {
        const int64_t left = bytes - step * 4;
        for (int lane = 0; lane < kLanes; ++lane) {
            uint32_t four = 0;
            if (lane < count && left >= 4) {
                __builtin_memcpy(&four, rows + lane * bytes + step * 4, 4);
            } else if (lane < count && left > 0) {
                __builtin_memcpy(&four, rows + lane * bytes + step * 4, static_cast<size_t>(left));
            }
            __builtin_memcpy(tile + lane * 4, &four, 4);
        }
    }
}

}  // namespace
}  // namespace lateint::dense
