#include "dense/sketch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "platform/floats.hpp"
#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

constexpr int kParts = 8;  // sums side by side, which the compiler keeps in vectors

// Adding and subtracting this rounds a small number to a whole one.
constexpr float kRound = 12582912.0f;

// Writes the codes and returns the norm of what they leave.
double round_token(const float* token, int64_t dim, float scale, int8_t* codes) {
    const float inverse = 1 / scale;
    double parts[kParts] = {};
    const auto one = [&](int64_t k) {
        const float code = (token[k] * inverse + kRound) - kRound;
        codes[k] = static_cast<int8_t>(code);
        const double error = static_cast<double>(token[k]) - static_cast<double>(scale) * code;
        return error * error;
    };
    int64_t k = 0;
    for (; k + kParts <= dim; k += kParts) {
        for (int i = 0; i < kParts; ++i) parts[i] += one(k + i);
    }
    for (; k < dim; ++k) parts[0] += one(k);
    double sum = 0;
    for (const double part : parts) sum += part;
    return std::sqrt(sum);
}

}  // namespace

void sketch(const float* tokens, int64_t rows, int64_t dim, int threads, int8_t* codes, SketchScale* scales) {
    constexpr int64_t kChunk = 1024;
    parallel_for((rows + kChunk - 1) / kChunk, threads, [&](int64_t task, int) {
        for (int64_t row = task * kChunk; row < std::min(rows, (task + 1) * kChunk); ++row) {
            const float* const token = tokens + row * dim;
            int8_t* const to = codes + row * dim;
            const float largest = largest_magnitude(token, dim);
            if (largest > 0x1p-40f && largest < 0x1p40f) {
                const float scale = largest / 127;
                const double error = round_token(token, dim, scale, to);
                scales[row] = {scale, static_cast<float>(error * 1.000001)};
            } else {
                std::fill_n(to, dim, int8_t{0});
                scales[row] = {0, largest == 0 ? 0 : std::numeric_limits<float>::infinity()};
            }
        }
    });
    std::memset(codes + rows * dim, 0, static_cast<size_t>(sketch_padding(dim)));
}

}  // namespace lateint::dense
