#include "dense/rows.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

// Both questions are asked of the bits, so that the compiler vectorises one integer loop per row.
template <class Bits>
bool any_at_least(const Bits* row, int64_t dim, Bits magnitude, Bits limit) {
    Bits found = 0;
    for (int64_t i = 0; i < dim; ++i) found |= static_cast<Bits>((row[i] & magnitude) >= limit);
    return found != 0;
}

template <class Test>
int64_t first_row(int64_t rows, int64_t row_bytes, int threads, const Test& test) {
    const int64_t chunk = std::max<int64_t>(1, (256 << 10) / std::max<int64_t>(1, row_bytes));
    std::atomic<int64_t> first{rows};
    parallel_for((rows + chunk - 1) / chunk, threads, [&](int64_t task, int) {
        const int64_t end = std::min(rows, (task + 1) * chunk);
        for (int64_t row = task * chunk; row < end && row < first.load(std::memory_order_relaxed); ++row) {
            if (!test(row)) continue;
            int64_t known = first.load();
            while (row < known && !first.compare_exchange_weak(known, row)) {
            }
            return;
        }
    });
    return first.load() == rows ? -1 : first.load();
}

template <class Bits>
int64_t first_zero(const void* tokens, int64_t rows, int64_t dim, int threads, Bits magnitude) {
    const Bits* data = static_cast<const Bits*>(tokens);
    return first_row(rows, dim * static_cast<int64_t>(sizeof(Bits)), threads,
                     [=](int64_t row) { return !any_at_least<Bits>(data + row * dim, dim, magnitude, 1); });
}

template <class Bits>
int64_t first_nonfinite(const void* tokens, int64_t rows, int64_t dim, int threads, Bits magnitude, Bits infinity) {
    const Bits* data = static_cast<const Bits*>(tokens);
    return first_row(rows, dim * static_cast<int64_t>(sizeof(Bits)), threads,
                     [=](int64_t row) { return any_at_least<Bits>(data + row * dim, dim, magnitude, infinity); });
}

}  // namespace

int64_t first_nonfinite_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads) {
    switch (dtype) {
        case Dtype::float32:
            return first_nonfinite<uint32_t>(tokens, rows, dim, threads, 0x7fffffff, 0x7f800000);
        case Dtype::float16:
            return first_nonfinite<uint16_t>(tokens, rows, dim, threads, 0x7fff, 0x7c00);
        case Dtype::bfloat16:
            return first_nonfinite<uint16_t>(tokens, rows, dim, threads, 0x7fff, 0x7f80);
        case Dtype::int8:
            return -1;
    }
    return -1;
}

int64_t first_zero_row(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads) {
    switch (dtype) {
        case Dtype::float32:
            return first_zero<uint32_t>(tokens, rows, dim, threads, 0x7fffffff);
        case Dtype::float16:
        case Dtype::bfloat16:
            return first_zero<uint16_t>(tokens, rows, dim, threads, 0x7fff);
        case Dtype::int8:
            return first_zero<uint8_t>(tokens, rows, dim, threads, 0xff);
    }
    return -1;
}

bool within(const float* numbers, int64_t count, float limit) {
    uint32_t bits = 0;
    std::memcpy(&bits, &limit, sizeof bits);
    const auto* data = reinterpret_cast<const uint32_t*>(numbers);
    return !any_at_least<uint32_t>(data, count, 0x7fffffff, bits + 1);
}

}  // namespace lateint::dense
