// A GPU on the host, slow and strict, for tests: the kernels of csrc/cuda compiled by a host compiler, after this
// header.
//
// Blocks run one after another; the threads of a block are fibers, each running until it waits. What it adds to the
// truth:
// - warps run in rising or falling order, each as far as it can, so that a missing barrier changes the result;
// - shared memory begins as NaN, and what is written outside of it is noticed;
// - asynchronous copies happen at once, or not before they are waited for, whichever the test wants;
// - threads that wait for ever are reported, and so is touching memory that is not there.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EMULATED
#define __global__
#define __device__
#define __shared__
#define __restrict__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int MAX_THREADS = 1024, MAX_BARRIERS = 16, STACK = 256 * 1024, SHARED = 232448;

struct Copy {
    void* to;
    const void* from;
    int bytes, zeros;
};

struct Group {
    Copy copies[256];
    int count;
};

struct Fiber {
    jmp_buf state;
    ucontext_t start;
    bool started, done, polled;  // polled: it looked for something, in vain, when it ran last
    int barrier;                 // it waits at; -1: none. Barriers of the block come first, then one for each warp.
    Group groups[16];
    int committed;  // groups not yet done; groups[committed] is being filled
};

inline Fiber* fibers = static_cast<Fiber*>(std::calloc(MAX_THREADS, sizeof(Fiber)));
inline char* stacks = static_cast<char*>(std::malloc(static_cast<size_t>(MAX_THREADS) * STACK));
inline jmp_buf scheduler;
inline int current, threads, wanted[MAX_BARRIERS];
inline bool lazy;  // asynchronous copies happen as late as they may
inline void (*kernel)();
inline char error[200];
alignas(16) inline unsigned char slots[MAX_THREADS][64];  // for what lanes of a warp exchange

inline void yield() {
    if (!_setjmp(fibers[current].state)) _longjmp(scheduler, 1);
}

[[noreturn]] inline void fail(const char* message) {
    if (!error[0])
        std::snprintf(error, sizeof error, "%s (block %u, %u, thread %d)", message, blockIdx.x, blockIdx.y, current);
    _longjmp(scheduler, 1);
}

inline void wait(int barrier) {
    fibers[current].barrier = barrier;
    yield();
}

inline void wait_block(int barrier, int count) {
    if (wanted[barrier] && wanted[barrier] != count) fail("a barrier is used with two counts");
    wanted[barrier] = count;
    wait(barrier);
}

inline void wait_warp() { wait(MAX_BARRIERS + current / 32); }

template <typename T>
T exchange(T mine, int lane) {
    static_assert(sizeof(T) <= 64, "");
    std::memcpy(slots[current], &mine, sizeof(T));
    wait_warp();
    T other;
    std::memcpy(&other, slots[current / 32 * 32 + lane % 32], sizeof(T));
    wait_warp();
    return other;
}

inline void run_copy(const Copy& copy) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
}

inline void run_groups(int keep) {
    Fiber& fiber = fibers[current];
    while (fiber.committed > keep) {
        for (int i = 0; i < fiber.groups[0].count; ++i) run_copy(fiber.groups[0].copies[i]);
        std::memmove(fiber.groups, fiber.groups + 1, sizeof(Group) * fiber.committed);
        --fiber.committed;
        fiber.groups[fiber.committed + 1].count = 0;
    }
}

inline void run_fiber() {
    kernel();
    fibers[current].done = true;
    _longjmp(scheduler, 1);
}

inline void resume(int thread) {
    current = thread;
    threadIdx = {static_cast<unsigned>(thread), 0, 0};
    Fiber& fiber = fibers[thread];
    fiber.polled = false;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.state, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks + static_cast<size_t>(thread) * STACK;
    fiber.start.uc_stack.ss_size = STACK;
    makecontext(&fiber.start, run_fiber, 0);
    setcontext(&fiber.start);
}

// Lets the threads at a barrier go on if all of [first, last) that it is for have come; whether it did.
inline bool release(int barrier, int first, int last, int need) {
    int waiting = 0, alive = 0;
    for (int t = first; t < last; ++t) {
        alive += !fibers[t].done;
        waiting += !fibers[t].done && fibers[t].barrier == barrier;
    }
    if (!waiting || waiting < (need ? need : alive)) return false;
    for (int t = first; t < last; ++t) {
        if (fibers[t].barrier == barrier) fibers[t].barrier = -1;
    }
    return true;
}

// Runs a warp until all its threads are done or wait for other warps; whether anything happened.
inline bool run_warp(int warp, bool backwards) {
    const int first = warp * 32, last = first + 32 < threads ? first + 32 : threads;
    bool happened = false, again = true;
    while (again && !error[0]) {
        again = false;
        for (int i = first; i < last && !error[0]; ++i) {
            const int t = backwards ? first + last - 1 - i : i;
            if (fibers[t].done || fibers[t].barrier >= 0) continue;
            resume(t);
            again = again || !fibers[t].polled;
        }
        again = release(MAX_BARRIERS + warp, first, last, 0) || again;
        happened = happened || again;
    }
    return happened;
}

// A warp runs as far as it can before the next one does, so that a missing barrier lets it run too far.
inline void run_block(bool backwards) {
    for (int t = 0; t < threads; ++t) {
        fibers[t].started = fibers[t].done = false;
        fibers[t].barrier = -1;
        fibers[t].committed = 0;
        fibers[t].groups[0].count = 0;
    }
    const int warps = (threads + 31) / 32;
    while (!error[0]) {
        bool happened = false, alive = false;
        for (int warp = 0; warp < warps; ++warp)
            happened = run_warp(backwards ? warps - 1 - warp : warp, backwards) || happened;
        for (int barrier = 0; barrier < MAX_BARRIERS; ++barrier) {
            if (!release(barrier, 0, threads, wanted[barrier])) continue;
            wanted[barrier] = 0;
            happened = true;
        }
        for (int t = 0; t < threads; ++t) alive = alive || !fibers[t].done;
        if (!alive) return;
        if (!happened && !error[0]) {
            std::snprintf(error, sizeof error, "threads of block %u, %u wait for ever", blockIdx.x, blockIdx.y);
        }
    }
}

}  // namespace emulation

// What `extern __shared__` names, and a margin that must stay as it is.
alignas(1024) float4 shared[(emulation::SHARED + 1024) / sizeof(float4)];

namespace emulation {

struct sigaction before;

// While kernels run, touching memory that is not there ends the fiber, not the process.
inline void watch_memory() {
    struct sigaction action = {};
    action.sa_handler = [](int) { fail("touched memory that is not there"); };
    action.sa_flags = SA_NODEFER;  // the handler is left by a jump
    sigaction(SIGSEGV, &action, &before);
}

inline void leave_memory() { sigaction(SIGSEGV, &before, nullptr); }

inline const char* run_grid(unsigned shared_bytes, bool backwards) {
    for (unsigned z = 0; z < gridDim.z; ++z) {
        for (unsigned y = 0; y < gridDim.y; ++y) {
            for (unsigned x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                std::memset(shared, 0xff, sizeof shared);
                run_block(backwards);
                if (error[0]) return error;
                for (unsigned i = shared_bytes; i < sizeof shared; ++i) {
                    if (reinterpret_cast<unsigned char*>(shared)[i] != 0xff) return "wrote outside of shared memory";
                }
            }
        }
    }
    return nullptr;
}

}  // namespace emulation

// Runs a kernel; null, or what went wrong.
inline const char* emulate(void (*kernel)(), const unsigned* grid, unsigned block, unsigned shared_bytes, int mode) {
    emulation::kernel = kernel;
    emulation::threads = static_cast<int>(block);
    emulation::lazy = mode & 2;
    emulation::error[0] = 0;
    blockDim = {block, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    if (shared_bytes > emulation::SHARED) return "too much shared memory";
    emulation::watch_memory();
    const char* const error = emulation::run_grid(shared_bytes, mode & 1);
    emulation::leave_memory();
    return error;
}

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline void __syncthreads() { emulation::wait(0); }

inline void __syncwarp() { emulation::wait_warp(); }

template <typename T>
T __shfl_sync(unsigned, T x, int lane) {
    return emulation::exchange(x, lane);
}

template <typename T>
T __shfl_xor_sync(unsigned, T x, int mask) {
    return emulation::exchange(x, (emulation::current % 32) ^ mask);
}

inline unsigned __ballot_sync(unsigned, bool mine) {
    emulation::slots[emulation::current][0] = mine;
    emulation::wait_warp();
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) {
        bits |= static_cast<unsigned>(emulation::slots[emulation::current / 32 * 32 + lane][0]) << lane;
    }
    emulation::wait_warp();
    return bits;
}

// Threads run until they wait, so whatever happens between two waits is atomic.
template <typename T, typename U>
T atomicAdd(T* there, U x) {
    const T old = *there;
    *there = old + static_cast<T>(x);
    return old;
}

inline unsigned atomicMax(unsigned* there, unsigned x) {
    const unsigned old = *there;
    if (x > old) *there = x;
    return old;
}

inline int atomicCAS(int* there, int expected, int x) {
    const int old = *there;
    if (old == expected) *there = x;
    return old;
}

inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}

namespace lateint {

struct bf16;
struct fp16;

inline float half_to_float(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31  ? (mantissa ? NAN : INFINITY)
                       : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    return bits >> 15 ? -size : size;
}

// To nearest, ties to even.
inline unsigned short float_to_half(float x) {
    const unsigned bits = __float_as_uint(x), size = bits & 0x7fffffffu, sign = bits >> 31 << 15;
    if (size > 0x7f800000u) return 0x7fff;
    if (size >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);
    if (size < 0x38800000u) return static_cast<unsigned short>(sign | std::lrint(std::ldexp(std::fabs(x), 24)));
    return static_cast<unsigned short>(sign | (((size + 0xfffu + (size >> 13 & 1u)) >> 13) - (112u << 10)));
}

inline float element(unsigned pair, int which, const fp16*) {
    return half_to_float(static_cast<unsigned short>(pair >> which * 16));
}

inline float element(unsigned pair, int which, const bf16*) { return __uint_as_float(pair >> which * 16 << 16); }

inline void copy_async(const emulation::Copy& copy) {
    emulation::Fiber& fiber = emulation::fibers[emulation::current];
    emulation::Group& group = fiber.groups[fiber.committed];
    if (!emulation::lazy) return emulation::run_copy(copy);
    if (group.count == sizeof group.copies / sizeof *group.copies) emulation::fail("too many copies in a group");
    group.copies[group.count++] = copy;
}

inline void copy_async16(void* to, const void* from, bool there) {
    if (reinterpret_cast<size_t>(to) % 16 || reinterpret_cast<size_t>(from) % 16)
        emulation::fail("a copy is not aligned");
    copy_async({to, from, there ? 16 : 0, there ? 0 : 16});
}

inline void copy_async4(void* to, const void* from, bool there) {
    copy_async({to, from, there ? 4 : 0, there ? 0 : 4});
}

inline void commit_copies() {
    emulation::Fiber& fiber = emulation::fibers[emulation::current];
    if (fiber.committed == sizeof fiber.groups / sizeof *fiber.groups - 2) emulation::fail("too many groups of copies");
    fiber.groups[++fiber.committed].count = 0;
}

template <int KEEP>
void wait_copies() {
    emulation::run_groups(KEEP);
}

inline void load_matrices(unsigned (&out)[4], const void* row) {
    const int lane = emulation::current % 32;
    if (reinterpret_cast<size_t>(row) % 16) emulation::fail("a row of a matrix is not aligned");
    for (int m = 0; m < 4; ++m) {
        const void* const there = emulation::exchange(row, m * 8 + lane / 4);
        std::memcpy(&out[m], static_cast<const char*>(there) + lane % 4 * 4, 4);
    }
}

struct Fragments {
    unsigned a[4], b[2];
};

// Fragments as the PTX manual draws them for m16n8k16: a lane holds rows l / 4 (and 8 more) of a, column l / 4 of b.
template <typename T>
void multiply(float (&sum)[4], const unsigned* a, unsigned b0, unsigned b1, T) {
    using namespace emulation;
    const int lane = current % 32, warp = current / 32 * 32;
    const Fragments mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
    std::memcpy(slots[current], &mine, sizeof mine);
    wait_warp();
    for (int c = 0; c < 4; ++c) {
        const int row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
        for (int k = 0; k < 16; ++k) {
            Fragments left, right;
            std::memcpy(&left, slots[warp + row % 8 * 4 + k % 8 / 2], sizeof left);
            std::memcpy(&right, slots[warp + column * 4 + k % 8 / 2], sizeof right);
            const T* const type = nullptr;
            sum[c] += element(left.a[row / 8 + k / 8 * 2], k % 2, type) * element(right.b[k / 8], k % 2, type);
        }
    }
    wait_warp();
}

inline float larger(float x, float y) { return x != x || y != y ? x + y : x > y ? x : y; }

// What is in a barrier of shared memory: 8 bytes, as on the GPU.
struct Phase {
    unsigned short wanted, arrived;
    int bytes : 31;
    unsigned parity : 1;
};
static_assert(sizeof(Phase) == 8, "");

struct TensorMap;

// What the emulated TensorMap holds.
struct Matrix {
    const char* numbers;  // of 16 bits
    long long rows, columns, box_rows;
};

struct Box {
    char* to;
    Matrix from;
    int column, row;
    Phase* barrier;
};

inline Box boxes[64];  // on their way, when copies are late
inline int box_count;

inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(static_cast<const char*>(pointer) - reinterpret_cast<const char*>(shared));
}

inline unsigned swizzle(unsigned address) { return address ^ (address >> 7 & 7) << 4; }

inline void settle(Phase* barrier) {
    if (barrier->arrived < barrier->wanted || barrier->bytes) return;
    barrier->arrived = 0;
    barrier->parity ^= 1;
}

inline void init_barrier(unsigned long long* barrier, int arrivals) {
    *reinterpret_cast<Phase*>(barrier) = Phase{static_cast<unsigned short>(arrivals), 0, 0, 0};
}

inline void publish_barriers() {}

inline void arrive_expecting(unsigned long long* barrier, int bytes) {
    Phase* const phase = reinterpret_cast<Phase*>(barrier);
    phase->bytes += bytes;
    ++phase->arrived;
    settle(phase);
}

inline void arrive(unsigned long long* barrier) { arrive_expecting(barrier, 0); }

inline void run_box(const Box& box) {
    char* const memory = reinterpret_cast<char*>(shared);
    for (int r = 0; r < box.from.box_rows; ++r) {
        for (int c = 0; c < 128; ++c) {
            const long long row = box.row + r, column = box.column + c / 2;
            const bool there = row < box.from.rows && column < box.from.columns;
            memory[swizzle(shared_address(box.to) + r * 128 + c)] =
                there ? box.from.numbers[(row * box.from.columns + column) * 2 + c % 2] : 0;
        }
    }
    box.barrier->bytes -= static_cast<int>(box.from.box_rows) * 128;
    settle(box.barrier);
}

inline void copy_box(void* to, const TensorMap* map, int column, int row, unsigned long long* barrier) {
    if (shared_address(to) % 1024) emulation::fail("a swizzled box is not aligned");
    Box box{static_cast<char*>(to), {}, column, row, reinterpret_cast<Phase*>(barrier)};
    std::memcpy(&box.from, map, sizeof box.from);
    if (!emulation::lazy) return run_box(box);
    if (box_count == sizeof boxes / sizeof *boxes) emulation::fail("too many boxes on their way");
    boxes[box_count++] = box;
}

inline void wait_barrier(unsigned long long* barrier, int parity) {
    Phase* const phase = reinterpret_cast<Phase*>(barrier);
    int kept = 0;
    for (int i = 0; i < box_count; ++i) {
        if (boxes[i].barrier == phase) {
            run_box(boxes[i]);
        } else {
            boxes[kept++] = boxes[i];
        }
    }
    box_count = kept;
    while (phase->parity == static_cast<unsigned>(parity)) {
        emulation::fibers[emulation::current].polled = true;
        emulation::yield();
    }
}

inline void sync_threads(int barrier, int count) { emulation::wait_block(barrier, count); }

template <int COUNT>
void shrink_registers() {}

template <int COUNT>
void grow_registers() {}

// One product of a warpgroup, as a warp's rows of it.
struct Product {
    unsigned a[4];
    unsigned long long columns;
    float* sum;
    int width, group;
    bool add;
    float (*element)(unsigned, int);
};

inline Product products[emulation::MAX_THREADS][64];  // under way, when they are late
inline int product_count[emulation::MAX_THREADS], product_groups[emulation::MAX_THREADS];

inline void run_product(const Product& product) {
    using namespace emulation;
    const int lane = current % 32, warp = current / 32 * 32;
    const unsigned start = static_cast<unsigned>(product.columns & 0x3fff) << 4;
    const unsigned eight_rows = static_cast<unsigned>(product.columns >> 32 & 0x3fff) << 4;
    if (product.columns >> 62 != 1) fail("columns are not swizzled by 128 bytes");
    std::memcpy(slots[current], product.a, sizeof product.a);
    wait_warp();
    for (int i = 0; i < product.width / 2; ++i) {
        const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        float sum = product.add ? product.sum[i] : 0.0f;
        for (int k = 0; k < 16; ++k) {
            unsigned left[4], right = 0;
            std::memcpy(left, slots[warp + row % 8 * 4 + k % 8 / 2], sizeof left);
            const unsigned place = swizzle(start + column / 8 * eight_rows + column % 8 * 128 + k * 2);
            std::memcpy(&right, reinterpret_cast<const char*>(shared) + place, 2);
            sum += product.element(left[row / 8 + k / 8 * 2], k % 2) * product.element(right, 0);
        }
        product.sum[i] = sum;
    }
    wait_warp();
}

template <typename T>
float element_of(unsigned pair, int which) {
    return element(pair, which, static_cast<const T*>(nullptr));
}

inline void begin_products() {}

template <int COUNT, typename T>
void multiply(float (&sum)[COUNT], const unsigned (&a)[4], unsigned long long columns, bool add, T) {
    const int thread = emulation::current;
    const Product product{{a[0], a[1], a[2], a[3]}, columns, sum,           COUNT * 2,
                          product_groups[thread],   add,     &element_of<T>};
    if (!emulation::lazy) return run_product(product);
    if (product_count[thread] == sizeof products[0] / sizeof(Product)) emulation::fail("too many products under way");
    products[thread][product_count[thread]++] = product;
    for (float& x : sum) x = add ? x : __uint_as_float(0x7fc00000u);
}

inline void commit_products() { ++product_groups[emulation::current]; }

template <int KEEP, int COUNT>
void wait_products(float (&)[COUNT]) {
    const int thread = emulation::current;
    int done = 0;
    while (done < product_count[thread] && products[thread][done].group < product_groups[thread] - KEEP) {
        run_product(products[thread][done++]);
    }
    product_count[thread] -= done;
    std::memmove(products[thread], products[thread] + done, sizeof(Product) * product_count[thread]);
}

}  // namespace lateint
