// What is made of products, for the instruction sets with vectors of floats; see train/lanes.hpp for their struct V,
// which needs more here:
//   power(x)                 2^n for x = 1.5 * 2^23 + n
//   bits(where)              one for each number, the first one lowest
//   kTogether                rows that sums are made of together, in registers
#pragma once

#include <cstdint>

#include "train/lanes.hpp"

namespace lateint::train {
namespace {

// exp(x) for x up to 80, to two units of the last place; that of -87 for what is below, NaN for NaN. The powers of 2
// are taken out, and what remains, within log(2) / 2 of 0, goes into the polynomial of Cephes (expf.c).
template <class V>
inline __attribute__((always_inline)) typename V::Reg exponential(typename V::Reg x) {
    using Reg = typename V::Reg;
    const Reg low = V::set(-87), magic = V::set(12582912.0f);
    x = V::pick(V::greater(low, x), low, x);
    const Reg shifted = V::fma(x, V::set(1.44269504088896341f), magic);
    const Reg n = V::subtract(shifted, magic);
    const Reg r = V::fma(n, V::set(2.12194440e-4f), V::fma(n, V::set(-0.693359375f), x));
    Reg y = V::fma(V::set(1.9875691500e-4f), r, V::set(1.3981999507e-3f));
    y = V::fma(y, r, V::set(8.3334519073e-3f));
    y = V::fma(y, r, V::set(4.1665795894e-2f));
    y = V::fma(y, r, V::set(1.6666665459e-1f));
    y = V::fma(y, r, V::set(5.0000001201e-1f));
    y = V::fma(y, V::multiply(r, r), V::add(r, V::set(1)));
    return V::multiply(y, V::power(shifted));
}

template <class V>
struct Lanes {
    using Reg = typename V::Reg;

    static Reg larger(Reg x, Reg y) { return V::pick(V::greater(x, y), x, y); }

    static void check(const float* products, int64_t count, int64_t stride, int64_t tile_count, float* poison) {
        for (int64_t lane = 0; lane < tile_count * kLanes; lane += V::kWidth) {
            Reg sum = V::zero();
            for (int64_t row = 0; row < count; ++row) {
                sum = V::fma(V::load(products + row * stride + lane), V::zero(), sum);
            }
            V::store(poison + lane, sum);
        }
    }

    static void largest(const float* products, int64_t count, int64_t stride, int64_t tile_count, int64_t first,
                        float* best, float* position, int64_t group, float* groups) {
        const int64_t lanes = tile_count * kLanes;
        for (int64_t lane = 0; lane < lanes; lane += V::kWidth) {
            Leaders<V, 1> leaders = {{V::load(best + lane)}, {V::load(position + lane)}, {V::zero()}};
            Reg number = V::set(static_cast<float>(first));
            for (int64_t row = 0; row < count;) {
                const int64_t end = row + group < count ? row + group : count;
                Reg most = V::load(products + row * stride + lane);
                for (int64_t i = row; i < end; ++i) {
                    const Reg product = V::load(products + i * stride + lane);
                    leaders.take(product, 0, number);
                    most = larger(product, most);
                    number = V::add(number, V::set(1));
                }
                V::store(groups + row / group * lanes + lane, most);
                row = end;
            }
            V::store(best + lane, V::add(leaders.best[0], leaders.poison[0]));
            V::store(position + lane, leaders.position[0]);
        }
    }

    static void count_from(const float* products, int64_t count, int64_t stride, int64_t tile_count, const float* bound,
                           float* counts) {
        for (int64_t lane = 0; lane < tile_count * kLanes; lane += V::kWidth) {
            const Reg least = V::load(bound + lane), one = V::set(1);
            Reg sum = V::zero();
            for (int64_t row = 0; row < count; ++row) {
                const Reg product = V::load(products + row * stride + lane);
                sum = V::add(sum, V::pick(V::greater(least, product), V::zero(), one));
            }
            V::store(counts + lane, sum);
        }
    }

    static void find_from(const float* products, int64_t count, int64_t stride, int64_t tile_count, const float* bound,
                          uint16_t* bits) {
        for (int64_t row = 0; row < count; ++row, bits += tile_count) {
            for (int64_t tile = 0; tile < tile_count; ++tile) {
                uint32_t below = 0;
#pragma GCC unroll 4
                for (int lane = 0; lane < kLanes; lane += V::kWidth) {
                    const float* const from = products + row * stride + tile * kLanes + lane;
                    const auto where = V::greater(V::load(bound + tile * kLanes + lane), V::load(from));
                    below |= static_cast<uint32_t>(V::bits(where)) << lane;
                }
                bits[tile] = static_cast<uint16_t>(~below);
            }
        }
    }

    static void log_sum_exp(const float* products, int64_t count, int64_t stride, int64_t tile_count,
                            const float* scales, float* largest, float* sum) {
        constexpr int64_t kSums = 4;
        for (int64_t lane = 0; lane < tile_count * kLanes; lane += V::kWidth) {
            const float* const from = products + lane;
            const Reg scale = V::load(scales + lane), before = V::load(largest + lane);
            Reg most = before;
            for (int64_t row = 0; row < count; ++row) {
                most = larger(V::multiply(V::load(from + row * stride), scale), most);
            }
            Reg sums[kSums] = {V::zero(), V::zero(), V::zero(), V::zero()};
            const auto term = [&](int64_t row) __attribute__((always_inline)) {
                return exponential<V>(V::subtract(V::multiply(V::load(from + row * stride), scale), most));
            };
            int64_t row = 0;
            for (; row + kSums <= count; row += kSums) {
#pragma GCC unroll 4
                for (int i = 0; i < kSums; ++i) sums[i] = V::add(sums[i], term(row + i));
            }
            for (; row < count; ++row) sums[0] = V::add(sums[0], term(row));
            const Reg added = V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3]));
            V::store(sum + lane, V::fma(V::load(sum + lane), exponential<V>(V::subtract(before, most)), added));
            V::store(largest + lane, most);
        }
    }

    static void shares(float* products, int64_t count, int64_t stride, int64_t tile_count, const float* scales,
                       const float* subtrahends, const float* factors) {
        for (int64_t lane = 0; lane < tile_count * kLanes; lane += V::kWidth) {
            const Reg scale = V::load(scales + lane), factor = V::load(factors + lane);
            const Reg subtrahend = V::load(subtrahends + lane);
#pragma GCC unroll 4
            for (int64_t row = 0; row < count; ++row) {
                float* const at = products + row * stride + lane;
                const Reg x = V::subtract(V::multiply(V::load(at), scale), subtrahend);
                V::store(at, V::multiply(factor, exponential<V>(x)));
            }
        }
    }

    // Columns that kColumns registers hold, of kSome sums.
    template <int kSome, int kColumns>
    static void add_block(float* sums, const float* factors, int64_t sum_step, int64_t row_step, const float* rows,
                          int64_t row_count, int64_t width) {
        Reg total[kSome][kColumns];
#pragma GCC unroll 8
        for (int i = 0; i < kSome; ++i) {
#pragma GCC unroll 4
            for (int c = 0; c < kColumns; ++c) total[i][c] = V::zero();
        }
        for (int64_t row = 0; row < row_count; ++row, rows += width, factors += row_step) {
            Reg numbers[kColumns];
#pragma GCC unroll 4
            for (int c = 0; c < kColumns; ++c) numbers[c] = V::load(rows + c * V::kWidth);
#pragma GCC unroll 8
            for (int i = 0; i < kSome; ++i) {
                const Reg factor = V::set(factors[i * sum_step]);
#pragma GCC unroll 4
                for (int c = 0; c < kColumns; ++c) total[i][c] = V::fma(factor, numbers[c], total[i][c]);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < kSome; ++i) {
#pragma GCC unroll 4
            for (int c = 0; c < kColumns; ++c) {
                float* const to = sums + i * width + c * V::kWidth;
                V::store(to, V::add(V::load(to), total[i][c]));
            }
        }
    }
    template <int kColumns>
    static void add_columns(float* sums, int64_t sum_count, const float* factors, int64_t sum_step, int64_t row_step,
                            const float* rows, int64_t row_count, int64_t width) {
        int64_t i = 0;
        const auto add = [&](auto size) {
            constexpr int kSome = decltype(size)::value;
            for (; i + kSome <= sum_count; i += kSome) {
                add_block<kSome, kColumns>(sums + i * width, factors + i * sum_step, sum_step, row_step, rows,
                                           row_count, width);
            }
        };
        add(Size<V::kTogether>());
        add(Size<2>());
        add(Size<1>());
    }
    // A sum has its terms in the same order, whatever is added together, and so the same bits.
    static void add_rows(float* sums, int64_t sum_count, const float* factors, int64_t sum_step, int64_t row_step,
                         const float* rows, int64_t row_count, int64_t width) {
        constexpr int64_t kColumns = V::kWidth == kLanes ? 4 : 2;
        int64_t k = 0;
        for (; k + kColumns * V::kWidth <= width; k += kColumns * V::kWidth) {
            add_columns<kColumns>(sums + k, sum_count, factors, sum_step, row_step, rows + k, row_count, width);
        }
        for (; k < width; k += V::kWidth) {
            add_columns<1>(sums + k, sum_count, factors, sum_step, row_step, rows + k, row_count, width);
        }
    }

    template <Dtype dtype>
    static void widen_as(const char* token, int64_t dim, float factor, int64_t width, float* out) {
        for (int64_t k = 0; k < width; k += V::kWidth) {
            const int64_t left = dim - k < V::kWidth ? dim - k : V::kWidth;
            const Reg x = left > 0 ? V::template widen<dtype>(token + k * itemsize(dtype), left) : V::zero();
            V::store(out + k, V::multiply(x, V::set(factor)));
        }
    }
    static void widen(const void* token, Dtype dtype, int64_t dim, float factor, int64_t width, float* out) {
        const char* const from = static_cast<const char*>(token);
        if (dtype == Dtype::float32) widen_as<Dtype::float32>(from, dim, factor, width, out);
        if (dtype == Dtype::float16) widen_as<Dtype::float16>(from, dim, factor, width, out);
        if (dtype == Dtype::bfloat16) widen_as<Dtype::bfloat16>(from, dim, factor, width, out);
    }
};

template <class V>
const LaneKernel* lanes_kernel() {
    using L = Lanes<V>;
    static constexpr LaneKernel kKernel = {L::check,       L::largest, L::count_from, L::find_from,
                                           L::log_sum_exp, L::shares,  L::add_rows,   L::widen};
    return &kKernel;
}

}  // namespace
}  // namespace lateint::train
