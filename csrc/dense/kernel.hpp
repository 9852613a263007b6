// What an instruction set offers for MaxSim. No standard library here: these files are compiled with different flags.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"
#include "platform/tiles.hpp"

namespace lateint::dense {

// How far ahead of use documents are fetched: over a page's end, where the hardware's own prefetching stops.
constexpr int64_t kAhead = 4096;

// The kernel for one pairing of element types. Queries arrive as float32 numbers (or int8 if both sides are).
struct Kernel {
    int64_t (*tile_bytes)(int64_t dim);                    // a multiple of 64
    int64_t (*scratch_bytes)(int64_t dim, int64_t tiles);  // what `best` needs, for one thread
    // Writes `rows` <= 16 query tokens as one tile; the other lanes become zero.
    void (*pack)(const void* queries, int rows, int64_t dim, void* tile);
    void (*begin)();  // on the calling thread, before calls of `best`
    void (*end)();
    // best[16 * tile + lane] = max over the document's rows >= 1 of the dot product: float, or int32 for int8.
    // A lane's result depends on nothing but its query token and this document.
    void (*best)(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                 void* best);
};

// What the queries' numbers are known to be.
enum class QueryKind : int { any_float, bfloat16, int8 };

// nullptr: this instruction set has nothing better than the one below it.
const Kernel* kernel_scalar(QueryKind queries, Dtype documents);
#if defined(__x86_64__) || defined(__i386__)
const Kernel* kernel_avx2(QueryKind queries, Dtype documents);
const Kernel* kernel_avx512(QueryKind queries, Dtype documents);
const Kernel* kernel_avx512bf16(QueryKind queries, Dtype documents);
const Kernel* kernel_amx(QueryKind queries, Dtype documents);
const Kernel* screen_kernel_amx(Dtype documents);  // any float queries
const Kernel* sketch_kernel_amx();                 // float queries; `tokens` of `best` points to SketchedTokens
#elif defined(__aarch64__)
const Kernel* kernel_neon(QueryKind queries, Dtype documents);
const Kernel* kernel_dotprod(QueryKind queries, Dtype documents);
const Kernel* kernel_i8mm(QueryKind queries, Dtype documents);
#endif

}  // namespace lateint::dense
