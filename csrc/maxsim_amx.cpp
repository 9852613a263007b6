// MaxSim with the tile registers of AMX: sixteen document tokens by sixteen query tokens per instruction.
//
// bf16 by bf16 and int8 by int8 are what the hardware multiplies. Other floats are split into hi + lo bf16 and
// multiplied as hi hi + hi lo + lo hi, which is a little less exact than float32. Therefore these products only choose
// the best token of each lane, and its dot product is then computed in float32. The choice itself is safe: where the
// runner-up comes closer than the proven error bound of the split allows, the lane is computed by AVX-512 instead.
#include <immintrin.h>

#include "maxsim_kernel.hpp"

namespace lateint {
namespace {

constexpr int64_t kBlock = 32;  // document tokens: two tile registers

int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GCC's intrinsics do not tell the compiler what memory the tile instructions read.
inline void memory_barrier() { __asm__ volatile("" ::: "memory"); }

constexpr TileConfig kConfig;

void begin() { _tile_loadconfig(&kConfig); }

void end() { _tile_release(); }

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

template <int kDocumentTiles>
inline __attribute__((always_inline)) void load_documents(const char* from, int64_t stride) {
    _tile_loadd(4, from, stride);
    if constexpr (kDocumentTiles == 2) _tile_loadd(5, from + 16 * stride, stride);
}

template <int kQueryTiles>
inline __attribute__((always_inline)) void load_queries(const char* from, int64_t tile_bytes) {
    _tile_loadd(6, from, 64);
    if constexpr (kQueryTiles == 2) _tile_loadd(7, from + tile_bytes, 64);
}

// Where the document tokens of a block are: rows of `width` bytes, a multiple of 64, `stride` apart.
struct Block {
    const char* high;
    const char* low;  // only if split
    int64_t stride, width;
};

// sums [2][2][16][16] = document tokens by query tokens. kProducts: 1: hi hi, 2: with hi lo, 3: with lo hi.
template <bool kInteger, int kProducts, int kDocumentTiles, int kQueryTiles>
inline __attribute__((always_inline)) void similarities(const Block& block, const char* tile, int64_t tile_bytes,
                                                        char* sums) {
    memory_barrier();
    _tile_zero(0);
    if constexpr (kQueryTiles == 2) _tile_zero(1);
    if constexpr (kDocumentTiles == 2) _tile_zero(2);
    if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_zero(3);
    const char* const low_tile = tile + block.width * 16;
    for (int64_t k = 0; k < block.width; k += 64) {
        load_documents<kDocumentTiles>(block.high + k, block.stride);
        if constexpr (kProducts >= 2) {
            load_queries<kQueryTiles>(low_tile + k * 16, tile_bytes);
            products<kInteger, kDocumentTiles, kQueryTiles>();
        }
        load_queries<kQueryTiles>(tile + k * 16, tile_bytes);
        products<kInteger, kDocumentTiles, kQueryTiles>();
        if constexpr (kProducts == 3) {
            load_documents<kDocumentTiles>(block.low + k, block.stride);
            products<kInteger, kDocumentTiles, kQueryTiles>();
        }
    }
    _tile_stored(0, sums, 64);
    if constexpr (kQueryTiles == 2) _tile_stored(1, sums + 1024, 64);
    if constexpr (kDocumentTiles == 2) _tile_stored(2, sums + 2048, 64);
    if constexpr (kDocumentTiles == 2 && kQueryTiles == 2) _tile_stored(3, sums + 3072, 64);
}

template <bool kInteger, int kProducts>
inline void similarities(const Block& block, int64_t rows, const char* tile, int64_t tile_bytes, int tiles,
                         char* sums) {
    if (rows > 16) {
        if (tiles == 2) {
            similarities<kInteger, kProducts, 2, 2>(block, tile, tile_bytes, sums);
        } else {
            similarities<kInteger, kProducts, 2, 1>(block, tile, tile_bytes, sums);
        }
    } else if (tiles == 2) {
        similarities<kInteger, kProducts, 1, 2>(block, tile, tile_bytes, sums);
    } else {
        similarities<kInteger, kProducts, 1, 1>(block, tile, tile_bytes, sums);
    }
}

inline const char* row_of(const char* sums, int64_t row, int tile) {
    return sums + (row / 16) * 2048 + tile * 1024 + (row % 16) * 64;
}

inline void copy_row(const char* from, int64_t bytes, int64_t width, char* to) {
    for (int64_t i = 0; i < width; i += 64) {
        const int64_t left = bytes - i;
        const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        _mm512_storeu_si512(to + i, _mm512_maskz_loadu_epi8(mask, from + i));
    }
}

// Whole blocks are read where they are if their rows are whole tile rows; others are copied and filled up with zeros.
inline Block in_place_or_copied(const char* tokens, int64_t rows, int64_t bytes, char* scratch) {
    const int64_t width = align64(bytes);
    if (rows == kBlock && bytes == width) return {tokens, nullptr, bytes, width};
    for (int64_t row = 0; row < rows; ++row) copy_row(tokens + row * bytes, bytes, width, scratch + row * width);
    return {scratch, nullptr, width, width};
}

// ---- products that are what was asked for: bf16 by bf16, int8 by int8 ----

template <bool kInteger>
int64_t native_tile_bytes(int64_t dim) {
    return align64(dim * (kInteger ? 1 : 2)) * 16;
}

template <bool kInteger>
int64_t native_scratch_bytes(int64_t dim, int64_t) {
    return 4096 + kBlock * align64(dim * (kInteger ? 1 : 2));
}

void pack_int8(const void* queries, int rows, int64_t dim, void* tile) {  // [dim / 4][16][4]
    const int8_t* source = static_cast<const int8_t*>(queries);
    int8_t* target = static_cast<int8_t*>(tile);
    for (int64_t i = 0, end = native_tile_bytes<true>(dim); i < end; ++i) {
        const int64_t lane = i / 4 % kLanes, k = i / 64 * 4 + i % 4;
        target[i] = lane < rows && k < dim ? source[lane * dim + k] : 0;
    }
}

void pack_bfloat16(const void* queries, int rows, int64_t dim, void* tile) {  // [dim / 2][16][2]
    const uint32_t* source = static_cast<const uint32_t*>(queries);           // floats whose low halves are zero
    uint16_t* target = static_cast<uint16_t*>(tile);
    for (int64_t i = 0, end = native_tile_bytes<false>(dim) / 2; i < end; ++i) {
        const int64_t lane = i / 2 % kLanes, k = i / 32 * 2 + i % 2;
        target[i] = lane < rows && k < dim ? static_cast<uint16_t>(source[lane * dim + k] >> 16) : 0;
    }
}

template <bool kInteger>
void native_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* result) {
    const int64_t bytes = dim * (kInteger ? 1 : 2), tile_bytes = native_tile_bytes<kInteger>(dim);
    char* const sums = static_cast<char*>(scratch);
    char* const best = static_cast<char*>(result);
    for (int64_t start = 0; start < rows; start += kBlock) {
        const int64_t size = rows - start < kBlock ? rows - start : kBlock;
        const Block block =
            in_place_or_copied(static_cast<const char*>(tokens) + start * bytes, size, bytes, sums + 4096);
        for (int64_t tile = 0; tile < count; tile += 2) {
            const int pair = count - tile < 2 ? 1 : 2;
            similarities<kInteger, 1>(block, size, static_cast<const char*>(tiles) + tile * tile_bytes, tile_bytes,
                                      pair, sums);
            for (int which = 0; which < pair; ++which) {
                char* const lanes = best + (tile + which) * 64;
                if constexpr (kInteger) {
                    __m512i top = start == 0 ? _mm512_set1_epi32(INT32_MIN) : _mm512_loadu_si512(lanes);
                    for (int64_t row = 0; row < size; ++row) {
                        top = _mm512_max_epi32(top, _mm512_loadu_si512(row_of(sums, row, which)));
                    }
                    _mm512_storeu_si512(lanes, top);
                } else {
                    __m512 top = start == 0 ? _mm512_set1_ps(-__builtin_inff()) : _mm512_loadu_ps(lanes);
                    for (int64_t row = 0; row < size; ++row) {
                        top = _mm512_max_ps(top, _mm512_loadu_ps(row_of(sums, row, which)));
                    }
                    _mm512_storeu_ps(lanes, top);
                }
            }
        }
    }
}

// ---- products that choose: any float by any float ----

// A tile is hi [width / 4][16][2], lo likewise, the float32 rows [16][dim], and their norms [16].
struct SplitTile {
    int64_t width;  // bytes of a document row of bf16
    int64_t rows_at, norms_at, bytes;
    explicit SplitTile(int64_t dim)
        : width(align64(dim * 2)),
          rows_at(width * 16 * 2),
          norms_at(rows_at + align64(dim * 4) * 16),
          bytes(norms_at + 64) {}
};

// Running choice of a tile's lanes.
struct Choice {
    __m512 first, second;  // the best and the second best product sums
    __m512i row;           // of the best
};

struct SplitScratch {
    int64_t low_at, choices_at, lane_best_at, lane_tile_at, lane_scratch_at, bytes;
    SplitScratch(int64_t dim, int64_t tiles, const MaxsimKernel& lanes)
        : low_at(4096 + kBlock * SplitTile(dim).width),
          choices_at(low_at + kBlock * SplitTile(dim).width),
          lane_best_at(choices_at + tiles * static_cast<int64_t>(sizeof(Choice))),
          lane_tile_at(lane_best_at + 64),
          lane_scratch_at(lane_tile_at + lanes.tile_bytes(dim)),
          bytes(lane_scratch_at + lanes.scratch_bytes(dim, 1)) {}
};

template <Dtype dtype>
const MaxsimKernel& lanes_kernel() {
    return *maxsim_kernel_avx512(QueryKind::any_float, dtype);
}

int64_t split_tile_bytes(int64_t dim) { return SplitTile(dim).bytes; }

template <Dtype dtype>
int64_t split_scratch_bytes(int64_t dim, int64_t tiles) {
    return SplitScratch(dim, tiles, lanes_kernel<dtype>()).bytes;
}

// Documents are split 32 floats at a time; number i of them goes to place 2 i if i < 16, else to 2 (i - 16) + 1,
// because that needs no shuffle. Queries are packed in the same order, and a sum does not mind.
inline int64_t number_at(int64_t place) { return place / 32 * 32 + place % 32 / 2 + place % 2 * 16; }

template <bool kShuffled>
void pack_split(const void* queries, int rows, int64_t dim, void* tile) {
    const SplitTile layout(dim);
    const float* source = static_cast<const float*>(queries);
    char* const base = static_cast<char*>(tile);
    uint16_t* high = reinterpret_cast<uint16_t*>(base);
    uint16_t* low = reinterpret_cast<uint16_t*>(base + layout.width * 16);
    float* copies = reinterpret_cast<float*>(base + layout.rows_at);
    float* norms = reinterpret_cast<float*>(base + layout.norms_at);
    for (int lane = 0; lane < kLanes; ++lane) {
        double squares = 0;
        for (int64_t place = 0; place < layout.width / 2; ++place) {
            const int64_t k = kShuffled ? number_at(place) : place;
            const float x = lane < rows && k < dim ? source[lane * dim + k] : 0;
            uint32_t bits, rest;
            __builtin_memcpy(&bits, &x, 4);
            bits = (bits + 0x8000) & 0xffff0000;
            float rounded;
            __builtin_memcpy(&rounded, &bits, 4);
            const float difference = x - rounded;
            __builtin_memcpy(&rest, &difference, 4);
            high[place / 2 * 32 + lane * 2 + place % 2] = static_cast<uint16_t>(bits >> 16);
            low[place / 2 * 32 + lane * 2 + place % 2] = static_cast<uint16_t>((rest + 0x8000) >> 16);
            squares += static_cast<double>(x) * x;
        }
        for (int64_t k = 0; k < dim; ++k) copies[lane * dim + k] = lane < rows ? source[lane * dim + k] : 0;
        norms[lane] = static_cast<float>(__builtin_sqrt(squares));
    }
}

// The first `count` of sixteen numbers of a document, as floats.
template <Dtype dtype>
inline __m512 widen(const char* from, int64_t count) {
    const __mmask16 mask = count >= 16 ? 0xffff : static_cast<__mmask16>((1u << (count < 0 ? 0 : count)) - 1);
    if constexpr (dtype == Dtype::float32) return _mm512_maskz_loadu_ps(mask, from);
    if constexpr (dtype == Dtype::float16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
    if constexpr (dtype == Dtype::bfloat16) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
    }
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, from)));
}

// Rounds to the upper halves, both vectors into one: the first in the even places.
inline __m512i upper_halves(__m512i first, __m512i second) {
    return _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
}

inline __m512i rounded(__m512 x) {
    const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

// Splits rows into hi and lo, and raises `squares`: its sum is at least the square of every norm.
template <Dtype dtype>
inline void split(const char* tokens, int64_t rows, int64_t dim, char* high, char* low, __m512* squares) {
    constexpr int64_t kItem = itemsize(dtype);
    for (int64_t row = 0; row < rows; ++row, tokens += dim * kItem) {
        __m512 norm = _mm512_setzero_ps();
        for (int64_t k = 0; k < dim; k += 32, high += 64, low += 64) {
            const __m512 x = widen<dtype>(tokens + k * kItem, dim - k);
            const __m512 y = widen<dtype>(tokens + (k + 16) * kItem, dim - k - 16);
            norm = _mm512_fmadd_ps(x, x, norm);
            norm = _mm512_fmadd_ps(y, y, norm);
            const __m512i x_high = rounded(x), y_high = rounded(y);
            _mm512_store_si512(high, upper_halves(x_high, y_high));
            const __m512 x_low = _mm512_sub_ps(x, _mm512_castsi512_ps(x_high));
            const __m512 y_low = _mm512_sub_ps(y, _mm512_castsi512_ps(y_high));
            _mm512_store_si512(low, upper_halves(rounded(x_low), rounded(y_low)));
        }
        *squares = _mm512_max_ps(*squares, norm);
    }
}

// Integers up to 127 and bf16 have no lo; only the squares and perhaps a copy are needed.
template <Dtype dtype>
inline Block unsplit(const char* tokens, int64_t rows, int64_t dim, int64_t width, char* scratch, __m512* squares) {
    constexpr int64_t kItem = itemsize(dtype);
    const bool in_place = dtype == Dtype::bfloat16 && rows == kBlock && dim * 2 == width;
    for (int64_t row = 0; row < rows; ++row) {
        __m512 norm = _mm512_setzero_ps();
        const char* token = tokens + row * dim * kItem;
        for (int64_t k = 0; k < width / 2; k += 32) {
            const __m512 x = widen<dtype>(token + k * kItem, dim - k);
            const __m512 y = widen<dtype>(token + (k + 16) * kItem, dim - k - 16);
            norm = _mm512_fmadd_ps(x, x, norm);
            norm = _mm512_fmadd_ps(y, y, norm);
            if (!in_place) {
                const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
                const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(y), 16);
                const __m512i pair = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(low)),
                                                        _mm512_cvtepi32_epi16(high), 1);
                _mm512_store_si512(scratch + row * width + k * 2, pair);
            }
        }
        *squares = _mm512_max_ps(*squares, norm);
    }
    return in_place ? Block{tokens, nullptr, width, width} : Block{scratch, nullptr, width, width};
}

inline void choose(Choice& choice, const char* sums, int64_t rows, int64_t start, int which) {
    __m512 first = choice.first, second = choice.second;
    __m512i best = choice.row, number = _mm512_set1_epi32(static_cast<int>(start));
    const __m512i one = _mm512_set1_epi32(1);
    for (int64_t row = 0; row < rows; ++row) {
        const __m512 x = _mm512_loadu_ps(row_of(sums, row, which));
        const __mmask16 better = _mm512_cmp_ps_mask(x, first, _CMP_GT_OQ);
        second = _mm512_max_ps(second, _mm512_min_ps(x, first));
        first = _mm512_max_ps(x, first);
        best = _mm512_mask_mov_epi32(best, better, number);
        number = _mm512_add_epi32(number, one);
    }
    choice = {first, second, best};
}

// Lanes for which the split cannot tell the best token from the second best.
inline __mmask16 undecided(const Choice& choice, const float* norms, __m512 squares, int64_t width, int products) {
    // Each of the dim terms lacks lo lo and the two remainders after lo, 2^-18 of it each; and each addition of a
    // product rounds, 2^-24 of at most the sum of all magnitudes, which Cauchy-Schwarz bounds by the norms.
    const float each = 3.1f * 0x1p-18f + static_cast<float>(products * (width / 2) + 8) * 0x1.1p-24f;
    const __m512 query = _mm512_loadu_ps(norms);
    const float document = __builtin_sqrtf(_mm512_reduce_add_ps(squares)) * 1.001f;
    const __m512 bound = _mm512_mul_ps(query, _mm512_set1_ps(2 * each * document));
    const __m512 gap = _mm512_sub_ps(choice.first, choice.second);
    __mmask16 result = _knot_mask16(_mm512_cmp_ps_mask(gap, bound, _CMP_GT_OQ));
    // Far from 1 the products may leave the range of normal numbers, where bf16 products become zero.
    const __mmask16 normal = _mm512_cmp_ps_mask(query, _mm512_set1_ps(0x1p-40f), _CMP_GT_OQ) &
                             _mm512_cmp_ps_mask(query, _mm512_set1_ps(0x1p40f), _CMP_LT_OQ);
    if (!(normal == 0xffff && document > 0x1p-40f && document < 0x1p40f)) {
        result |= document > 0x1p-40f && document < 0x1p40f ? static_cast<__mmask16>(~normal) : __mmask16{0xffff};
    }
    return result & _mm512_cmp_ps_mask(query, _mm512_setzero_ps(), _CMP_NEQ_UQ);  // zero queries: nothing to decide
}

template <Dtype dtype>
inline float dot(const float* query, const char* token, int64_t dim) {
    constexpr int64_t kItem = itemsize(dtype);
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int64_t k = 0;
    for (; k + 64 <= dim; k += 64) {
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            sums[part] = _mm512_fmadd_ps(_mm512_loadu_ps(query + k + part * 16),
                                         widen<dtype>(token + (k + part * 16) * kItem, 16), sums[part]);
        }
    }
    for (int part = 0; k < dim; k += 16, ++part) {
        const __m512 rest = widen<Dtype::float32>(reinterpret_cast<const char*>(query + k), dim - k);
        sums[part] = _mm512_fmadd_ps(rest, widen<dtype>(token + k * kItem, dim - k), sums[part]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

template <Dtype dtype>
void split_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                void* result) {
    constexpr bool kSplit = dtype == Dtype::float32 || dtype == Dtype::float16;
    constexpr int kProducts = kSplit ? 3 : 2;
    constexpr int64_t kItem = itemsize(dtype);
    const MaxsimKernel& lanes = lanes_kernel<dtype>();
    const SplitTile tile_layout(dim);
    const SplitScratch layout(dim, count, lanes);
    const char* const documents = static_cast<const char*>(tokens);
    char* const sums = static_cast<char*>(scratch);
    Choice* const choices = reinterpret_cast<Choice*>(sums + layout.choices_at);
    for (int64_t tile = 0; tile < count; ++tile) {
        choices[tile] = {_mm512_set1_ps(-__builtin_inff()), _mm512_set1_ps(-__builtin_inff()), _mm512_setzero_si512()};
    }
    __m512 squares = _mm512_setzero_ps();
    for (int64_t start = 0; start < rows; start += kBlock) {
        const int64_t size = rows - start < kBlock ? rows - start : kBlock;
        const char* const source = documents + start * dim * kItem;
        Block block{sums + 4096, sums + layout.low_at, tile_layout.width, tile_layout.width};
        if constexpr (kSplit) {
            split<dtype>(source, size, dim, sums + 4096, sums + layout.low_at, &squares);
        } else {
            block = unsplit<dtype>(source, size, dim, tile_layout.width, sums + 4096, &squares);
        }
        for (int64_t tile = 0; tile < count; tile += 2) {
            const int pair = count - tile < 2 ? 1 : 2;
            similarities<false, kProducts>(block, size, static_cast<const char*>(tiles) + tile * tile_layout.bytes,
                                           tile_layout.bytes, pair, sums);
            for (int which = 0; which < pair; ++which) choose(choices[tile + which], sums, size, start, which);
        }
    }
    for (int64_t tile = 0; tile < count; ++tile) {
        const char* const base = static_cast<const char*>(tiles) + tile * tile_layout.bytes;
        const float* const queries = reinterpret_cast<const float*>(base + tile_layout.rows_at);
        const float* const norms = reinterpret_cast<const float*>(base + tile_layout.norms_at);
        float* const best = static_cast<float*>(result) + tile * kLanes;
        alignas(64) int32_t winners[kLanes];
        _mm512_store_si512(winners, choices[tile].row);
        for (int lane = 0; lane < kLanes; ++lane) {
            best[lane] = dot<dtype>(queries + lane * dim, documents + winners[lane] * dim * kItem, dim);
        }
        const __mmask16 open = undecided(choices[tile], norms, squares, tile_layout.width, kProducts);
        if (open != 0) {
            lanes.pack(queries, kLanes, dim, sums + layout.lane_tile_at);
            lanes.best(sums + layout.lane_tile_at, 1, tokens, rows, dim, sums + layout.lane_scratch_at,
                       sums + layout.lane_best_at);
            const __m512 sure = _mm512_load_ps(sums + layout.lane_best_at);
            _mm512_mask_storeu_ps(best, open, sure);
        }
    }
}

constexpr MaxsimKernel kInt8 = {native_tile_bytes<true>, native_scratch_bytes<true>, pack_int8, begin, end,
                                native_best<true>};
constexpr MaxsimKernel kBfloat16 = {native_tile_bytes<false>, native_scratch_bytes<false>, pack_bfloat16, begin, end,
                                    native_best<false>};
template <Dtype dtype>
constexpr MaxsimKernel kSplit = {
    split_tile_bytes,
    split_scratch_bytes<dtype>,
    pack_split<dtype == Dtype::float32 || dtype == Dtype::float16>,
    begin,
    end,
    split_best<dtype>,
};

}  // namespace

const MaxsimKernel* maxsim_kernel_amx(QueryKind queries, Dtype documents) {
    if (queries == QueryKind::int8) return &kInt8;
    switch (documents) {
        case Dtype::float32:
            return &kSplit<Dtype::float32>;
        case Dtype::float16:
            return &kSplit<Dtype::float16>;
        case Dtype::bfloat16:
            return queries == QueryKind::bfloat16 ? &kBfloat16 : &kSplit<Dtype::bfloat16>;
        case Dtype::int8:
            return &kSplit<Dtype::int8>;
    }
    return nullptr;
}

}  // namespace lateint
