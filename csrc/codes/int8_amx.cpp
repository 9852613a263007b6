// AMX: 32 rows x 32 vectors a step in four accumulator tiles.
#include "codes/int8_cross.hpp"
#include "codes/int8_cross_avx512.hpp"
#include "codes/int8_dot_avx512.hpp"
#include "codes/int8_select_avx512.hpp"
#include "platform/tiles_amx.hpp"

namespace lateint::codes {
namespace {

// Tiles 0-3 hold sums (rows 0-15 / 16-31 times vectors 0-15 / 16-31), 4-5 rows, 6-7 vectors.
inline void sums_2x2(const uint8_t* rows, int64_t depth, const int8_t* tiles) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; k += 64) {
        _tile_loadd(4, rows + k, depth);
        _tile_loadd(5, rows + 16 * depth + k, depth);
        _tile_loadd(6, tiles + k * kLanes, 64);
        _tile_loadd(7, tiles + depth * kLanes + k * kLanes, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
}

inline void sums_2x1(const uint8_t* rows, int64_t depth, const int8_t* tile) {
    _tile_zero(0);
    _tile_zero(2);
    for (int64_t k = 0; k < depth; k += 64) {
        _tile_loadd(4, rows + k, depth);
        _tile_loadd(5, rows + 16 * depth + k, depth);
        _tile_loadd(6, tile + k * kLanes, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(2, 5, 6);
    }
}

inline void sums_1x2(const uint8_t* rows, int64_t depth, const int8_t* tiles) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t k = 0; k < depth; k += 64) {
        _tile_loadd(4, rows + k, depth);
        _tile_loadd(6, tiles + k * kLanes, 64);
        _tile_loadd(7, tiles + depth * kLanes + k * kLanes, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
    }
}

inline void sums_1x1(const uint8_t* rows, int64_t depth, const int8_t* tile) {
    _tile_zero(0);
    for (int64_t k = 0; k < depth; k += 64) {
        _tile_loadd(4, rows + k, depth);
        _tile_loadd(6, tile + k * kLanes, 64);
        _tile_dpbusd(0, 4, 6);
    }
}

// Sixteen rows with all tiles; the result goes to out with `lanes` a row.
inline void store_16(const uint8_t* rows, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    const int64_t pitch = int64_t(ntiles) * 64;
    int t = 0;
    for (; t + 2 <= ntiles; t += 2) {
        sums_1x2(rows, depth, tiles + t * depth * kLanes);
        _tile_stored(0, out + t * kLanes, pitch);
        _tile_stored(1, out + (t + 1) * kLanes, pitch);
    }
    if (t < ntiles) {
        sums_1x1(rows, depth, tiles + t * depth * kLanes);
        _tile_stored(0, out + t * kLanes, pitch);
    }
}

void dot(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out) {
    if (n < 16) return dot_avx512(rows, n, depth, tiles, ntiles, out);
    const int64_t pitch = int64_t(ntiles) * 64;
    const int lanes = ntiles * kLanes;
    int64_t r = 0;
    for (; r + 32 <= n; r += 32) {
        const uint8_t* at = rows + r * depth;
        int32_t* to = out + r * lanes;
        int t = 0;
        for (; t + 2 <= ntiles; t += 2) {
            sums_2x2(at, depth, tiles + t * depth * kLanes);
            _tile_stored(0, to + t * kLanes, pitch);
            _tile_stored(1, to + (t + 1) * kLanes, pitch);
            _tile_stored(2, to + 16 * lanes + t * kLanes, pitch);
            _tile_stored(3, to + 16 * lanes + (t + 1) * kLanes, pitch);
        }
        if (t < ntiles) {
            sums_2x1(at, depth, tiles + t * depth * kLanes);
            _tile_stored(0, to + t * kLanes, pitch);
            _tile_stored(2, to + 16 * lanes + t * kLanes, pitch);
        }
    }
    if (r + 16 <= n) {
        store_16(rows + r * depth, depth, tiles, ntiles, out + r * lanes);
        r += 16;
    }
    // The last rows once more together with some before them: the same sums are written twice.
    if (r < n) store_16(rows + (n - 16) * depth, depth, tiles, ntiles, out + (n - 16) * lanes);
}

inline __m512i max_of_16(const int32_t* sums, __m512i top) {
    for (int i = 0; i < 16; ++i) top = _mm512_max_epi32(top, _mm512_load_si512(sums + i * 16));
    return top;
}

void dot_max(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int m, int32_t* best) {
    alignas(64) int32_t sums[4][256];
    const int ntiles = static_cast<int>(tiles_for(m));
    n = round_up(n, kRowStep);
    int t = 0;
    for (; t + 2 <= ntiles; t += 2) {
        const int8_t* pair = tiles + t * depth * kLanes;
        __m512i top0 = _mm512_loadu_si512(best + t * kLanes), top1 = _mm512_loadu_si512(best + (t + 1) * kLanes);
        int64_t r = 0;
        for (; r + 32 <= n; r += 32) {
            sums_2x2(rows + r * depth, depth, pair);
            _tile_stored(0, sums[0], 64);
            _tile_stored(1, sums[1], 64);
            _tile_stored(2, sums[2], 64);
            _tile_stored(3, sums[3], 64);
            top0 = max_of_16(sums[2], max_of_16(sums[0], top0));
            top1 = max_of_16(sums[3], max_of_16(sums[1], top1));
        }
        if (r < n) {
            sums_1x2(rows + r * depth, depth, pair);
            _tile_stored(0, sums[0], 64);
            _tile_stored(1, sums[1], 64);
            top0 = max_of_16(sums[0], top0);
            top1 = max_of_16(sums[1], top1);
        }
        _mm512_storeu_si512(best + t * kLanes, top0);
        _mm512_storeu_si512(best + (t + 1) * kLanes, top1);
    }
    if (t == ntiles) return;
    const int8_t* last = tiles + t * depth * kLanes;
    __m512i top = _mm512_loadu_si512(best + t * kLanes);
    for (int64_t r = 0; r < n; r += 16) {
        if (r + 32 <= n) {
            sums_2x1(rows + r * depth, depth, last);
            _tile_stored(0, sums[0], 64);
            _tile_stored(2, sums[1], 64);
            top = max_of_16(sums[1], max_of_16(sums[0], top));
            r += 16;
        } else {
            sums_1x1(rows + r * depth, depth, last);
            _tile_stored(0, sums[0], 64);
            top = max_of_16(sums[0], top);
        }
    }
    _mm512_storeu_si512(best + t * kLanes, top);
}

constexpr int kFew = 8;  // a tile of the unit is 16 vectors wide: few of them leave it idle

void cross(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* const* lanes, int m, int32_t* out,
           int64_t stride) {
    (m < kFew ? cross_avx512 : cross_by_tiles<dot>)(rows, n, depth, lanes, m, out, stride);
}

}  // namespace

const Int8Kernels kInt8Amx = {dot,
                              dot_max,
                              cross,
                              cross_turned_avx512,
                              kFew - 1,
                              above_avx512,
                              keep_best_avx512,
                              nearest_avx512,
                              reaching_avx512,
                              less_bias,
                              best_lanes_avx512,
                              configure_tiles,
                              release_tiles};

}  // namespace lateint::codes
