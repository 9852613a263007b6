// Training's products with the tile registers of AMX: sixteen document tokens by sixteen query tokens per instruction.
//
// The hardware multiplies bf16 numbers and adds the exact products up in float32. A float16 number is exactly the sum
// of two bf16 numbers and a float32 number of three, so four or nine such products are exactly the product of two
// numbers: still faster than multiplying float32. Only parts below 2^-126 are lost, which the hardware takes for zero:
// the last bits of numbers below 2^-102.
#include <immintrin.h>

#include "platform/tiles_amx.hpp"
#include "train/kernel.hpp"

namespace lateint::train {
namespace {

constexpr int64_t kBlock = 32;        // document tokens: two tile registers
constexpr int64_t kSumsBytes = 4096;  // of a block and two query tiles

// How a number becomes bf16: a token is kPieces rows of `width` bytes, one after the other.
template <Dtype dtype>
constexpr int kPieces = dtype == Dtype::float32   ? 3
                        : dtype == Dtype::float16 ? 2
                                                  : 1;

int64_t width(int64_t dim) { return align64(dim * 2); }

template <Dtype dtype>
int64_t row_bytes(int64_t dim) {
    return width(dim) * kPieces<dtype>;
}
template <Dtype dtype>
int64_t tile_bytes(int64_t dim) {
    return row_bytes<dtype>(dim) * kLanes;
}

// ---- packing ----

// The first `count` of sixteen numbers as floats.
template <Dtype dtype>
inline __m512 widen(const char* from, int64_t count) {
    const __mmask16 mask = count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
    if constexpr (dtype == Dtype::float32) return _mm512_maskz_loadu_ps(mask, from);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
}

// Whether a number is neither zero nor at least 2^-40.
inline bool has_small(__m512 x) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    const __m512i one = _mm512_set1_epi32(1);
    return _mm512_cmplt_epu32_mask(_mm512_sub_epi32(bits, one), _mm512_set1_epi32(((127 - 40) << 23) - 1)) != 0;
}

// One token as the kernel multiplies it: the first 8 bits of each number, the next 8, and so on. Number i of 32 goes to
// place 2 i if i < 16, else to 2 (i - 16) + 1, because that needs no shuffle; a sum does not mind.
template <Dtype dtype>
inline void pack_row(const char* from, int64_t dim, char* to) {
    bool small = false;
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    const int64_t bytes = width(dim);
    for (int64_t k = 0; k < bytes / 2; k += 32) {
        const char* const here = from + k * itemsize(dtype);
        if constexpr (dtype == Dtype::bfloat16) {
            const __mmask32 mask = dim - k >= 32 ? ~__mmask32{0} : (__mmask32{1} << (dim - k)) - 1;
            _mm512_storeu_si512(to + k * 2, _mm512_maskz_loadu_epi16(mask, here));
        } else {
            __m512 even = widen<dtype>(here, dim - k), odd = widen<dtype>(here + 16 * itemsize(dtype), dim - k - 16);
            if constexpr (dtype == Dtype::float32) small |= has_small(even) || has_small(odd);
#pragma GCC unroll 3
            for (int piece = 0; piece < kPieces<dtype>; ++piece) {
                const __m512i first = _mm512_and_si512(_mm512_castps_si512(even), upper);
                const __m512i second = _mm512_and_si512(_mm512_castps_si512(odd), upper);
                _mm512_storeu_si512(to + piece * bytes + k * 2, _mm512_or_si512(_mm512_srli_epi32(first, 16), second));
                even = _mm512_sub_ps(even, _mm512_castsi512_ps(first));
                odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(second));
            }
        }
    }
    if (small) {  // makes every product of this token NaN
        const uint16_t nan = 0x7fc0;
        __builtin_memcpy(to, &nan, sizeof nan);
    }
}

template <Dtype dtype>
void pack_documents(const void* tokens, const int32_t* positions, int64_t count, int64_t dim, void* rows) {
    for (int64_t row = 0; row < count; ++row) {
        const int64_t from = positions != nullptr ? positions[row] : row;
        pack_row<dtype>(static_cast<const char*>(tokens) + from * dim * itemsize(dtype), dim,
                        static_cast<char*>(rows) + row * row_bytes<dtype>(dim));
    }
}

// Columns of a 16 x 16 matrix of 32-bit numbers, from its rows.
inline void transpose(__m512i* x) {
    __m512i y[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(a, c);
        y[i + 1] = _mm512_unpackhi_epi64(a, c);
        y[i + 2] = _mm512_unpacklo_epi64(b, d);
        y[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; ++i) {
        const __m512i a = _mm512_shuffle_i32x4(y[i], y[i + 4], 0x88), b = _mm512_shuffle_i32x4(y[i], y[i + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0xdd);
        x[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        x[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        x[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

// [bytes / 4][16 lanes][4 bytes]
template <Dtype dtype>
void pack_queries(const void* queries, const int64_t* rows, int count, int64_t dim, void* tile) {
    char* const target = static_cast<char*>(tile);
    for (int64_t k = 0; k < width(dim); k += 64) {
        alignas(64) char part[kPieces<dtype>][kLanes][64] = {};
        for (int lane = 0; lane < count; ++lane) {
            alignas(64) char both[kPieces<dtype> * 64];
            const int64_t left = dim - k / 2;
            pack_row<dtype>(static_cast<const char*>(queries) + (rows[lane] * dim + k / 2) * itemsize(dtype),
                            left < 32 ? left : 32, both);
            for (int piece = 0; piece < kPieces<dtype>; ++piece) {
                __builtin_memcpy(part[piece][lane], both + piece * 64, 64);
            }
        }
        for (int piece = 0; piece < kPieces<dtype>; ++piece) {
            __m512i lanes[kLanes];
            for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = _mm512_load_si512(part[piece][lane]);
            transpose(lanes);
            char* const to = target + (piece * width(dim) + k) * kLanes;
            for (int step = 0; step < 16; ++step) _mm512_store_si512(to + step * 64, lanes[step]);
        }
    }
}

// ---- products ----

// Products that wait to be taken in: of a block of document tokens with one or two tiles.
struct Pending {
    const char* sums;  // [2 tiles][32 document tokens][16]
    const float* scales;
    int64_t rows;
    float first;  // the number of the block's first token
    int tiles;
    float *best, *position;
};

// The largest product of each lane, where it is, and NaN once a product was not finite.
struct Leaders {
    __m512 best[2], position[2], poison[2];

    inline __attribute__((always_inline)) void load(const Pending& from) {
        for (int tile = 0; tile < 2; ++tile) {
            const int at = tile < from.tiles ? tile * kLanes : 0;
            best[tile] = _mm512_loadu_ps(from.best + at);
            position[tile] = _mm512_loadu_ps(from.position + at);
            poison[tile] = _mm512_setzero_ps();
        }
    }
    inline __attribute__((always_inline)) void store(const Pending& to) const {
        for (int tile = to.tiles - 1; tile >= 0; --tile) {
            _mm512_storeu_ps(to.best + tile * kLanes, _mm512_add_ps(best[tile], poison[tile]));
            _mm512_storeu_ps(to.position + tile * kLanes, position[tile]);
        }
    }
    inline __attribute__((always_inline)) void take(const Pending& from, int64_t begin, int64_t end) {
        __m512 number = _mm512_set1_ps(from.first + static_cast<float>(begin));
        for (int64_t row = begin; row < end; ++row) {
            const __m512 scale = _mm512_set1_ps(from.scales != nullptr ? from.scales[row] : 1);
#pragma GCC unroll 2
            for (int tile = 0; tile < 2; ++tile) {
                __m512 product = _mm512_load_ps(from.sums + tile * (kSumsBytes / 2) + row * 64);
                if (from.scales != nullptr) product = _mm512_mul_ps(product, scale);
                const __mmask16 wins = _mm512_cmp_ps_mask(product, best[tile], _CMP_GT_OQ);
                position[tile] = _mm512_mask_mov_ps(position[tile], wins, number);
                best[tile] = _mm512_mask_mov_ps(best[tile], wins, product);
                poison[tile] = _mm512_fmadd_ps(product, _mm512_setzero_ps(), poison[tile]);
            }
            number = _mm512_add_ps(number, _mm512_set1_ps(1));
        }
    }
};

// Registers 0-3 are sums [document tile][query tile], 4-5 documents, 6-7 queries.
inline __attribute__((always_inline)) void load_and_multiply(const char* documents, int64_t stride, const char* queries,
                                                             int64_t tile_stride) {
    _tile_loadd(4, documents, stride);
    _tile_loadd(5, documents + 16 * stride, stride);
    _tile_loadd(6, queries, 64);
    _tile_loadd(7, queries + tile_stride, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// The same as the first step of a block: each sum of the block before goes to memory just before its register is
// needed, so that storing and multiplying overlap.
inline __attribute__((always_inline)) void store_and_multiply(const char* documents, int64_t stride,
                                                              const char* queries, int64_t tile_stride, char* before) {
    _tile_loadd(4, documents, stride);
    _tile_loadd(6, queries, 64);
    _tile_stored(0, before, 64);
    _tile_zero(0);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, queries + tile_stride, 64);
    _tile_stored(1, before + kSumsBytes / 2, 64);
    _tile_zero(1);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, documents + 16 * stride, stride);
    _tile_stored(2, before + 1024, 64);
    _tile_zero(2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_stored(3, before + kSumsBytes / 2 + 1024, 64);
    _tile_zero(3);
    _tile_dpbf16ps(3, 5, 7);
}

inline void store_all(char* sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + kSumsBytes / 2, 64);
    _tile_stored(2, sums + 1024, 64);
    _tile_stored(3, sums + kSumsBytes / 2 + 1024, 64);
    memory_barrier();
}

// Multiplies a block. The tile unit works on its own; meanwhile the vector unit takes in the block before.
template <int kNumberPieces>
inline void multiply_block(const char* rows, int64_t stride, const char* tiles, int64_t tile_stride, char* before,
                           const Pending& pending) {
    const int64_t piece = stride / kNumberPieces, steps = piece / 64 * kNumberPieces * kNumberPieces;
    const int64_t share = steps > 1 ? (kBlock + steps - 2) / (steps - 1) : kBlock;
    int64_t taken = 0;
    Leaders leaders;
    memory_barrier();
    for (int pair = kNumberPieces * kNumberPieces - 1; pair >= 0; --pair) {  // the small ones first
        const char* const documents = rows + pair / kNumberPieces * piece;
        const char* const queries = tiles + pair % kNumberPieces * piece * kLanes;
        int64_t k = 0;
        if (pair == kNumberPieces * kNumberPieces - 1) {
            store_and_multiply(documents, stride, queries, tile_stride, before);
            memory_barrier();
            leaders.load(pending);
            k = 64;
        }
        for (; k < piece; k += 64) {
            load_and_multiply(documents + k, stride, queries + k * kLanes, tile_stride);
            const int64_t end = taken + share < pending.rows ? taken + share : pending.rows;
            leaders.take(pending, taken, end);
            taken = end;
        }
    }
    leaders.take(pending, taken, pending.rows);
    leaders.store(pending);
}

template <Dtype dtype>
int64_t scratch_bytes(int64_t dim) {
    return kSumsBytes + kBlock * row_bytes<dtype>(dim);
}

// Document tokens that stay in the first cache while all tiles go over them.
int64_t chunk_rows(int64_t stride) {
    const int64_t rows = (16 << 10) / stride / kBlock * kBlock;
    return rows < kBlock ? kBlock : rows;
}

template <Dtype dtype>
void best(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim, const float* scales,
          int64_t first, void* scratch, float* best, float* position) {
    const int64_t stride = row_bytes<dtype>(dim), rest = count % kBlock, most = chunk_rows(stride);
    const char* const from = static_cast<const char*>(rows);
    char* const sums = static_cast<char*>(scratch);
    char* const last_rows = sums + kSumsBytes;  // tile registers are filled whole, and there may be no more memory
    __builtin_memcpy(last_rows, from + (count - rest) * stride, static_cast<size_t>(rest * stride));
    __builtin_memset(last_rows + rest * stride, 0, static_cast<size_t>((kBlock - rest) * stride));
    Pending pending = {sums, nullptr, 0, 0, 0, best, position};
    for (int64_t start = 0; start < count; start += most) {
        const int64_t end = start + most < count ? start + most : count;
        for (int64_t tile = 0; tile < tile_count; tile += 2) {
            const bool two = tile + 1 < tile_count;  // a last tile is multiplied twice instead
            const char* const queries = static_cast<const char*>(tiles) + tile * tile_bytes<dtype>(dim);
            for (int64_t row = start; row < end; row += kBlock) {
                multiply_block<kPieces<dtype>>(end - row < kBlock ? last_rows : from + row * stride, stride, queries,
                                               two ? tile_bytes<dtype>(dim) : 0, sums, pending);
                pending = {sums,
                           scales != nullptr ? scales + row : nullptr,
                           end - row < kBlock ? end - row : kBlock,
                           static_cast<float>(first + row),
                           two ? 2 : 1,
                           best + tile * kLanes,
                           position + tile * kLanes};
            }
        }
    }
    store_all(sums);
    Leaders leaders;
    leaders.load(pending);
    leaders.take(pending, 0, pending.rows);
    leaders.store(pending);
}

// Multiplies a block with two tiles, in the order of multiply_block; sums stay in registers 0-3.
template <int kNumberPieces>
inline void multiply_alone(const char* rows, int64_t stride, const char* tiles, int64_t tile_stride) {
    const int64_t piece = stride / kNumberPieces;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    memory_barrier();
    for (int pair = kNumberPieces * kNumberPieces - 1; pair >= 0; --pair) {
        const char* const documents = rows + pair / kNumberPieces * piece;
        const char* const queries = tiles + pair % kNumberPieces * piece * kLanes;
        for (int64_t k = 0; k < piece; k += 64) {
            load_and_multiply(documents + k, stride, queries + k * kLanes, tile_stride);
        }
    }
}

template <Dtype dtype>
void products(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim, const float* scales,
              void* scratch, float* out, int64_t out_stride) {
    const int64_t stride = row_bytes<dtype>(dim), rest = count % kBlock;
    const char* const from = static_cast<const char*>(rows);
    char* const sums = static_cast<char*>(scratch);
    char* const last_rows = sums + kSumsBytes;
    __builtin_memcpy(last_rows, from + (count - rest) * stride, static_cast<size_t>(rest * stride));
    __builtin_memset(last_rows + rest * stride, 0, static_cast<size_t>((kBlock - rest) * stride));
    for (int64_t tile = 0; tile < tile_count; tile += 2) {
        const bool two = tile + 1 < tile_count;
        const char* const queries = static_cast<const char*>(tiles) + tile * tile_bytes<dtype>(dim);
        for (int64_t row = 0; row < count; row += kBlock) {
            const int64_t size = count - row < kBlock ? count - row : kBlock;
            multiply_alone<kPieces<dtype>>(size < kBlock ? last_rows : from + row * stride, stride, queries,
                                           two ? tile_bytes<dtype>(dim) : 0);
            store_all(sums);
            for (int64_t i = 0; i < size; ++i) {
                const __m512 scale = _mm512_set1_ps(scales != nullptr ? scales[row + i] : 1);
                for (int other = 0; other < (two ? 2 : 1); ++other) {
                    const __m512 product = _mm512_load_ps(sums + other * (kSumsBytes / 2) + i * 64);
                    _mm512_storeu_ps(out + (row + i) * out_stride + (tile + other) * kLanes,
                                     scales != nullptr ? _mm512_mul_ps(product, scale) : product);
                }
            }
        }
    }
}

template <Dtype dtype>
bool direct(int64_t dim) {
    return dtype == Dtype::bfloat16 && width(dim) == dim * 2;
}

template <Dtype dtype>
constexpr ForwardKernel kKernel = {tile_bytes<dtype>,   row_bytes<dtype>,      direct<dtype>,   scratch_bytes<dtype>,
                                   pack_queries<dtype>, pack_documents<dtype>, configure_tiles, release_tiles,
                                   best<dtype>,         products<dtype>};

}  // namespace

const ForwardKernel* forward_kernel_amx(Dtype dtype) {
    if (dtype == Dtype::bfloat16) return &kKernel<Dtype::bfloat16>;
    return dtype == Dtype::float16 ? &kKernel<Dtype::float16> : &kKernel<Dtype::float32>;
}

}  // namespace lateint::train
