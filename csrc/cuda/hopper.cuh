// What sm_90a adds: copies of whole tiles by the copy engine (TMA), barriers in shared memory that count them, and
// products of matrices issued by four warps together (wgmma).
#pragma once

#include "tensor_core.cuh"

namespace lateint {

typedef unsigned long long Barrier;

// A CUtensorMap: where a matrix is, and in which boxes it is copied.
struct alignas(64) TensorMap {
    unsigned char bytes[128];
};

// Rows of 64 numbers of 16 bits, 128 bytes, are stored with the 16-byte pieces of each permuted by the row's number.
constexpr int SWIZZLED = 64;

__device__ inline void init_barrier(Barrier* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Makes new barriers known to the copy engine; a barrier of the block must follow.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and has the barrier wait for so many bytes too.
__device__ inline void arrive_expecting(Barrier* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// Until the phase of this parity is over.
__device__ inline void wait_barrier(Barrier* barrier, int parity) {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
        "@!over bra again;\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Copies the box of the matrix that begins at this column and row; what is outside of the matrix is zeros.
__device__ inline void copy_box(void* to, const TensorMap* map, int column, int row, Barrier* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(shared_address(to)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
        : "memory");
}

// Among `threads` of the block.
__device__ inline void sync_threads(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Registers of a thread from here on: given back, or taken from those given back. For four warps together.
template <int COUNT>
__device__ inline void shrink_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ inline void grow_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Before products that use registers written since the last ones.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most KEEP groups of products are under way. The sums named are not moved across it by the compiler.
template <int KEEP, int COUNT>
__device__ inline void wait_products(float (&sums)[COUNT]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(KEEP) : "memory");
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define REGISTERS_0 "%0, %1, %2, %3"
#define REGISTERS_4 "%4, %5, %6, %7"
#define REGISTERS_8 "%8, %9, %10, %11"
#define REGISTERS_12 "%12, %13, %14, %15"
#define REGISTERS_16 "%16, %17, %18, %19"
#define REGISTERS_20 "%20, %21, %22, %23"
#define REGISTERS_24 "%24, %25, %26, %27"
#define REGISTERS_28 "%28, %29, %30, %31"
#define REGISTERS_32 "%32, %33, %34, %35"
#define REGISTERS_36 "%36, %37, %38, %39"
#define REGISTERS_40 "%40, %41, %42, %43"
#define REGISTERS_44 "%44, %45, %46, %47"
#define REGISTERS_48 "%48, %49, %50, %51"
#define REGISTERS_52 "%52, %53, %54, %55"
#define REGISTERS_56 "%56, %57, %58, %59"
#define REGISTERS_60 "%60, %61, %62, %63"
#define SUMS(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define LATEINT_WGMMA_OF(N, T, TYPE, REGISTERS, ROWS, COLUMNS, ADD, ...)                                               \
    __device__ inline void multiply(float (&sum)[N / 2], const unsigned (&a)[4], unsigned long long columns, bool add, \
                                    T) {                                                                               \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N          \
                     "k16.f32." TYPE "." TYPE " {" REGISTERS "}, {" ROWS "}, " COLUMNS ", add, 1, 1, 0;\n}\n"          \
                     : __VA_ARGS__                                                                                     \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(columns), "r"(static_cast<int>(add)));          \
    }
// sum [64, N] (+)= a [64, 16] b [16, N]: rows in registers, columns described by columns_at.
#define LATEINT_WGMMA(N, ...)                      \
    LATEINT_WGMMA_OF(N, bf16, "bf16", __VA_ARGS__) \
    LATEINT_WGMMA_OF(N, fp16, "f16", __VA_ARGS__)
LATEINT_WGMMA(64,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28,
              "%32, %33, %34, %35", "%36", "%37", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28))
LATEINT_WGMMA(80,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28 ", " REGISTERS_32 ", " REGISTERS_36,
              "%40, %41, %42, %43", "%44", "%45", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28), SUMS(32), SUMS(36))
LATEINT_WGMMA(96,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28 ", " REGISTERS_32 ", " REGISTERS_36 ", " REGISTERS_40
                          ", " REGISTERS_44,
              "%48, %49, %50, %51", "%52", "%53", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28), SUMS(32), SUMS(36), SUMS(40), SUMS(44))
LATEINT_WGMMA(104,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28 ", " REGISTERS_32 ", " REGISTERS_36 ", " REGISTERS_40
                          ", " REGISTERS_44 ", " REGISTERS_48,
              "%52, %53, %54, %55", "%56", "%57", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28), SUMS(32), SUMS(36), SUMS(40), SUMS(44), SUMS(48))
LATEINT_WGMMA(112,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28 ", " REGISTERS_32 ", " REGISTERS_36 ", " REGISTERS_40
                          ", " REGISTERS_44 ", " REGISTERS_48 ", " REGISTERS_52,
              "%56, %57, %58, %59", "%60", "%61", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28), SUMS(32), SUMS(36), SUMS(40), SUMS(44), SUMS(48), SUMS(52))
LATEINT_WGMMA(128,
              REGISTERS_0 ", " REGISTERS_4 ", " REGISTERS_8 ", " REGISTERS_12 ", " REGISTERS_16 ", " REGISTERS_20
                          ", " REGISTERS_24 ", " REGISTERS_28 ", " REGISTERS_32 ", " REGISTERS_36 ", " REGISTERS_40
                          ", " REGISTERS_44 ", " REGISTERS_48 ", " REGISTERS_52 ", " REGISTERS_56 ", " REGISTERS_60,
              "%64, %65, %66, %67", "%68", "%69", SUMS(0), SUMS(4), SUMS(8), SUMS(12), SUMS(16), SUMS(20), SUMS(24),
              SUMS(28), SUMS(32), SUMS(36), SUMS(40), SUMS(44), SUMS(48), SUMS(52), SUMS(56), SUMS(60))

// Describes a matrix of columns, 16 numbers of each, in swizzled rows: eight rows are 1024 bytes.
__device__ inline unsigned long long columns_at(const void* rows, int step) {
    const unsigned long long address = shared_address(rows) + step * 32;
    return (address & 0x3ffff) >> 4 | 1ull << 16 | 1024ull >> 4 << 32 | 1ull << 62;
}

}  // namespace lateint
