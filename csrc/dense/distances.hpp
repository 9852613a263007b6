// How far apart the tokens of a document are, for clustering. No standard library here: the sources are compiled with
// different flags.
#pragma once

#include <cstdint>

namespace lateint::dense {

// For tokens [length, dim] half of the squares of their distances, costs[i * length + j] for all i and j. Each sum runs
// over the components in their order, every operation rounded by itself, so that all instruction sets give the same
// bits. What is not a number, or is infinite, counts as kFar: numbers alone have an order. `tile` has room for
// kDistanceTile * dim numbers.
struct DistanceKernel {
    void (*euclidean)(const double* tokens, int64_t length, int64_t dim, double* tile, double* costs);
    // Tokens are 1 - <a, b> apart, the product in float32 as the libraries have it whose distance this is.
    void (*cosine)(const float* tokens, int64_t length, int64_t dim, float* tile, double* costs);
};

constexpr int64_t kDistanceTile = 16;
constexpr double kFar = 0x1.fffffffffffffp1023;

const DistanceKernel* distance_kernel_scalar();
#if defined(__x86_64__) || defined(__i386__)
const DistanceKernel* distance_kernel_avx2();
const DistanceKernel* distance_kernel_avx512();
#endif

namespace {

struct SquaredDifference {
    template <class Vector, class Number>
    static Vector of(Vector x, Number y) {
        const Vector difference = x - y;
        return difference * difference;
    }
    static double cost(double sum) { return 0.5 * sum; }
};

struct Product {
    template <class Vector, class Number>
    static Vector of(Vector x, Number y) {
        return x * y;
    }
    static double cost(float sum) {
        const double apart = 1 - static_cast<double>(sum);
        return 0.5 * (apart * apart);
    }
};

// Sums for kRows tokens with the sixteen of a tile, [dim][16], whose first is number `first`.
template <class Number, class Vector, class Term, int kRows>
inline void distance_block(const Number* rows, int64_t dim, const Number* tile, int64_t first, int64_t number,
                           int64_t length, double* costs) {
    constexpr int kWidth = sizeof(Vector) / sizeof(Number), kRegs = kDistanceTile / kWidth;
    Vector sums[kRows][kRegs] = {};
    for (int64_t k = 0; k < dim; ++k) {
        Vector others[kRegs];
        __builtin_memcpy(others, tile + k * kDistanceTile, sizeof others);
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            const Number x = rows[row * dim + k];
#pragma GCC unroll 8
            for (int reg = 0; reg < kRegs; ++reg) sums[row][reg] += Term::of(others[reg], x);
        }
    }
    const int64_t lanes = length - first < kDistanceTile ? length - first : kDistanceTile;
    for (int row = 0; row < kRows; ++row) {
        Number found[kDistanceTile];
        double cost[kDistanceTile];
        __builtin_memcpy(found, sums[row], sizeof found);
        for (int64_t lane = 0; lane < kDistanceTile; ++lane) {
            const double half = Term::cost(found[lane]);
            cost[lane] = half < kFar ? half : kFar;
        }
        double* const to = costs + (number + row) * length + first;
        for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = cost[lane];
        for (int64_t lane = 0; lane < lanes; ++lane) costs[(first + lane) * length + number + row] = cost[lane];
    }
}

template <class Number, class Vector, class Term>
void distances(const Number* tokens, int64_t length, int64_t dim, Number* tile, double* costs) {
    constexpr int kRegs = kDistanceTile * sizeof(Number) / sizeof(Vector), kRows = 8 / kRegs;
    for (int64_t first = 0; first < length; first += kDistanceTile) {
        for (int64_t lane = 0; lane < kDistanceTile; ++lane) {
            const int64_t j = first + lane < length ? first + lane : length - 1;
            for (int64_t k = 0; k < dim; ++k) tile[k * kDistanceTile + lane] = tokens[j * dim + k];
        }
        int64_t i = first;  // pairs of earlier ones are known
        for (; i + kRows <= length; i += kRows) {
            distance_block<Number, Vector, Term, kRows>(tokens + i * dim, dim, tile, first, i, length, costs);
        }
        for (; i < length; ++i) {
            distance_block<Number, Vector, Term, 1>(tokens + i * dim, dim, tile, first, i, length, costs);
        }
    }
}

// For an instruction set whose registers hold one of these.
template <class Floats, class Doubles>
constexpr DistanceKernel kDistanceKernel = {distances<double, Doubles, SquaredDifference>,
                                            distances<float, Floats, Product>};

}  // namespace
}  // namespace lateint::dense
