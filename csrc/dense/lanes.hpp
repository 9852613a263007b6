// The MaxSim kernel shared by the instruction sets with vectors. Each includes this with its own flags, so everything
// here has internal linkage: no two copies may ever be taken for one another.
//
// Whatever the element type, numbers are handled as 4-byte steps: one float, two bf16 or int16, four int8. A tile is
// [steps][16 lanes][4 bytes]; a document token is broadcast step by step against it. An instruction set describes
// itself by a struct V:
//   Reg                          a register of 32-bit lanes
//   kRegs                        registers per tile
//   kTiles, kRows                tiles and document tokens multiplied together: kRows * kTiles * kRegs accumulators
//   kSlice                       steps summed before they are added to the total (0: all), to keep rounding errors
//   small kOffset                      whether a tile ends in 16 first values of the accumulators kNumbers how many
//   numbers are in a step kDirect(dim)                 whether document tokens can be read where they are prepare(from,
//   rows, dim, to) else: writes them as rows of whole steps dot, add, max, load, store, broadcast, zero, lowest
#pragma once

#include <cstdint>

#include "dense/kernel.hpp"

namespace lateint::dense {
namespace {

inline int32_t step_bits(const char* from) {
    int32_t bits;
    __builtin_memcpy(&bits, from, sizeof bits);
    return bits;
}

template <class V>
int64_t steps_of(int64_t dim) {
    return (dim + V::kNumbers - 1) / V::kNumbers;
}

template <class V>
int64_t lanes_tile_bytes(int64_t dim) {
    return (steps_of<V>(dim) + (V::kOffset ? 1 : 0)) * 64;
}

// Document tokens handled while they are in the first cache.
template <class V>
int64_t block_rows(int64_t dim) {
    const int64_t rows = (24 << 10) / (steps_of<V>(dim) * 4) / V::kRows * V::kRows;
    return rows < V::kRows ? V::kRows : rows;
}

template <class V>
int64_t lanes_scratch_bytes(int64_t dim, int64_t) {
    return block_rows<V>(dim) * steps_of<V>(dim) * 4 + 64;  // prepare() may write up to 64 bytes past the end
}

template <class V, int kRows, int kTiles>
inline __attribute__((always_inline)) void multiply(const char* tiles, int64_t tile_bytes, const char* tokens,
                                                    int64_t steps, typename V::Reg* best) {
    using Reg = typename V::Reg;
    constexpr int kRegs = kTiles * V::kRegs;
    const auto reg_at = [=](int reg) { return tiles + reg / V::kRegs * tile_bytes + reg % V::kRegs * (64 / V::kRegs); };
    Reg total[kRows][kRegs];
    for (int64_t start = 0; start < steps; start += V::kSlice ? V::kSlice : steps) {
        const int64_t end = V::kSlice != 0 && start + V::kSlice < steps ? start + V::kSlice : steps;
        Reg sum[kRows][kRegs];
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
            for (int reg = 0; reg < kRegs; ++reg) {
                sum[row][reg] = V::kOffset ? V::load(reg_at(reg) + steps * 64) : V::zero();
            }
        }
        for (int64_t step = start; step < end; ++step) {
            Reg query[kRegs];
#pragma GCC unroll 4
            for (int reg = 0; reg < kRegs; ++reg) query[reg] = V::load(reg_at(reg) + step * 64);
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                const Reg token = V::broadcast(tokens + (row * steps + step) * 4);
#pragma GCC unroll 4
                for (int reg = 0; reg < kRegs; ++reg) sum[row][reg] = V::dot(sum[row][reg], token, query[reg]);
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
        for (int reg = 0; reg < kRegs; ++reg) best[reg] = V::max(best[reg], total[row][reg]);
    }
}

template <class V, int kTiles>
inline void block(const char* tiles, int64_t tile_bytes, const char* tokens, int64_t rows, int64_t steps, bool first,
                  bool fetch, char* result) {
    typename V::Reg best[kTiles * V::kRegs];
    for (int reg = 0; reg < kTiles * V::kRegs; ++reg) {
        best[reg] = first ? V::lowest() : V::load(result + reg * (64 / V::kRegs));
    }
    int64_t row = 0;
    for (; row + V::kRows <= rows; row += V::kRows) {
        if (fetch) {
            const char* const ahead = tokens + row * steps * 4 + kAhead;
            for (int64_t i = 0; i < V::kRows * steps * 4; i += 64) __builtin_prefetch(ahead + i, 0, 2);
        }
        multiply<V, V::kRows, kTiles>(tiles, tile_bytes, tokens + row * steps * 4, steps, best);
    }
    for (; row + 2 <= rows; row += 2) {
        multiply<V, 2, kTiles>(tiles, tile_bytes, tokens + row * steps * 4, steps, best);
    }
    if (row < rows) multiply<V, 1, kTiles>(tiles, tile_bytes, tokens + row * steps * 4, steps, best);
    for (int reg = 0; reg < kTiles * V::kRegs; ++reg) V::store(result + reg * (64 / V::kRegs), best[reg]);
}

template <class V>
void lanes_best(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                void* result) {
    const int64_t steps = steps_of<V>(dim), tile_bytes = lanes_tile_bytes<V>(dim), most = block_rows<V>(dim);
    for (int64_t start = 0; start < rows; start += most) {
        const int64_t size = rows - start < most ? rows - start : most;
        const char* source = static_cast<const char*>(tokens) + start * dim * V::kItem;
        const bool fetch = V::direct(dim);
        if (!fetch) {
            V::prepare(source, size, dim, static_cast<char*>(scratch));
            source = static_cast<const char*>(scratch);
        }
        int64_t tile = 0;
        for (; tile + V::kTiles <= count; tile += V::kTiles) {
            block<V, V::kTiles>(static_cast<const char*>(tiles) + tile * tile_bytes, tile_bytes, source, size, steps,
                                start == 0, fetch && tile == 0, static_cast<char*>(result) + tile * 64);
        }
        for (; tile < count; ++tile) {
            block<V, 1>(static_cast<const char*>(tiles) + tile * tile_bytes, tile_bytes, source, size, steps,
                        start == 0, fetch && tile == 0, static_cast<char*>(result) + tile * 64);
        }
    }
}

inline void no_state() {}

// Float queries as [dim][16] floats.
inline void pack_floats(const void* queries, int rows, int64_t dim, void* tile) {
    const float* source = static_cast<const float*>(queries);
    float* target = static_cast<float*>(tile);
    for (int64_t k = 0; k < dim; ++k) {
        for (int lane = 0; lane < kLanes; ++lane) target[k * kLanes + lane] = lane < rows ? source[lane * dim + k] : 0;
    }
}

// Queries as [steps][16][numbers of a step], converted one by one; a last part step is filled up with zeros.
template <class V, class From, class To, class Convert>
inline void pack_steps(const void* queries, int rows, int64_t dim, void* tile, Convert convert) {
    const From* source = static_cast<const From*>(queries);
    To* target = static_cast<To*>(tile);
    for (int64_t step = 0; step < steps_of<V>(dim); ++step) {
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int i = 0; i < V::kNumbers; ++i) {
                const int64_t k = step * V::kNumbers + i;
                *target++ = lane < rows && k < dim ? convert(source[lane * dim + k]) : To{};
            }
        }
    }
}

template <class V>
constexpr Kernel lanes_kernel(void (*pack)(const void*, int, int64_t, void*)) {
    return {lanes_tile_bytes<V>, lanes_scratch_bytes<V>, pack, no_state, no_state, lanes_best<V>};
}

// For float queries, and documents that `Float` widens.
template <typename V>
constexpr Kernel kFloatKernel = lanes_kernel<V>(pack_floats);

// That, or `int8` where both sides are bytes.
template <template <Dtype> class Float>
const Kernel* lanes_kernel_for(QueryKind queries, Dtype documents, const Kernel& int8) {
    if (queries == QueryKind::int8) return &int8;
    switch (documents) {
        case Dtype::float32:
            return &kFloatKernel<Float<Dtype::float32>>;
        case Dtype::float16:
            return &kFloatKernel<Float<Dtype::float16>>;
        case Dtype::bfloat16:
            return &kFloatKernel<Float<Dtype::bfloat16>>;
        case Dtype::int8:
            return &kFloatKernel<Float<Dtype::int8>>;
    }
    return nullptr;
}

}  // namespace
}  // namespace lateint::dense
