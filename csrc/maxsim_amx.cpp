// MaxSim with the tile registers of AMX: sixteen document tokens by sixteen query tokens per instruction.
//
// bf16 by bf16 and int8 by int8 are what the hardware multiplies. Of other floats it multiplies the nearest bf16, which
// is not exact, but its error has a proven bound: only document tokens that come within twice that bound of a lane's
// best can be the true best. Those few are computed again, in float32.
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
int64_t chunk_rows(int64_t width) {
    const int64_t rows = (32 << 10) / width / kBlock * kBlock;
    return rows < 2 * kBlock ? 2 * kBlock : rows > kMostRows ? kMostRows : rows;
}

int64_t chunk_scratch_bytes(int64_t width) {
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

// ---- products that are what was asked for: bf16 by bf16, int8 by int8 ----

template <bool kInteger>
int64_t native_tile_bytes(int64_t dim) {
    return align64(dim * (kInteger ? 1 : 2)) * 16;
}

template <bool kInteger>
int64_t native_scratch_bytes(int64_t dim, int64_t) {
    return chunk_scratch_bytes(align64(dim * (kInteger ? 1 : 2)));
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

// ---- products that find candidates: any float by any float ----

// A tile is bf16 [width / 4][16][2], then the float32 rows [16][dim], their norms [16] and their rounding errors'
// norms.
struct ScreenTile {
    int64_t width;  // bytes of a token as bf16
    int64_t rows_at, norms_at, errors_at, bytes;
    explicit ScreenTile(int64_t dim)
        : width(align64(dim * 2)),
          rows_at(width * 16),
          norms_at(rows_at + align64(dim * 4 * 16)),
          errors_at(norms_at + 64),
          bytes(errors_at + 64) {}
};

// What is known of a tile's lanes.
struct Lanes {
    __m512 top;                // the best product sum
    float best[kLanes];        // the best of the dot products computed in float32
    int32_t computed[kLanes];  // how many those were
};

struct ScreenScratch {
    int64_t lanes_at, hits_at, sure_at, tile_at, scratch_at, bytes;
    ScreenScratch(int64_t dim, int64_t tiles, const MaxsimKernel& sure)
        : lanes_at(chunk_scratch_bytes(ScreenTile(dim).width)),
          hits_at(lanes_at + tiles * static_cast<int64_t>(sizeof(Lanes))),
          sure_at(hits_at + 2 * (chunk_rows(ScreenTile(dim).width) + 16) * 4),
          tile_at(sure_at + 64),
          scratch_at(tile_at + sure.tile_bytes(dim)),
          bytes(scratch_at + sure.scratch_bytes(dim, 1)) {}
};

// The kernel for lanes with too many candidates.
template <Dtype dtype>
const MaxsimKernel& sure_kernel() {
    return *maxsim_kernel_avx512(QueryKind::any_float, dtype);
}

int64_t screen_tile_bytes(int64_t dim) { return ScreenTile(dim).bytes; }

template <Dtype dtype>
int64_t screen_scratch_bytes(int64_t dim, int64_t tiles) {
    return ScreenScratch(dim, tiles, sure_kernel<dtype>()).bytes;
}

// Documents become bf16 32 numbers at a time; number i of them goes to place 2 i if i < 16, else to 2 (i - 16) + 1,
// because that needs no shuffle. Queries are packed in the same order, and a sum does not mind.
inline int64_t number_at(int64_t place) { return place / 32 * 32 + place % 32 / 2 + place % 2 * 16; }

// Whether documents are multiplied in that order.
template <Dtype dtype>
constexpr bool kShuffled = dtype != Dtype::bfloat16;

inline void add_squares(__m512 x, __m512d* sums) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    sums[0] = _mm512_fmadd_pd(low, low, sums[0]);
    sums[1] = _mm512_fmadd_pd(high, high, sums[1]);
}

inline void store_roots(const __m512d* squares, char* to) {
    _mm256_store_ps(reinterpret_cast<float*>(to), _mm512_cvtpd_ps(_mm512_sqrt_pd(squares[0])));
    _mm256_store_ps(reinterpret_cast<float*>(to + 32), _mm512_cvtpd_ps(_mm512_sqrt_pd(squares[1])));
}

template <bool kShuffle>
void pack_screen(const void* queries, int rows, int64_t dim, void* tile) {
    const ScreenTile layout(dim);
    const float* const source = static_cast<const float*>(queries);
    char* const base = static_cast<char*>(tile);
    float* const copies = reinterpret_cast<float*>(base + layout.rows_at);
    __builtin_memcpy(copies, source, static_cast<size_t>(rows * dim * 4));
    __builtin_memset(copies + rows * dim, 0, static_cast<size_t>((kLanes - rows) * dim * 4));
    const __m512i offsets = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                               _mm512_set1_epi32(static_cast<int>(dim)));
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    __m512d squares[2] = {}, error_squares[2] = {};
    for (int64_t place = 0; place < layout.width / 2; place += 2) {
        __m512i near[2];
        for (int i = 0; i < 2; ++i) {  // number k of all lanes
            const int64_t k = kShuffle ? number_at(place + i) : place + i;
            const __m512 x = k < dim ? _mm512_i32gather_ps(offsets, copies + k, 4) : _mm512_setzero_ps();
            near[i] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), upper);
            const __m512 error = _mm512_sub_ps(x, _mm512_castsi512_ps(near[i]));
            add_squares(x, squares);
            add_squares(error, error_squares);
        }
        _mm512_store_si512(base + place * 32, _mm512_or_si512(_mm512_srli_epi32(near[0], 16), near[1]));
    }
    store_roots(squares, base + layout.norms_at);
    store_roots(error_squares, base + layout.errors_at);
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
    for (; k < dim; k += 16) {
        const __m512 rest = widen<Dtype::float32>(reinterpret_cast<const char*>(query + k), dim - k);
        sums[0] = _mm512_fmadd_ps(rest, widen<dtype>(token + k * kItem, dim - k), sums[0]);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

// In each 128-bit part: the sums of the four parts' lanes.
inline __m512 transposed_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}

template <Dtype dtype>
struct Screen {
    static constexpr bool kInteger = false, kKeep = true;
    static constexpr int64_t kItem = itemsize(dtype);
    // How far a document's numbers may be from what is multiplied, relative to themselves.
    static constexpr float kRounding = dtype == Dtype::float32 || dtype == Dtype::float16 ? 0x1p-8f : 0;
    const int64_t dim, padded;  // padded: bytes of a token as bf16
    const char* const tiles;
    const ScreenTile layout;
    const char* const documents;
    const int64_t rows;
    Lanes* const lanes;
    int32_t* const hits;
    __m512 squares;  // the largest square of a document token's norm so far, in some lane

    int64_t row_bytes() const { return dim * kItem; }
    int64_t width() const { return padded; }
    bool in_place(int64_t size) const { return dtype == Dtype::bfloat16 && size == kBlock && dim * 2 == padded; }

    void ready(const char* from, int64_t size, int64_t begin, int64_t end, char* to) {
        const bool copy = !in_place(size);
        int64_t row = begin;
        for (; row + 4 <= end; row += 4) {
            __m512 norms[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i)
                norms[i] = ready_row(from + (row + i) * row_bytes(), to + (row + i) * padded, copy);
            const __m512 sums = transposed_sums(norms[0], norms[1], norms[2], norms[3]);
            const __m512 halves = _mm512_add_ps(sums, _mm512_shuffle_f32x4(sums, sums, 0x4e));
            squares = _mm512_max_ps(squares, _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, 0xb1)));
        }
        for (; row < end; ++row) {
            const __m512 norm = ready_row(from + row * row_bytes(), to + row * padded, copy);
            squares = _mm512_max_ps(squares, _mm512_set1_ps(_mm512_reduce_add_ps(norm)));
        }
    }
    // Returns the squares of the token's norm, spread over lanes.
    __m512 ready_row(const char* token, char* to, bool copy) const {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        int64_t k = 0;
        for (; k + 32 <= dim; k += 32) ready_part(token + k * kItem, 32, to + k * 2, copy, even, odd);
        if (k < dim) ready_part(token + k * kItem, dim - k, to + k * 2, copy, even, odd);
        return _mm512_add_ps(even, odd);
    }
    static inline __attribute__((always_inline)) void ready_part(const char* from, int64_t count, char* to, bool copy,
                                                                 __m512& even, __m512& odd) {
        const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
        _mm_prefetch(from + kAhead, _MM_HINT_T1);
        if constexpr (kItem == 4) _mm_prefetch(from + kAhead + 64, _MM_HINT_T1);
        if constexpr (dtype == Dtype::bfloat16) {
            const __mmask32 mask = count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
            const __m512i pairs = _mm512_maskz_loadu_epi16(mask, from);
            if (copy) _mm512_store_si512(to, pairs);
            const __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
            const __m512 y = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
            even = _mm512_fmadd_ps(x, x, even);
            odd = _mm512_fmadd_ps(y, y, odd);
        } else {
            const __m512 x = widen<dtype>(from, count), y = widen<dtype>(from + 16 * kItem, count - 16);
            const __m512i half = _mm512_set1_epi32(kRounding > 0 ? 0x8000 : 0);
            const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(x), half), 16);
            const __m512i high = _mm512_add_epi32(_mm512_castps_si512(y), half);
            _mm512_store_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaa, low, high));
            even = _mm512_fmadd_ps(x, x, even);
            odd = _mm512_fmadd_ps(y, y, odd);
        }
    }

    template <int kTiles>
    void fold(int64_t tile, const char* sums, int64_t size) const {
#pragma GCC unroll 2
        for (int which = 0; which < kTiles; ++which) {
            fold_floats(reinterpret_cast<char*>(&lanes[tile + which].top), sums_of(sums, 0, which), size);
        }
    }

    // A dot product of the roundings differs from the true one by at most this, per unit of the document token's norm.
    __m512 bound(int64_t tile) const {
        const char* const base = tiles + tile * layout.bytes;
        const __m512 norm = _mm512_load_ps(base + layout.norms_at), error = _mm512_load_ps(base + layout.errors_at);
        // Cauchy-Schwarz: |<q, d> - <q', d'>| <= |q - q'| |d| + |q'| |d - d'|, and 2^-24 for each rounded addition: dim
        // in the tile unit and dim in the float32 product, so that not even its rounding could make a refused token
        // win. What is computed is therefore the largest float32 product, whatever the order in which candidates turn
        // up.
        const float relative = 1.01f * (kRounding + static_cast<float>(padded + 8) * 0x1p-24f);
        return _mm512_fmadd_ps(norm, _mm512_set1_ps(relative), _mm512_mul_ps(error, _mm512_set1_ps(1.01f)));
    }
    float largest_norm() const { return __builtin_sqrtf(_mm512_reduce_max_ps(squares)) * 1.001f; }

    // Lanes whose products stay far from the limits of float32, where bf16 products become zero or infinite.
    __mmask16 normal(int64_t tile) const {
        const __m512 norm = _mm512_load_ps(tiles + tile * layout.bytes + layout.norms_at);
        const float document = largest_norm();
        if (!(document > 0x1p-40f && document < 0x1p40f)) return 0;
        return _mm512_cmp_ps_mask(norm, _mm512_set1_ps(0x1p-40f), _CMP_GT_OQ) &
               _mm512_cmp_ps_mask(norm, _mm512_set1_ps(0x1p40f), _CMP_LT_OQ);
    }

    // More candidates than this in a lane, and the whole document is computed in float32 instead.
    int32_t limit() const { return static_cast<int32_t>(16 + rows / 8); }

    int32_t* masks() const { return hits + chunk_rows(padded) + 16; }

    // Lists the rows, in `hits`, with a product sum of at least `least`, and of which lanes, in masks(); how many.
    int64_t candidates(const char* sums, int64_t size, int which, __m512 least, __mmask16 asked) const {
        alignas(64) uint16_t all[kMostRows];
        for (int64_t row = 0; row < size; row += kBlock) {
            const char* const block = sums_of(sums, row, which);
#pragma GCC unroll 8
            for (int64_t i = 0; i < kBlock; ++i) {  // rows past the end are of an earlier block, and skipped below
                all[row + i] = _mm512_mask_cmp_ps_mask(asked, _mm512_load_ps(block + i * 64), least, _CMP_GE_OQ);
            }
        }
        int64_t found = 0;
        const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        for (int64_t row = 0; row < size; row += 16) {
            const __mmask16 here = size - row >= 16 ? 0xffff : static_cast<__mmask16>((1u << (size - row)) - 1);
            const __m512i sixteen =
                _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(all + row)));
            const __mmask16 any = _mm512_mask_test_epi32_mask(here, sixteen, sixteen);
            const __m512i numbers = _mm512_add_epi32(places, _mm512_set1_epi32(static_cast<int>(row)));
            _mm512_storeu_si512(hits + found, _mm512_maskz_compress_epi32(any, numbers));
            _mm512_storeu_si512(masks() + found, _mm512_maskz_compress_epi32(any, sixteen));
            found += __builtin_popcount(any);
        }
        return found;
    }

    // Computes the candidates of a chunk. A token that is refused here is worse than one that was computed.
    void finish(int64_t tile, int count, const char* sums, int64_t start, int64_t size) const {
        const __m512 largest = _mm512_set1_ps(-2 * largest_norm());
        for (int which = 0; which < count; ++which) {
            Lanes& known = lanes[tile + which];
            const __m512 least = _mm512_fmadd_ps(bound(tile + which), largest, known.top);
            const int64_t found = candidates(sums, size, which, least, normal(tile + which));
            const char* const base = tiles + (tile + which) * layout.bytes;
            const float* const queries = reinterpret_cast<const float*>(base + layout.rows_at);
            for (int64_t i = 0; i < found; ++i) {
                const char* const token = documents + (start + hits[i]) * row_bytes();
                for (uint32_t left = static_cast<uint32_t>(masks()[i]); left != 0; left &= left - 1) {
                    const int lane = __builtin_ctz(left);
                    if (++known.computed[lane] > limit()) continue;
                    const float value = dot<dtype>(queries + lane * dim, token, dim);
                    known.best[lane] = value > known.best[lane] ? value : known.best[lane];
                }
            }
        }
    }
};

template <Dtype dtype>
void screen_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* result) {
    const MaxsimKernel& sure = sure_kernel<dtype>();
    const ScreenTile tile_layout(dim);
    const ScreenScratch layout(dim, count, sure);
    char* const base = static_cast<char*>(scratch);
    Lanes* const lanes = reinterpret_cast<Lanes*>(base + layout.lanes_at);
    for (int64_t tile = 0; tile < count; ++tile) {
        lanes[tile].top = lowest_float();
        _mm512_store_ps(lanes[tile].best, lowest_float());
        _mm512_store_si512(lanes[tile].computed, _mm512_setzero_si512());
    }
    Screen<dtype> work{dim,
                       tile_layout.width,
                       static_cast<const char*>(tiles),
                       tile_layout,
                       static_cast<const char*>(tokens),
                       rows,
                       lanes,
                       reinterpret_cast<int32_t*>(base + layout.hits_at),
                       _mm512_setzero_ps()};
    over_blocks(work, work.tiles, tile_layout.bytes, count, work.documents, rows, base);
    for (int64_t tile = 0; tile < count; ++tile) {
        const char* const packed = work.tiles + tile * tile_layout.bytes;
        const __m512 norm = _mm512_load_ps(packed + tile_layout.norms_at);
        const __mmask16 zero = _mm512_cmp_ps_mask(norm, _mm512_setzero_ps(), _CMP_EQ_OQ);
        const __mmask16 many = _mm512_cmp_epi32_mask(_mm512_load_si512(lanes[tile].computed),
                                                     _mm512_set1_epi32(work.limit()), _MM_CMPINT_GT);
        const __mmask16 open = (many | _knot_mask16(work.normal(tile))) & _knot_mask16(zero);
        __m512 best = _mm512_maskz_mov_ps(_knot_mask16(zero), _mm512_load_ps(lanes[tile].best));
        if (open != 0) {
            sure.pack(packed + tile_layout.rows_at, kLanes, dim, base + layout.tile_at);
            sure.best(base + layout.tile_at, 1, tokens, rows, dim, base + layout.scratch_at, base + layout.sure_at);
            best = _mm512_mask_mov_ps(best, open, _mm512_load_ps(base + layout.sure_at));
        }
        _mm512_storeu_ps(static_cast<char*>(result) + tile * 64, best);
    }
}

constexpr MaxsimKernel kInt8 = {native_tile_bytes<true>, native_scratch_bytes<true>, pack_int8, begin, end,
                                native_best<true>};
constexpr MaxsimKernel kBfloat16 = {native_tile_bytes<false>, native_scratch_bytes<false>, pack_bfloat16, begin, end,
                                    native_best<false>};
template <Dtype dtype>
constexpr MaxsimKernel kScreen = {
    screen_tile_bytes, screen_scratch_bytes<dtype>, pack_screen<kShuffled<dtype>>, begin, end, screen_best<dtype>,
};

}  // namespace

const MaxsimKernel* maxsim_kernel_amx(QueryKind queries, Dtype documents) {
    if (queries == QueryKind::int8) return &kInt8;
    switch (documents) {
        case Dtype::float32:
            return &kScreen<Dtype::float32>;
        case Dtype::float16:
            return &kScreen<Dtype::float16>;
        case Dtype::bfloat16:
            return queries == QueryKind::bfloat16 ? &kBfloat16 : &kScreen<Dtype::bfloat16>;
        case Dtype::int8:
            return &kScreen<Dtype::int8>;
    }
    return nullptr;
}

}  // namespace lateint
