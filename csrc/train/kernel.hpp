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
    // The products themselves, times scales[row] unless that is nullptr: out[row * stride + 16 * tile + lane]. They are
    // the numbers that `best` compares; where the kernel will not vouch for one, or it is not finite, NaN or infinite.
    void (*products)(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim,
                     const float* scales, void* scratch, float* out, int64_t stride);
};

// What is made of products [count][stride], of which the first 16 * tile_count numbers of a row count. Lane by lane:
struct LaneKernel {
    // poison[lane] becomes NaN if a product is not finite, else 0.
    void (*check)(const float* products, int64_t count, int64_t stride, int64_t tile_count, float* poison);
    // The largest product and its number, as `best` of ForwardKernel has them. And the largest one of each `group` rows
    // (the last group may have fewer): groups[16 * tile_count * group + lane].
    void (*largest)(const float* products, int64_t count, int64_t stride, int64_t tile_count, int64_t first,
                    float* best, float* position, int64_t group, float* groups);
    // How many products are not below bound[lane].
    void (*count_from)(const float* products, int64_t count, int64_t stride, int64_t tile_count, const float* bound,
                       float* counts);
    // Which they are: bit `lane` of bits[row * tile_count + tile].
    void (*find_from)(const float* products, int64_t count, int64_t stride, int64_t tile_count, const float* bound,
                      uint16_t* bits);
    // log sum exp of the products x times scales[lane], taken in: largest[lane] is the largest scale x so far and
    // sum[lane] the sum of exp(scale x - largest); at the beginning, -inf and 0.
    void (*log_sum_exp)(const float* products, int64_t count, int64_t stride, int64_t tile_count, const float* scales,
                        float* largest, float* sum);
    // Products become factors[lane] exp(scale x - subtrahends[lane]).
    void (*shares)(float* products, int64_t count, int64_t stride, int64_t tile_count, const float* scales,
                   const float* subtrahends, const float* factors);
    // Adds rows times factors to sums: sums[i] += sum_j factors[i * sum_step + j * row_step] rows[j]. Sums and rows are
    // float32 in rows of `width`, a multiple of 16.
    void (*add_rows)(float* sums, int64_t sum_count, const float* factors, int64_t sum_step, int64_t row_step,
                     const float* rows, int64_t row_count, int64_t width);
    // A token times `factor` as `width` floats, zeros beyond dim.
    void (*widen)(const void* token, Dtype dtype, int64_t dim, float factor, int64_t width, float* out);
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
const LaneKernel& lane_kernel();

// nullptr: this instruction set has nothing better than the one below it.
const ForwardKernel* forward_kernel_scalar(Dtype dtype);
const BackwardKernel* backward_kernel_scalar(Dtype dtype);
const LaneKernel* lane_kernel_scalar();
#if defined(__x86_64__) || defined(__i386__)
const ForwardKernel* forward_kernel_avx2(Dtype dtype);
const ForwardKernel* forward_kernel_avx512(Dtype dtype);
const ForwardKernel* forward_kernel_avx512bf16(Dtype dtype);
const ForwardKernel* forward_kernel_amx(Dtype dtype);
const BackwardKernel* backward_kernel_avx2(Dtype dtype);
const BackwardKernel* backward_kernel_avx512(Dtype dtype);
const LaneKernel* lane_kernel_avx2();
const LaneKernel* lane_kernel_avx512();
#elif defined(__aarch64__)
const ForwardKernel* forward_kernel_neon(Dtype dtype);
const BackwardKernel* backward_kernel_neon(Dtype dtype);
const LaneKernel* lane_kernel_neon();
#endif

}  // namespace lateint::train
