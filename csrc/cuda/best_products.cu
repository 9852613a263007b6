// best[q, c, i] = max_j <q_i, x_j> over the tokens x_j of a document, decoded from residual codes: int32, exact.
//
// A warp takes a document, 32 tokens at a time. Four lanes decode a token together, four components in a register,
// right into the registers that products on the matrix units read: a piece of a code word is the selector of a byte
// permutation whose table holds the token's levels, and one sum adds four of them to the centroid. The format promises
// that no component leaves its byte, so no carry does. In which order components meet is free as long as query and
// token agree; the query's are put in the order of the codes once.
//
// Defined from outside: NBITS (1, 2, 4 or 8), WIDTH, HIGH (whether centroids have more than 16 bits), and TILES, of 16
// query tokens.
#include "best_products.cuh"

namespace lateint {

constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr int ROWS = TILES * 16;
constexpr int BYTES = WIDTH * NBITS / 8;  // of a token's codes
constexpr int PLANES = 8 / NBITS, HALF = PLANES > 1 ? PLANES / 2 : 1;
constexpr int CODE_WORDS = BYTES / 16;  // of a lane, a quarter of a token
constexpr int WORDS = WIDTH / 16;       // of a lane, decoded
constexpr int STEPS = WIDTH / 32;       // of a product, two words of a lane each
constexpr int GROUPS = 4;               // of 8 tokens, decoded together
constexpr unsigned NIBBLES = NBITS == 1 ? 0x11111111u : NBITS == 2 ? 0x33333333u : ~0u;  // a code in each
static_assert(CODE_WORDS * 16 == BYTES, "a lane has whole words of codes");

// Of shared memory: the rows that each lane gives to a product, in the order of the codes, and what a row's products
// are too large by, since decoded components are 128 larger than they should be.
struct Layout {
    uint4 queries[TILES][STEPS][32];
    int excess[ROWS];
};

// COUNT neighbouring words.
template <int COUNT>
struct Words {
    unsigned values[COUNT];
};

#define LATEINT_LOAD_WORDS(NAME, LOAD)                                                                           \
    template <int COUNT>                                                                                         \
    __device__ inline Words<COUNT> NAME(const void* from) {                                                      \
        static_assert(COUNT == 1 || COUNT == 2 || COUNT % 4 == 0, "1, 2 or whole packs of 4");                   \
        Words<COUNT> out;                                                                                        \
        const unsigned* word = static_cast<const unsigned*>(from);                                               \
        if (COUNT == 1) {                                                                                        \
            asm(LOAD ".u32 %0, [%1];" : "=r"(out.values[0]) : "l"(word));                                        \
        } else if (COUNT == 2) {                                                                                 \
            asm(LOAD ".v2.u32 {%0, %1}, [%2];" : "=r"(out.values[0]), "=r"(out.values[COUNT > 1]) : "l"(word));  \
        } else {                                                                                                 \
            _Pragma("unroll") for (int i = 0; i < COUNT; i += 4) {                                               \
                asm(LOAD ".v4.u32 {%0, %1, %2, %3}, [%4];"                                                       \
                    : "=r"(out.values[i]), "=r"(out.values[(i + 1) % COUNT]), "=r"(out.values[(i + 2) % COUNT]), \
                      "=r"(out.values[(i + 3) % COUNT])                                                          \
                    : "l"(word + i));                                                                            \
            }                                                                                                    \
        }                                                                                                        \
        return out;                                                                                              \
    }
// Centroids, which other tokens have too, stay in L1; codes, which are read once, do not push them out.
LATEINT_LOAD_WORDS(load_words, "ld.global.nc")
LATEINT_LOAD_WORDS(stream_words, "ld.global.nc.L1::no_allocate")

__device__ inline unsigned permute(unsigned low, unsigned high, unsigned selector) {
    unsigned out;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(high), "r"(selector));
    return out;
}

// Levels of a token's codes as tables of bytes, none of them negative: of 1 and 2 bits with `bias` in each byte added;
// of 4 bits the levels of codes from 8 on, and those below, whose level is negative, without their sign.
struct Levels {
    unsigned above[2], below[2], bias;
};

__device__ inline Levels levels_of(unsigned scale) {
    constexpr unsigned ONES = 0x01010101u;
    if (NBITS == 1) {
        const unsigned level = (scale + 4) >> 3;
        return Levels{{level * 0x00000200u, 0}, {0, 0}, level * ONES};
    }
    if (NBITS == 2) {
        const unsigned inner = (scale + 4) >> 3, outer = (3 * scale + 4) >> 3;
        return Levels{{outer * 0x02010100u + inner * 0x00010000u - inner * 0x00000100u, 0}, {0, 0}, outer * ONES};
    }
    Levels out{{0, 0}, {0, 0}, 0};
#pragma unroll
    for (int i = 0; i < 8; ++i) out.above[i / 4] |= ((2 * i + 1) * scale + 16) >> 5 << i % 4 * 8;
    out.below[0] = permute(out.above[1], 0, 0x0123);
    out.below[1] = permute(out.above[0], 0, 0x0123);
    return out;
}

// Four components, each 128 larger than it should be. `select` has a code in each of its lower four nibbles.
__device__ inline unsigned decode_word(const Levels& levels, unsigned select, unsigned centroid) {
    const unsigned sum = centroid ^ 0x80808080u;
    if (NBITS < 4) return sum + permute(levels.above[0], 0, select) - levels.bias;
    // A selector from 8 on gives the sign of a byte, 0 here, in place of the byte: so one of the two is 0.
    return sum + permute(levels.above[0], levels.above[1], select ^ 0x8888u) -
           permute(levels.below[0], levels.below[1], select);
}

// Where the tokens of a document are; of codes and centroids, a lane's quarter.
struct Tokens {
    const char* codes;
    const char* centroids;
    const unsigned char* scales;
    const unsigned short* centroid_low;
    const unsigned char* centroid_high;
};

__device__ inline Tokens tokens_at(const BestProducts& a, int64 first) {
    const int quarter = threadIdx.x % 4 * CODE_WORDS * 4;
    return Tokens{static_cast<const char*>(a.codes) + first * BYTES + quarter,
                  static_cast<const char*>(a.centroids) + quarter, a.scales + first, a.centroid_low + first,
                  a.centroid_high + first};
}

// A lane's quarter of a token, in the order of the codes: of each word of codes the first two bytes of plane p and of
// plane p + PLANES / 2, in turn, then the other two.
__device__ inline void decode(const Tokens& tokens, unsigned token, unsigned depth, unsigned (&out)[WORDS]) {
    const Words<CODE_WORDS> codes = stream_words<CODE_WORDS>(tokens.codes + static_cast<uint64>(token) * BYTES);
    if (NBITS == 8) {
#pragma unroll
        for (int i = 0; i < WORDS; ++i) out[i] = codes.values[i % CODE_WORDS];
        return;
    }
    unsigned id = tokens.centroid_low[token];
    if (HIGH) id |= tokens.centroid_high[token] << 16;
    const Levels levels = levels_of(tokens.scales[token]);
    const char* centroid = tokens.centroids + static_cast<uint64>(id) * depth;
    Words<CODE_WORDS> planes[PLANES];
#pragma unroll
    for (int plane = 0; plane < PLANES; ++plane) planes[plane] = load_words<CODE_WORDS>(centroid + plane * BYTES);
#pragma unroll
    for (int i = 0; i < CODE_WORDS; ++i) {
#pragma unroll
        for (int plane = 0; plane < HALF; ++plane) {
            const unsigned select = codes.values[i] >> plane * NBITS & NIBBLES;
            const unsigned first = planes[plane].values[i], second = planes[(plane + HALF) % PLANES].values[i];
            unsigned* const words = out + (i * HALF + plane) * 2;
            words[0] = decode_word(levels, select, permute(first, second, 0x5140));
            words[1] = decode_word(levels, select >> 16, permute(first, second, 0x7362));
        }
    }
}

// Word `n` of a quarter of a query token, in the same order.
__device__ inline unsigned query_word(const char* row, int quarter, int n) {
    const int at = quarter * CODE_WORDS * 4;
    if (NBITS == 8) return *reinterpret_cast<const unsigned*>(row + at + n * 4);
    const int pair = n / 2, plane = pair % HALF, byte = at + pair / HALF * 4 + n % 2 * 2;
    const unsigned first = *reinterpret_cast<const unsigned short*>(row + plane * BYTES + byte);
    const unsigned second = *reinterpret_cast<const unsigned short*>(row + (plane + HALF) * BYTES + byte);
    return permute(first, second, 0x5140);
}

__device__ inline void load_queries(const BestProducts& a, Layout& shared, int64 first, int length) {
    for (int place = threadIdx.x; place < TILES * STEPS * 32; place += THREADS) {
        const int lane = place % 32, step = place / 32 % STEPS, tile = place / 32 / STEPS;
        const int row = tile * 16 + lane / 4, last = length - 1;
        const char* queries = static_cast<const char*>(a.queries);
        const char* upper = queries + (first + (row < last ? row : last)) * a.depth;
        const char* lower = queries + (first + (row + 8 < last ? row + 8 : last)) * a.depth;
        shared.queries[tile][step][lane] =
            uint4{query_word(upper, lane % 4, step * 2), query_word(lower, lane % 4, step * 2),
                  query_word(upper, lane % 4, step * 2 + 1), query_word(lower, lane % 4, step * 2 + 1)};
    }
    for (int row = threadIdx.x; row < ROWS; row += THREADS) {
        const char* query = static_cast<const char*>(a.queries) + (first + (row < length ? row : length - 1)) * a.depth;
        int sum = 0;
        for (int k = 0; k < WIDTH; ++k) sum += static_cast<signed char>(query[k]);
        shared.excess[row] = 128 * sum;
    }
}

// sum [16, 8] += a [16, 32] b [32, 8]: bytes with a sign, and without.
__device__ inline void multiply(int (&sum)[4], const uint4& a, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

__device__ inline int larger(int x, int y) { return x > y ? x : y; }

// One document; past its end the last token is repeated, which changes no maximum.
__device__ inline void score(const BestProducts& a, const Layout& shared, int64 first, int tokens,
                             int (&best)[TILES][2]) {
    const int lane = threadIdx.x % 32;
    const Tokens at = tokens_at(a, first);
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) best[tile][0] = best[tile][1] = -0x7fffffff - 1;
    for (int start = 0; start < tokens; start += GROUPS * 8) {
        unsigned decoded[GROUPS][WORDS];
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            const int token = start + group * 8 + lane / 4;
            decode(at, token < tokens ? token : tokens - 1, a.depth, decoded[group]);
        }
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            int sums[GROUPS][4] = {};
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const uint4 rows = shared.queries[tile][step][lane];
#pragma unroll
                for (int group = 0; group < GROUPS; ++group) {
                    multiply(sums[group], rows, decoded[group][step * 2], decoded[group][step * 2 + 1]);
                }
            }
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                best[tile][0] = larger(best[tile][0], larger(sums[group][0], sums[group][1]));
                best[tile][1] = larger(best[tile][1], larger(sums[group][2], sums[group][3]));
            }
        }
    }
}

__device__ inline void write(const Layout& shared, int* to, int length, const int (&best)[TILES][2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int found = best[tile][half];
            for (int offset = 1; offset < 4; offset *= 2) {
                found = larger(found, __shfl_xor_sync(ALL_LANES, found, offset));
            }
            const int row = tile * 16 + half * 8 + lane / 4;
            if (lane % 4 == 0 && row < length) to[row] = found - shared.excess[row];
        }
    }
}

// Block (x, y): piece x % pieces of query x / pieces with candidates y * each on.
__device__ inline void best_products(const BestProducts& a, Layout& shared) {
    const int query = blockIdx.x / a.pieces, piece = blockIdx.x % a.pieces;
    const int64 begin = a.query_offsets[query] + piece * ROWS;
    const int left = static_cast<int>(a.query_offsets[query + 1] - begin), length = left < ROWS ? left : ROWS;
    if (length <= 0) return;
    load_queries(a, shared, begin, length);
    __syncthreads();
    const int64 from = static_cast<int64>(blockIdx.y) * a.each;
    const int64 until = from + a.each < a.candidates ? from + a.each : a.candidates;
    for (int64 candidate = from + threadIdx.x / 32; candidate < until; candidate += WARPS) {
        const int64 pair = query * static_cast<int64>(a.candidates) + candidate, position = a.positions[pair];
        if (position < 0) continue;
        const int64 first = a.offsets[position];
        const int tokens = static_cast<int>(a.offsets[position + 1] - first);
        if (tokens == 0) continue;
        int best[TILES][2];
        score(a, shared, first, tokens, best);
        write(shared, a.best + pair * a.longest + piece * ROWS, length, best);
    }
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(lateint::THREADS) best_products(const lateint::BestProducts arguments) {
    extern __shared__ uint4 shared[];
    lateint::best_products(arguments, *reinterpret_cast<lateint::Layout*>(shared));
}
