// S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> }, for all pairs, on sm_90a.
//
// Two groups of four warps keep 128 query tokens each in registers, in two halves of 64. One more warp has the copy
// engine bring tiles of COLUMNS document tokens into STAGES buffers. While the products of the lower half are formed,
// the maxima of the upper one are taken; those of the lower one are taken while the other group's products are formed.
// The groups share nothing but the tiles.
//
// Defined from outside: TOKEN, DIM (64 or 128), COLUMNS, STAGES, and FACTORS and ARGMAX, 0 or 1.
#include "forward.cuh"
#include "hopper.cuh"

namespace lateint {

constexpr int GROUPS = 2;
constexpr int WARPS = 4;                      // of a group
constexpr int ROWS = 128;                     // of a group
constexpr int THREADS = GROUPS * WARPS * 32;  // and 128 of which 32 copy
constexpr int STEPS = DIM / 16;
constexpr int PANELS = DIM / SWIZZLED;
static_assert(PANELS * SWIZZLED == DIM, "dim must be swizzled whole");

struct HopperForward {
    TensorMap documents;  // in boxes [COLUMNS, SWIZZLED]
    Forward forward;
};

// Of shared memory; the same sum is in lateint_kernels/dense/cuda/forward.py.
struct Layout {
    TOKEN documents[STAGES][PANELS][COLUMNS * SWIZZLED];
    float column_factors[STAGES][COLUMNS];
    float row_factors[GROUPS][ROWS];
    Best best[GROUPS][2][ROWS];
    Barrier full[STAGES], empty[STAGES];
};

typedef unsigned QueryRows[STEPS][4];
typedef float Products[COLUMNS / 2];

struct Stage {
    int index, parity;
};

__device__ inline void next(Stage& stage) {
    if (++stage.index < STAGES) return;
    stage.index = 0;
    stage.parity ^= 1;
}

__device__ inline Cursor first_item(const Forward& a) {
    Cursor at{static_cast<int64>(blockIdx.y) * a.items_per_block, 0, 0, 0, 0};
    at.end = at.item + a.items_per_block < a.items ? at.item + a.items_per_block : a.items;
    enter(a, at);
    return at;
}

// The copying warp: a tile into every buffer that is free.
__device__ inline void copy_documents(const HopperForward& arguments, Layout& shared) {
    const Forward& a = arguments.forward;
    const int lane = threadIdx.x % 32;
    Stage stage{0, 0};
    for (Cursor at = first_item(a); at.item < at.end; advance(a, at, COLUMNS)) {
        wait_barrier(&shared.empty[stage.index], stage.parity ^ 1);
        if (FACTORS) {
            for (int token = lane; token < COLUMNS; token += 32) {
                const bool there = at.token + token < at.length;
                shared.column_factors[stage.index][token] =
                    there ? a.column_factors[at.begin + at.token + token] : 0.0f;
            }
            __syncwarp();
        }
        if (lane == 0) {
            arrive_expecting(&shared.full[stage.index], COLUMNS * DIM * sizeof(TOKEN));
            for (int panel = 0; panel < PANELS; ++panel) {
                copy_box(shared.documents[stage.index][panel], &arguments.documents, panel * SWIZZLED,
                         static_cast<int>(at.begin) + at.token, &shared.full[stage.index]);
            }
        }
        __syncwarp();
        next(stage);
    }
}

// Two numbers of a query token; zeros for none.
__device__ inline unsigned query_pair(const Forward& a, const Rows& rows, int row, int column) {
    const int token = token_of(a, rows, row, ROWS);
    if (token < 0) return 0;
    const TOKEN* from = static_cast<const TOKEN*>(a.queries) + static_cast<int64>(token) * DIM + column;
    return *reinterpret_cast<const unsigned*>(from);
}

// The rows that this thread gives to the products of a half: of each step, two neighbours in rows l / 4 and 8 below,
// and the two 8 further on.
__device__ inline void load_queries(const Forward& a, const Rows& rows, int half, QueryRows& out) {
    const int lane = threadIdx.x % 32, row = half * 64 + threadIdx.x / 32 % WARPS * 16 + lane / 4;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            out[step][i] = query_pair(a, rows, row + i % 2 * 8, step * 16 + lane % 4 * 2 + i / 2 * 8);
        }
    }
}

// Starts the products of a half with a tile.
__device__ inline void start(const Layout& shared, int stage, const QueryRows& rows, Products& products) {
    begin_products();
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        multiply(products, rows[step], columns_at(shared.documents[stage][step / 4], step % 4), step > 0, TOKEN{});
    }
    commit_products();
}

// Takes the products of a half into the maxima of this thread's two rows. WHOLE: no column is past the document's end.
template <bool WHOLE>
__device__ inline void take_columns(const Layout& shared, int stage, const Products& products, const Cursor& at,
                                    Best (&best)[2]) {
    const int first = threadIdx.x % 4 * 2, limit = at.length - at.token;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; ++i) {
        const int column = first + i / 4 * 8 + i % 2;
        Best& row = best[i / 2 % 2];
        float value = products[i];
        if (FACTORS) {
            const float factor = shared.column_factors[stage][column];
            value = is_absent(factor) ? minus_infinity() : value * factor;
        }
        if (!WHOLE && column >= limit) value = minus_infinity();
        if (ARGMAX && value > row.value) row.position = at.token + column;
        row.value = larger(row.value, value);
    }
}

// Few tiles reach past a document's end. The branch is out of the loop: within it, every tile would be masked, and the
// compiler would move the whole loop below the wait for the products of the other half.
__device__ inline void take(const Layout& shared, int stage, const Products& products, const Cursor& at,
                            Best (&best)[2]) {
    if (at.length - at.token >= COLUMNS) {
        take_columns<true>(shared, stage, products, at, best);
    } else {
        take_columns<false>(shared, stage, products, at, best);
    }
}

// At a document's end: the maxima of a half's rows, into shared memory.
__device__ inline void hand_over(Best* out, int half, Best (&best)[2]) {
    const int lane = threadIdx.x % 32, row = half * 64 + threadIdx.x / 32 % WARPS * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        Best found = best[i];
        for (int offset = 1; offset < 4; offset *= 2) {
            found = better(found, Best{__shfl_xor_sync(ALL_LANES, found.value, offset),
                                       __shfl_xor_sync(ALL_LANES, found.position, offset)});
        }
        if (lane % 4 == 0) out[row + i * 8] = found;
        best[i] = Best{minus_infinity(), 0};
    }
}

// A group of four warps: its query tokens with every tile.
__device__ inline void score(const Forward& a, Layout& shared) {
    const int group = threadIdx.x / 32 / WARPS, lane = threadIdx.x % 32, thread = threadIdx.x % (WARPS * 32);
    const Rows rows = rows_of(a, blockIdx.x * GROUPS + group, 0, ROWS);
    const int token = token_of(a, rows, thread, ROWS);
    shared.row_factors[group][thread] = token < 0 ? 0.0f : a.row_factors ? a.row_factors[token] : 1.0f;
    QueryRows queries[2];
    load_queries(a, rows, 0, queries[0]);
    load_queries(a, rows, 1, queries[1]);
    Products upper, lower;
    Best best[2][2] = {{{minus_infinity(), 0}, {minus_infinity(), 0}}, {{minus_infinity(), 0}, {minus_infinity(), 0}}};

    Stage stage{0, 0};
    int buffer = 0;
    for (Cursor at = first_item(a); at.item < at.end; next(stage)) {
        wait_barrier(&shared.full[stage.index], stage.parity);
        start(shared, stage.index, queries[0], upper);
        start(shared, stage.index, queries[1], lower);
        wait_products<1>(upper);
        take(shared, stage.index, upper, at, best[0]);
        wait_products<0>(lower);
        take(shared, stage.index, lower, at, best[1]);
        __syncwarp();
        if (lane == 0) arrive(&shared.empty[stage.index]);
        const int64 item = at.item;
        advance(a, at, COLUMNS);
        if (at.item == item) continue;
        Best* const found = shared.best[group][buffer];
        hand_over(found, 0, best[0]);
        hand_over(found, 1, best[1]);
        sync_threads(1 + group, WARPS * 32);
        write_item(a, rows, item, found, 1, ROWS, shared.row_factors[group], WARPS);
        buffer ^= 1;
    }
}

// Block (x, y): tiles 2 x and 2 x + 1 of the queries with items y * items_per_block on.
__device__ inline void forward(const HopperForward& arguments, Layout& shared) {
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            init_barrier(&shared.full[stage], 1);
            init_barrier(&shared.empty[stage], GROUPS * WARPS);
        }
        publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        shrink_registers<24>();
        if (threadIdx.x < THREADS + 32) copy_documents(arguments, shared);
    } else {
        grow_registers<240>();
        score(arguments.forward, shared);
    }
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(lateint::THREADS + 128, 1)
    forward_hopper(const __grid_constant__ lateint::HopperForward arguments) {
    extern __shared__ float4 shared[];
    const unsigned past = lateint::shared_address(shared) % 1024;  // the swizzle counts from multiples of 1024
    lateint::forward(arguments,
                     *reinterpret_cast<lateint::Layout*>(reinterpret_cast<char*>(shared) + (1024 - past) % 1024));
}
