// Products that find candidates in a sketch of the documents: a quarter of the bytes of their float32 rows, which are
// read for candidates only.
//
// A query token q is t (128 high + low) with int8 numbers high and low, nearly exact; a document token d is s codes,
// less exact, but how far off was measured when the sketch was made. The int8 products are exact. What they say of
// <q, d> therefore has a proven bound, which is narrow for each token by itself.
#include "dense/candidates_amx.hpp"
#include "dense/sketch.hpp"
#include "dense/tiles_amx.hpp"

namespace lateint::dense {
namespace {

constexpr int64_t kChunkRows = 512;

// A tile is int8 high [width / 4][16][4], then low, the float32 rows [16][dim], and what the bound takes, [16] each.
struct SketchTile {
    int64_t width;  // bytes of a token as tile rows
    int64_t rows_at, slopes_at, drifts_at, which_at, bytes;
    explicit SketchTile(int64_t dim)
        : width(align64(dim)),
          rows_at(2 * width * 16),
          slopes_at(rows_at + align64(dim * 4 * 16)),
          drifts_at(slopes_at + 64),
          which_at(drifts_at + 64),
          bytes(which_at + 64) {}
};

// Lanes of a tile: `asked` hold a query token that is not zero, `sure` one whose products the bound holds for.
struct Which {
    __mmask16 asked, sure;
};

struct SketchScratch {
    int64_t reach_at, lows_at, best_at, candidates_at, bytes;
    explicit SketchScratch(int64_t tiles)
        : reach_at(2 * kSumsBytes),
          lows_at(reach_at + 2 * kChunkRows * 64),
          best_at(lows_at + tiles * 64),
          candidates_at(best_at + tiles * 64),
          bytes(candidates_at + 2 * Candidates::bytes(kChunkRows)) {}
};

int64_t sketch_tile_bytes(int64_t dim) { return SketchTile(dim).bytes; }

int64_t sketch_scratch_bytes(int64_t, int64_t tiles) { return SketchScratch(tiles).bytes; }

// Writes a query token as two bytes a number, four numbers every 64 bytes; returns whether the bound holds for it.
//
// The float32 product p of a document token d and its estimate e = t s (128 <high, codes> + <low, codes>) differ by
//     |p - <q, d>| <= dim 2^-24 |q| |d|                  the additions of the float32 product
//     |<q, d> - <q, d'>| <= |q| |d - d'| = |q| error     Cauchy-Schwarz; d' = s codes
//     |<q, d'> - <q', d'>| <= |q - q'| |d'|              q' = t (128 high + low)
//     |<q', d'> - e| <= 32 2^-24 |q'| |d'|               a few roundings, of terms up to 3 |q'| |d'|
// and |d|, |d'| <= 127 s sqrt(dim), for 127 s is the largest number of a token. In units of t, therefore,
//     |p - e| <= slope error + drift s
// with one per cent on top for the rounding of the bound itself.
bool pack_query(const float* query, int64_t dim, char* high, char* low, float* slope, float* drift) {
    double squares = 0, largest = 0, errors = 0;
    for (int64_t k = 0; k < dim; ++k) {
        const double x = query[k], size = __builtin_fabs(x);
        squares += x * x;
        largest = size > largest ? size : largest;
    }
    const double norm = __builtin_sqrt(squares);
    if (!(norm > 0x1p-40 && norm < 0x1p40)) return false;
    const double unit = largest / (127 * 128);
    for (int64_t k = 0; k < dim; ++k) {
        const int64_t place = k / 4 * 64 + k % 4;
        const int number = static_cast<int>(__builtin_lrint(query[k] / unit)), upper = (number + 64) >> 7;
        high[place] = static_cast<char>(upper);
        low[place] = static_cast<char>(number - 128 * upper);
        const double error = query[k] - unit * number;
        errors += error * error;
    }
    const double error = __builtin_sqrt(errors), rounding = static_cast<double>(dim + 32) * 0x1p-24;
    const double most = 127 * __builtin_sqrt(static_cast<double>(dim));
    *slope = static_cast<float>(1.01 * norm / unit);
    *drift = static_cast<float>(1.01 * (error + (norm + error) * rounding) / unit * most);
    return true;
}

void pack_sketch(const void* queries, int rows, int64_t dim, void* tile) {
    const SketchTile layout(dim);
    const float* const source = static_cast<const float*>(queries);
    char* const base = static_cast<char*>(tile);
    __builtin_memset(base, 0, static_cast<size_t>(layout.bytes));
    __builtin_memcpy(base + layout.rows_at, source, static_cast<size_t>(rows * dim * 4));
    float* const slopes = reinterpret_cast<float*>(base + layout.slopes_at);
    float* const drifts = reinterpret_cast<float*>(base + layout.drifts_at);
    Which which = {0, 0};
    for (int lane = 0; lane < rows; ++lane) {
        const float* const query = source + lane * dim;
        bool zero = true;
        for (int64_t k = 0; k < dim; ++k) zero = zero && query[k] == 0;
        if (zero) continue;
        which.asked |= 1 << lane;
        char* const high = base + lane * 4;
        if (pack_query(query, dim, high, high + layout.width * 16, slopes + lane, drifts + lane))
            which.sure |= 1 << lane;
    }
    __builtin_memcpy(base + layout.which_at, &which, sizeof which);
}

struct Sketch {
    const int64_t dim;
    const SketchTile layout;
    const SketchedTokens document;
    char* const scratch;
    const SketchScratch places;

    float* lows(int64_t tile) const { return reinterpret_cast<float*>(scratch + places.lows_at + tile * 64); }
    float* best(int64_t tile) const { return reinterpret_cast<float*>(scratch + places.best_at + tile * 64); }
    // [kChunkRows][16]: the most that the products of a chunk can be, for one of two tiles.
    char* reach(int64_t which) const { return scratch + places.reach_at + which * kChunkRows * 64; }

    // Takes in the sums of a block that starts at token `first`, row `row` of its chunk.
    inline __attribute__((always_inline)) void fold(const char* tile, const char* sums, int64_t first, int64_t rows,
                                                    char* reach, float* lows) const {
        const __m512 slope = _mm512_load_ps(tile + layout.slopes_at), drift = _mm512_load_ps(tile + layout.drifts_at);
        __m512 least = _mm512_load_ps(lows);
        const SketchScale* const scales = document.scales + first;
#pragma GCC unroll 4
        for (int64_t row = 0; row < rows; ++row) {
            const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(sums + row * 64));
            const __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(sums + kSumsBytes / 2 + row * 64));
            const __m512 sum = _mm512_fmadd_ps(high, _mm512_set1_ps(128), low);
            const __m512 scale = _mm512_set1_ps(scales[row].scale), error = _mm512_set1_ps(scales[row].error);
            const __m512 bound = _mm512_fmadd_ps(slope, error, _mm512_mul_ps(drift, scale));
            _mm512_store_ps(reach + row * 64, _mm512_fmadd_ps(sum, scale, bound));
            least = _mm512_max_ps(least, _mm512_fmsub_ps(sum, scale, bound));
        }
        _mm512_store_ps(lows, least);
    }

    // Estimates the products of a chunk with `count` tiles, one or two.
    void estimate(const char* tiles, int64_t tile, int64_t count, int64_t start, int64_t size) const {
        struct {
            const char *tile, *sums;
            int64_t first, rows;
            char* reach;
            float* lows;
        } last = {};
        int parity = 0;
        for (int64_t row = 0; row < size; row += kBlock) {
            const char* const codes = reinterpret_cast<const char*>(document.codes) + (start + row) * dim;
            const int64_t rows = size - row < kBlock ? size - row : kBlock;
            for (int64_t which = 0; which < count; ++which) {
                const char* const packed = tiles + (tile + which) * layout.bytes;
                char* const sums = scratch + parity * kSumsBytes;
                const auto between = [&]() __attribute__((always_inline)) {
                    if (last.tile == nullptr) return;
                    fold(last.tile, last.sums, last.first, last.rows, last.reach, last.lows);
                    last.tile = nullptr;
                };
                if (which == 0) {
                    for (int64_t i = 0; i < rows * dim; i += 64) _mm_prefetch(codes + kAhead + i, _MM_HINT_T0);
                }
                if (rows > 16) {
                    similarities<true, 2, 2>(codes, dim, layout.width, packed, layout.width * 16, sums, between);
                } else {
                    similarities<true, 1, 2>(codes, dim, layout.width, packed, layout.width * 16, sums, between);
                }
                last = {packed, sums, start + row, rows, reach(which) + row * 64, lows(tile + which)};
                parity ^= 1;
            }
        }
        fold(last.tile, last.sums, last.first, last.rows, last.reach, last.lows);
    }

    // Computes the tokens that can be the best: all of them for lanes that are not sure.
    void finish(const char* tiles, int64_t tile, int64_t count, int64_t start, int64_t size) const {
        const char* const tokens = reinterpret_cast<const char*>(document.tokens + start * dim);
        int64_t found[2];
        for (int64_t which = 0; which < count; ++which) {
            Which of;
            __builtin_memcpy(&of, tiles + (tile + which) * layout.bytes + layout.which_at, sizeof of);
            const __mmask16 always = of.asked & _knot_mask16(of.sure), sure = of.sure;
            const __m512 least = _mm512_load_ps(lows(tile + which));
            const char* const most = reach(which);
            const Candidates candidates = candidates_of(which);
            found[which] = candidates.list(size, [&](int64_t row) __attribute__((always_inline)) {
                return always | _mm512_mask_cmp_ps_mask(sure, _mm512_load_ps(most + row * 64), least, _CMP_GE_OQ);
            });
            for (int64_t i = 0; i < found[which]; ++i) {
                const char* const token = tokens + candidates.rows[i] * dim * 4;
                for (int64_t byte = 0; byte < dim * 4; byte += 64) _mm_prefetch(token + byte, _MM_HINT_T1);
            }
        }
        for (int64_t which = 0; which < count; ++which) {
            const float* const queries =
                reinterpret_cast<const float*>(tiles + (tile + which) * layout.bytes + layout.rows_at);
            candidates_of(which).compute<Dtype::float32>(found[which], queries, tokens, dim, best(tile + which));
        }
    }
    Candidates candidates_of(int64_t which) const {
        return {scratch + places.candidates_at + which * Candidates::bytes(kChunkRows), kChunkRows};
    }
};

void sketch_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* result) {
    const char* const packed = static_cast<const char*>(tiles);
    const Sketch work{dim, SketchTile(dim), *static_cast<const SketchedTokens*>(tokens), static_cast<char*>(scratch),
                      SketchScratch(count)};
    for (int64_t tile = 0; tile < count; ++tile) {
        _mm512_store_ps(work.lows(tile), lowest_float());
        _mm512_store_ps(work.best(tile), lowest_float());
    }
    for (int64_t start = 0; start < rows; start += kChunkRows) {
        const int64_t size = rows - start < kChunkRows ? rows - start : kChunkRows;
        for (int64_t tile = 0; tile < count; tile += 2) {
            const int64_t two = count - tile < 2 ? 1 : 2;
            work.estimate(packed, tile, two, start, size);
            work.finish(packed, tile, two, start, size);
        }
    }
    for (int64_t tile = 0; tile < count; ++tile) {
        Which of;
        __builtin_memcpy(&of, packed + tile * work.layout.bytes + work.layout.which_at, sizeof of);
        const __m512 best = _mm512_maskz_mov_ps(of.asked, _mm512_load_ps(work.best(tile)));
        _mm512_storeu_ps(static_cast<char*>(result) + tile * 64, best);
    }
}

constexpr Kernel kSketch = {sketch_tile_bytes, sketch_scratch_bytes, pack_sketch,
                            configure_tiles,   release_tiles,        sketch_best};

}  // namespace

const Kernel* sketch_kernel_amx() { return &kSketch; }

}  // namespace lateint::dense
