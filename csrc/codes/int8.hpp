// Integer dot products of unsigned rows with tiles of 16 signed vectors: the arithmetic under centroid search,
// assignment and MaxSim on residual codes. All of it is exact, so every instruction set gives the same bits.
#pragma once

#include <cstdint>

#include "platform/isa.hpp"
#include "platform/tiles.hpp"

namespace lateint::codes {

constexpr int64_t kDepthStep = 64;    // rows and tiles are padded to this many components
constexpr int64_t kMostDepth = 4096;  // of a row
constexpr int64_t kRowStep = 16;      // dot_max reads rows in multiples of this
constexpr int64_t kCrossRows = 64;    // cross writes rows in multiples of this

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// A tile holds vectors v[0..16) as [depth / 4][16][4] bytes: component k of vector j at (k / 4) * 64 + j * 4 + k % 4.
// That is the operand order of vpdpbusd and of the second AMX tile alike.
struct Int8Kernels {
    // out[r][t * 16 + j] = sum_k rows[r][k] * tiles[t][j][k]
    void (*dot)(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out);
    // best[j] = max(best[j], max_r sum_k rows[r][k] * v_j[k]) for the first m vectors of some tiles. best has room for
    // all of the last tile; what it holds beyond m is undefined. So many rows more are there that their number is a
    // multiple of kRowStep: copies of some of the n.
    void (*dot_max)(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best);
    // out[j * stride + r] = sum_k rows[r][k] * lane_j[k]. Lane j is one vector of a tile, and lanes[j] where its first
    // component is. stride >= n rounded up to a multiple of kCrossRows; what lies between n and that is undefined.
    void (*cross)(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* const* lanes, int m, int32_t* out,
                  int64_t stride);
    // The same products of rows that lie as tiles do, 16 a tile; stride >= n rounded up to a multiple of 16. Null, or
    // called in place of `cross` for up to most_turned lanes.
    void (*cross_turned)(const uint8_t* tiles, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                         int32_t* out, int64_t stride);
    int most_turned;
    // Appends the scores above the threshold to `kept` and their rows, first + i, to `rows`; returns how many. Both
    // have room for n + 16 more.
    int64_t (*above)(const int32_t* scores, int64_t n, int32_t threshold, uint32_t first, int32_t* kept,
                     uint32_t* rows);
    // Moves the best `count` < n to the front, in their order: by score, then by lower row. Returns the least of them.
    int32_t (*keep_best)(int32_t* scores, uint32_t* rows, int64_t n, int64_t count);
    // Per row: where scores[r][j] - bias[j] > best[r], takes it and the index first + j (the lowest j among equals).
    void (*nearest)(const int32_t* scores, int64_t n, int lanes, const int32_t* bias, int32_t first, int32_t* best,
                    int32_t* index);
    // Writes the places of the entries that are at least `bound` to `places`, which has room for n; returns how many.
    // 0 < bound.
    int64_t (*reaching)(const uint32_t* entries, int64_t n, uint32_t bound, uint32_t* places);
    // scores[i] -= bias[i] for i < n, a multiple of 16. Returns a score that at least `count` <= 16 of them reach.
    int32_t (*less_bias)(int32_t* scores, const int32_t* bias, int64_t n, int count);
    // Of 16 rows of 16 scores less their bias: bit r of rows[j] tells whether score j is among the counts[r] best of
    // row r, the lowest j among equals.
    void (*best_lanes)(const int32_t* scores, const int32_t* bias, const int32_t* counts, uint32_t* rows);
    // Called by every worker before and after it uses the kernels above (AMX needs its tiles configured).
    void (*begin)();
    void (*end)();
};

const Int8Kernels& int8_kernels();  // those of active_isa()

extern const Int8Kernels kInt8Scalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const Int8Kernels kInt8Avx2;
extern const Int8Kernels kInt8Avx512;
extern const Int8Kernels kInt8Amx;
#elif defined(__aarch64__)
extern const Int8Kernels kInt8Neon;
extern const Int8Kernels kInt8Dotprod;
extern const Int8Kernels kInt8I8mm;
#endif

// Lays `count` <= 16 vectors of `depth` components (row length `stride`) out as one tile; absent lanes become 0.
void pack_tile(const int8_t* vectors, int count, int64_t stride, int64_t depth, int8_t* tile);

}  // namespace lateint::codes
