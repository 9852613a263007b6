// What an instruction set offers for training. No standard library here: these files are compiled with different flags.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"
#include "platform/tiles.hpp"

namespace lateint::train {

// Query tokens times document tokens. Queries lie in tiles of 16 lanes; rows of documents are multiplied against them
// where they are if the kernel can read them so, else from a copy in the kernel's own form.
struct ForwardKernel {
    int64_t (*tile_bytes)(int64_t dim);  // a multiple of 64
    int64_t (*row_bytes)(int64_t dim);   // of a document token in the kernel's form
    bool (*direct)(int64_t dim);         // whether that is the form in which documents come
    int64_t (*scratch_bytes)(int64_t dim);
    // Writes `count` <= 16 query tokens, those with numbers rows[0..count), as one tile; other lanes become zero.
    void (*pack_queries)(const void* queries, const int64_t* rows, int count, int64_t dim, void* tile);
    // Writes document tokens in the kernel's form: those numbered positions[0..count), or the first `count`.
    void (*pack_documents)(const void* tokens, const int32_t* positions, int64_t count, int64_t dim, void* rows);
    void (*begin)();  // on the calling thread, before calls of `best`
    void (*end)();
    // Takes `count` document tokens in, whose numbers begin at `first`: best[16 * tile + lane] is the largest product,
    // times scales[row] unless that is nullptr, and position[] the number of the first token that has it. Both hold the
    // result of the tokens before; at the beginning, -inf and 0. A lane becomes
    // NaN where a product is no finite number, or where the kernel will not vouch for it.
    void (*best)(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim,
                 const float* scales, int64_t first, void* scratch, float* best, float* position);
};

// A row, and what it is multiplied with.
struct Term {
    int32_t source;
    float factor;
};

// The next `count` terms, added to sum row `target`.
struct Run {
    int32_t target, count;
};

constexpr int kTermsAhead = 6;  // terms are followed by so many more, whose rows are only fetched

// Sums of token rows, in float32 rows of `sum_stride` numbers.
struct BackwardKernel {
    // The terms of a run are added up one by one, and then added to its sum.
    void (*accumulate)(float* sums, const void* rows, int64_t dim, const Run* runs, int64_t count, const Term* terms);
    // Of `sum_stride` numbers, zeros beyond dim, and a row.
    float (*dot)(const float* sum, const void* row, int64_t dim);
    // out = factor * (sum - projection * row), rounded to the rows' type.
    void (*finish)(const float* sum, const void* row, float factor, float projection, int64_t dim, void* out);
};

constexpr int64_t sum_stride(int64_t dim) { return (dim + 15) / 16 * 16; }

// The best for the instruction set in use.
const ForwardKernel& forward_kernel(Dtype dtype);
const BackwardKernel& backward_kernel(Dtype dtype);

// nullptr: this instruction set has nothing better than the one below it.
const ForwardKernel* forward_kernel_scalar(Dtype dtype);
const BackwardKernel* backward_kernel_scalar(Dtype dtype);
#if defined(__x86_64__) || defined(__i386__)
const ForwardKernel* forward_kernel_avx2(Dtype dtype);
const ForwardKernel* forward_kernel_avx512(Dtype dtype);
const ForwardKernel* forward_kernel_avx512bf16(Dtype dtype);
const ForwardKernel* forward_kernel_amx(Dtype dtype);
const BackwardKernel* backward_kernel_avx2(Dtype dtype);
const BackwardKernel* backward_kernel_avx512(Dtype dtype);
#elif defined(__aarch64__)
const ForwardKernel* forward_kernel_neon(Dtype dtype);
const BackwardKernel* backward_kernel_neon(Dtype dtype);
#endif

}  // namespace lateint::train
