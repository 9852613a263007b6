// Products that find candidates: any float by any float. The tile unit multiplies the nearest bf16 of both, which is
// not exact, but its error has a proven bound: only document tokens that come within twice that bound of a lane's best
// can be the true best. Those few are computed again, in float32.
#include "dense/candidates_amx.hpp"
#include "dense/tiles_amx.hpp"

namespace lateint::dense {
namespace {

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
    __m512 top;          // the best product sum
    float best[kLanes];  // the best of the dot products computed in float32
};

struct ScreenScratch {
    int64_t lanes_at, candidates_at, bytes;
    ScreenScratch(int64_t dim, int64_t tiles)
        : lanes_at(chunk_scratch_bytes(ScreenTile(dim).width)),
          candidates_at(lanes_at + tiles * static_cast<int64_t>(sizeof(Lanes))),
          bytes(candidates_at + Candidates::bytes(chunk_rows(ScreenTile(dim).width))) {}
};

int64_t screen_tile_bytes(int64_t dim) { return ScreenTile(dim).bytes; }

int64_t screen_scratch_bytes(int64_t dim, int64_t tiles) { return ScreenScratch(dim, tiles).bytes; }

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
    Lanes* const lanes;
    const Candidates candidates;
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
        // in the tile unit and dim in the float32 product.
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

    // Computes the candidates of a chunk: all tokens for lanes that are not normal, none for those that are zero.
    void finish(int64_t tile, int count, const char* sums, int64_t start, int64_t size) const {
        const __m512 largest = _mm512_set1_ps(-2 * largest_norm());
        for (int which = 0; which < count; ++which) {
            Lanes& known = lanes[tile + which];
            const char* const base = tiles + (tile + which) * layout.bytes;
            const __mmask16 asked =
                _mm512_cmp_ps_mask(_mm512_load_ps(base + layout.norms_at), _mm512_setzero_ps(), _CMP_NEQ_UQ);
            const __mmask16 sure = normal(tile + which), always = asked & _knot_mask16(sure);
            const __m512 least = _mm512_fmadd_ps(bound(tile + which), largest, known.top);
            const int64_t found = candidates.list(size, [&](int64_t row) __attribute__((always_inline)) {
                const __m512 sum = _mm512_load_ps(sums_of(sums, row, which));
                return always | _mm512_mask_cmp_ps_mask(sure, sum, least, _CMP_GE_OQ);
            });
            candidates.template compute<dtype>(found, reinterpret_cast<const float*>(base + layout.rows_at),
                                               documents + start * row_bytes(), dim, known.best);
        }
    }
};

template <Dtype dtype>
void screen_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* result) {
    const ScreenTile tile_layout(dim);
    const ScreenScratch layout(dim, count);
    char* const base = static_cast<char*>(scratch);
    Lanes* const lanes = reinterpret_cast<Lanes*>(base + layout.lanes_at);
    for (int64_t tile = 0; tile < count; ++tile) {
        lanes[tile].top = lowest_float();
        _mm512_store_ps(lanes[tile].best, lowest_float());
    }
    Screen<dtype> work{dim,
                       tile_layout.width,
                       static_cast<const char*>(tiles),
                       tile_layout,
                       static_cast<const char*>(tokens),
                       lanes,
                       Candidates(base + layout.candidates_at, chunk_rows(tile_layout.width)),
                       _mm512_setzero_ps()};
    over_blocks(work, work.tiles, tile_layout.bytes, count, work.documents, rows, base);
    for (int64_t tile = 0; tile < count; ++tile) {
        const __m512 norm = _mm512_load_ps(work.tiles + tile * tile_layout.bytes + tile_layout.norms_at);
        const __mmask16 zero = _mm512_cmp_ps_mask(norm, _mm512_setzero_ps(), _CMP_EQ_OQ);
        const __m512 best = _mm512_maskz_mov_ps(_knot_mask16(zero), _mm512_load_ps(lanes[tile].best));
        _mm512_storeu_ps(static_cast<char*>(result) + tile * 64, best);
    }
}

template <Dtype dtype>
constexpr Kernel kScreen = {
    screen_tile_bytes, screen_scratch_bytes, pack_screen<kShuffled<dtype>>,
    configure_tiles,   release_tiles,        screen_best<dtype>,
};

}  // namespace

const Kernel* screen_kernel_amx(Dtype documents) {
    switch (documents) {
        case Dtype::float32:
            return &kScreen<Dtype::float32>;
        case Dtype::float16:
            return &kScreen<Dtype::float16>;
        case Dtype::bfloat16:
            return &kScreen<Dtype::bfloat16>;
        case Dtype::int8:
            return &kScreen<Dtype::int8>;
    }
    return nullptr;
}

}  // namespace lateint::dense
