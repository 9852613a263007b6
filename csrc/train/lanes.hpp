// The training kernels shared by the instruction sets with vectors of floats. Each includes this with its own flags, so
// everything here has internal linkage: no two copies may ever be taken for one another.
//
// Sixteen query tokens lie in the lanes of a tile, [steps][16][4 bytes]; a step of a document token is broadcast
// against them. An instruction set describes its vectors by a struct V:
//   Reg, kWidth              a register of floats, how many
//   kTiles, kRows            tiles and document tokens multiplied together: kRows * kTiles * (16 / kWidth) accumulators
//   kSums                    registers that hold a row's sums
//   load, store, broadcast, set, zero, multiply, add, subtract, sum
//   fma(a, b, c)             a * b + c
//   greater(x, y)            where x > y
//   pick(where, a, b)        a there, else b
//   widen<dtype>(from, n)    the first n <= kWidth numbers as floats, zeros after; reads no more than those
//   narrow<dtype>(to, x, n)  writes the first n
// and a product by a struct P: V, kNumbers in a step, dot(token, query, sum).
#pragma once

#include <cstdint>

#include "train/kernel.hpp"

namespace lateint::train {
namespace {

// Products summed before they are added to the total, to keep rounding errors small.
constexpr int64_t kSlice = 256;

template <class P>
int64_t lanes_steps(int64_t dim) {
    return (dim + P::kNumbers - 1) / P::kNumbers;
}
template <class P>
int64_t lanes_tile_bytes(int64_t dim) {
    return lanes_steps<P>(dim) * 64;
}
template <class P>
int64_t lanes_row_bytes(int64_t dim) {
    return lanes_steps<P>(dim) * 4;
}
inline int64_t no_scratch(int64_t) { return 0; }
inline void no_state() {}

// The largest product of each lane, where it is, and NaN once a product was not finite (x * 0 is NaN then).
template <class V, int kRegs>
struct Leaders {
    typename V::Reg best[kRegs], position[kRegs], poison[kRegs];

    inline __attribute__((always_inline)) void take(typename V::Reg product, int reg, typename V::Reg number) {
        const auto wins = V::greater(product, best[reg]);
        position[reg] = V::pick(wins, number, position[reg]);
        best[reg] = V::pick(wins, product, best[reg]);
        poison[reg] = V::fma(product, V::zero(), poison[reg]);
    }
};

// take(row, reg, product) for each register of products of kRows document tokens.
template <class P, int kRows, int kRegs, class Take>
inline __attribute__((always_inline)) void lanes_multiply(const char* tiles, int64_t tile_bytes, const char* rows,
                                                          int64_t steps, const float* scales, const Take& take) {
    using V = typename P::V;
    using Reg = typename V::Reg;
    constexpr int kTileRegs = kLanes / V::kWidth;
    Reg total[kRows][kRegs];
    for (int64_t start = 0; start < steps; start += kSlice) {
        const int64_t end = start + kSlice < steps ? start + kSlice : steps;
        Reg sum[kRows][kRegs];
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
            for (int reg = 0; reg < kRegs; ++reg) sum[row][reg] = V::zero();
        }
        for (int64_t step = start; step < end; ++step) {
            Reg query[kRegs];
#pragma GCC unroll 4
            for (int reg = 0; reg < kRegs; ++reg) {
                query[reg] =
                    V::load(tiles + reg / kTileRegs * tile_bytes + reg % kTileRegs * V::kWidth * 4 + step * 64);
            }
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                const Reg token = V::broadcast(rows + (row * steps + step) * 4);
#pragma GCC unroll 4
                for (int reg = 0; reg < kRegs; ++reg) sum[row][reg] = P::dot(token, query[reg], sum[row][reg]);
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
            for (int reg = 0; reg < kRegs; ++reg) {
                total[row][reg] = start == 0 ? sum[row][reg] : V::add(total[row][reg], sum[row][reg]);
            }
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
        for (int reg = 0; reg < kRegs; ++reg) {
            take(row, reg, scales != nullptr ? V::multiply(total[row][reg], V::set(scales[row])) : total[row][reg]);
        }
    }
}

template <int kSize>
struct Size {
    static constexpr int value = kSize;
};

// take(size, row) for groups of so many rows that `count` rows are all taken, some of them twice, so that the last ones
// need no smaller, slower groups of their own.
template <int kRows, class Take>
inline __attribute__((always_inline)) void over_rows(int64_t count, const Take& take) {
    int64_t row = 0;
    for (; row + kRows <= count; row += kRows) take(Size<kRows>(), row);
    constexpr int kHalf = kRows / 2;
    if (row + kHalf < count && row > 0) {
        take(Size<kRows>(), count - kRows);
        row = count;
    }
    for (; row < count && count >= kHalf; row += kHalf) take(Size<kHalf>(), row + kHalf < count ? row : count - kHalf);
    for (; row < count; ++row) take(Size<1>(), row);
}

template <class P, int kTiles>
inline void lanes_tiles(const char* tiles, int64_t tile_bytes, const char* rows, int64_t count, int64_t steps,
                        const float* scales, float first, float* best, float* position) {
    using V = typename P::V;
    constexpr int kRegs = kTiles * kLanes / V::kWidth;
    Leaders<V, kRegs> leaders;
    for (int reg = 0; reg < kRegs; ++reg) {
        leaders.best[reg] = V::load(best + reg * V::kWidth);
        leaders.position[reg] = V::load(position + reg * V::kWidth);
        leaders.poison[reg] = V::zero();
    }
    over_rows<V::kRows>(count, [&](auto size, int64_t row) __attribute__((always_inline)) {
        constexpr int kRows = decltype(size)::value;
        typename V::Reg numbers[kRows];
        numbers[0] = V::set(first + static_cast<float>(row));
#pragma GCC unroll 8
        for (int i = 1; i < kRows; ++i) numbers[i] = V::add(numbers[i - 1], V::set(1));
        lanes_multiply<P, kRows, kRegs>(tiles, tile_bytes, rows + row * steps * 4, steps,
                                        scales != nullptr ? scales + row : nullptr,
                                        [&](int i, int reg, typename V::Reg product)
                                            __attribute__((always_inline)) { leaders.take(product, reg, numbers[i]); });
    });
    for (int reg = 0; reg < kRegs; ++reg) {
        V::store(best + reg * V::kWidth, V::add(leaders.best[reg], leaders.poison[reg]));
        V::store(position + reg * V::kWidth, leaders.position[reg]);
    }
}

template <class P, int kTiles>
inline void lanes_tile_products(const char* tiles, int64_t tile_bytes, const char* rows, int64_t count, int64_t steps,
                                const float* scales, float* out, int64_t stride) {
    using V = typename P::V;
    over_rows<V::kRows>(count, [&](auto size, int64_t row) __attribute__((always_inline)) {
        float* const to = out + row * stride;
        lanes_multiply<P, decltype(size)::value, kTiles * kLanes / V::kWidth>(
            tiles, tile_bytes, rows + row * steps * 4, steps, scales != nullptr ? scales + row : nullptr,
            [&](int i, int reg, typename V::Reg product)
                __attribute__((always_inline)) { V::store(to + i * stride + reg * V::kWidth, product); });
    });
}

// run(tiles, size, number of the first) for groups of tiles.
template <class P, class Run>
inline __attribute__((always_inline)) void over_tiles(const void* tiles, int64_t tile_count, int64_t dim,
                                                      const Run& run) {
    const char* const tile = static_cast<const char*>(tiles);
    constexpr int kTiles = P::V::kTiles;
    int64_t done = 0;
    for (; done + kTiles <= tile_count; done += kTiles)
        run(tile + done * lanes_tile_bytes<P>(dim), Size<kTiles>(), done);
    for (; done < tile_count; ++done) run(tile + done * lanes_tile_bytes<P>(dim), Size<1>(), done);
}

template <class P>
void lanes_best(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim,
                const float* scales, int64_t first, void*, float* best, float* position) {
    const char* const from = static_cast<const char*>(rows);
    over_tiles<P>(tiles, tile_count, dim, [&](const char* some, auto size, int64_t tile) {
        lanes_tiles<P, decltype(size)::value>(some, lanes_tile_bytes<P>(dim), from, count, lanes_steps<P>(dim), scales,
                                              static_cast<float>(first), best + tile * kLanes,
                                              position + tile * kLanes);
    });
}

template <class P>
void lanes_products(const void* tiles, int64_t tile_count, const void* rows, int64_t count, int64_t dim,
                    const float* scales, void*, float* out, int64_t stride) {
    const char* const from = static_cast<const char*>(rows);
    over_tiles<P>(tiles, tile_count, dim, [&](const char* some, auto size, int64_t tile) {
        lanes_tile_products<P, decltype(size)::value>(some, lanes_tile_bytes<P>(dim), from, count, lanes_steps<P>(dim),
                                                      scales, out + tile * kLanes, stride);
    });
}

// ---- products of floats, whatever the tokens' type ----

template <class Vectors, Dtype dtype>
struct Floats {
    using V = Vectors;
    using Reg = typename V::Reg;
    static constexpr int kNumbers = 1;
    static Reg dot(Reg token, Reg query, Reg sum) { return V::fma(token, query, sum); }
    static bool direct(int64_t) { return dtype == Dtype::float32; }

    static void widen_row(const char* from, int64_t dim, float* to) {
        int64_t k = 0;
        for (; k + V::kWidth <= dim; k += V::kWidth) {
            V::store(to + k, V::template widen<dtype>(from + k * itemsize(dtype), V::kWidth));
        }
        if (k == dim) return;
        float last[V::kWidth];
        V::store(last, V::template widen<dtype>(from + k * itemsize(dtype), dim - k));
        for (int64_t i = 0; k + i < dim; ++i) to[k + i] = last[i];
    }
    static void pack_documents(const void* tokens, const int32_t* positions, int64_t count, int64_t dim, void* rows) {
        for (int64_t row = 0; row < count; ++row) {
            const int64_t from = positions != nullptr ? positions[row] : row;
            widen_row(static_cast<const char*>(tokens) + from * dim * itemsize(dtype), dim,
                      static_cast<float*>(rows) + row * dim);
        }
    }
    static void pack_queries(const void* queries, const int64_t* rows, int count, int64_t dim, void* tile) {
        constexpr int64_t kPart = 16;
        float* const target = static_cast<float*>(tile);
        float part[kLanes][kPart] = {};
        for (int64_t k = 0; k < dim; k += kPart) {
            const int64_t size = dim - k < kPart ? dim - k : kPart;
            for (int lane = 0; lane < count; ++lane) {
                widen_row(static_cast<const char*>(queries) + (rows[lane] * dim + k) * itemsize(dtype), size,
                          part[lane]);
            }
            for (int64_t i = 0; i < size; ++i) {
                for (int lane = 0; lane < kLanes; ++lane) target[(k + i) * kLanes + lane] = part[lane][i];
            }
        }
    }
};

template <class P>
constexpr ForwardKernel lanes_forward_kernel() {
    return {lanes_tile_bytes<P>, lanes_row_bytes<P>, P::direct, no_scratch,    P::pack_queries,
            P::pack_documents,   no_state,           no_state,  lanes_best<P>, lanes_products<P>};
}

// ---- sums of rows ----

template <class V, Dtype dtype>
struct Sums {
    using Reg = typename V::Reg;
    static constexpr int64_t kItem = itemsize(dtype);

    static Reg widen(const char* row, int64_t k, int64_t dim) {
        return V::template widen<dtype>(row + k * kItem, dim - k < V::kWidth ? dim - k : V::kWidth);
    }
    // Columns k .. k + kRegs * kWidth, of which the last register may be part empty.
    template <int kRegs>
    static void accumulate_columns(float* sums, const char* rows, int64_t dim, int64_t k, const Run* runs,
                                   int64_t count, const Term* terms) {
        const int64_t stride = sum_stride(dim), last = k + (kRegs - 1) * V::kWidth;
        for (const Run* run = runs; run < runs + count; ++run) {
            float* const to = sums + run->target * stride + k;
            Reg total[kRegs];
#pragma GCC unroll 16
            for (int reg = 0; reg < kRegs; ++reg) total[reg] = V::zero();
            for (const Term* const end = terms + run->count; terms < end; ++terms) {
                const char* const ahead = rows + (terms[kTermsAhead].source * dim + k) * kItem;
#pragma GCC unroll 16
                for (int byte = 0; byte < kRegs * V::kWidth * kItem; byte += 64) __builtin_prefetch(ahead + byte);
                const char* const row = rows + terms->source * dim * kItem;
                const Reg factor = V::set(terms->factor);
#pragma GCC unroll 16
                for (int reg = 0; reg < kRegs - 1; ++reg) {
                    const char* const from = row + (k + reg * V::kWidth) * kItem;
                    total[reg] = V::fma(V::template widen<dtype>(from, V::kWidth), factor, total[reg]);
                }
                total[kRegs - 1] = V::fma(widen(row, last, dim), factor, total[kRegs - 1]);
            }
#pragma GCC unroll 16
            for (int reg = 0; reg < kRegs; ++reg) {
                V::store(to + reg * V::kWidth, V::add(V::load(to + reg * V::kWidth), total[reg]));
            }
        }
    }
    // As many columns as kRegs registers at a time can take; the next one.
    template <int kRegs>
    static int64_t accumulate_from(int64_t k, float* sums, const void* rows, int64_t dim, const Run* runs,
                                   int64_t count, const Term* terms) {
        for (; dim - k > (kRegs - 1) * V::kWidth; k += kRegs * V::kWidth) {
            accumulate_columns<kRegs>(sums, static_cast<const char*>(rows), dim, k, runs, count, terms);
        }
        return k;
    }
    static void accumulate(float* sums, const void* rows, int64_t dim, const Run* runs, int64_t count,
                           const Term* terms) {
        int64_t k = accumulate_from<V::kSums>(0, sums, rows, dim, runs, count, terms);
        k = accumulate_from<V::kSums / 2>(k, sums, rows, dim, runs, count, terms);
        k = accumulate_from<V::kSums / 4>(k, sums, rows, dim, runs, count, terms);
        accumulate_from<1>(k, sums, rows, dim, runs, count, terms);
    }
    static float dot(const float* sum, const void* row, int64_t dim) {
        Reg total = V::zero();
        for (int64_t k = 0; k < dim; k += V::kWidth) {
            total = V::fma(widen(static_cast<const char*>(row), k, dim), V::load(sum + k), total);
        }
        return V::sum(total);
    }
    static void finish(const float* sum, const void* row, float factor, float projection, int64_t dim, void* out) {
        for (int64_t k = 0; k < dim; k += V::kWidth) {
            const Reg part = V::multiply(V::set(projection), widen(static_cast<const char*>(row), k, dim));
            V::template narrow<dtype>(static_cast<char*>(out) + k * kItem,
                                      V::multiply(V::set(factor), V::subtract(V::load(sum + k), part)),
                                      dim - k < V::kWidth ? dim - k : V::kWidth);
        }
    }
};

template <class V, Dtype dtype>
constexpr BackwardKernel lanes_backward_kernel() {
    return {Sums<V, dtype>::accumulate, Sums<V, dtype>::dot, Sums<V, dtype>::finish};
}

template <class V>
const ForwardKernel* lanes_forward(Dtype dtype) {
    static constexpr ForwardKernel kKernels[] = {lanes_forward_kernel<Floats<V, Dtype::float32>>(),
                                                 lanes_forward_kernel<Floats<V, Dtype::float16>>(),
                                                 lanes_forward_kernel<Floats<V, Dtype::bfloat16>>()};
    return kKernels + static_cast<int>(dtype);
}

template <class V>
const BackwardKernel* lanes_backward(Dtype dtype) {
    static constexpr BackwardKernel kKernels[] = {lanes_backward_kernel<V, Dtype::float32>(),
                                                  lanes_backward_kernel<V, Dtype::float16>(),
                                                  lanes_backward_kernel<V, Dtype::bfloat16>()};
    return kKernels + static_cast<int>(dtype);
}

}  // namespace
}  // namespace lateint::train
