#include "dense/rows.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

// Questions are asked of the bits, so that the compiler vectorises one integer loop per row.
template <class Bits>
bool any_at_least(const Bits* row, int64_t dim, Bits magnitude, Bits limit) {
    Bits found = 0;
    for (int64_t i = 0; i < dim; ++i) found |= static_cast<Bits>((row[i] & magnitude) >= limit);
    return found != 0;
}

// The smallest of the rows that threads tell.
class FirstRow {
public:
    explicit FirstRow(int64_t rows) : rows_(rows), first_(rows) {}

    bool before(int64_t row) const { return first_.load(std::memory_order_relaxed) < row; }
    void tell(int64_t row) {
        int64_t known = first_.load();
        while (row < known && !first_.compare_exchange_weak(known, row)) {
        }
    }
    int64_t get() const { return first_.load() == rows_ ? -1 : first_.load(); }

private:
    const int64_t rows_;
    std::atomic<int64_t> first_;
};

template <class Bits>
BadRows find(const void* tokens, int64_t rows, int64_t dim, int threads, Bits magnitude, Bits infinity) {
    const Bits* const data = static_cast<const Bits*>(tokens);
    const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(Bits));
    const int64_t chunk = std::max<int64_t>(1, (256 << 10) / std::max<int64_t>(1, row_bytes));
    FirstRow nonfinite(rows), zero(rows);
    parallel_for((rows + chunk - 1) / chunk, threads, [&](int64_t task, int) {
        const int64_t end = std::min(rows, (task + 1) * chunk);
        for (int64_t row = task * chunk; row < end && !(nonfinite.before(row) && zero.before(row)); ++row) {
            const Bits* const numbers = data + row * dim;
            Bits any = 0, large = 0;
            for (int64_t i = 0; i < dim; ++i) {
                const Bits size = numbers[i] & magnitude;
                any |= size, large |= static_cast<Bits>(size >= infinity);
            }
            if (any == 0) zero.tell(row);
            if (large != 0) nonfinite.tell(row);
        }
    });
    return {nonfinite.get(), zero.get()};
}

}  // namespace

BadRows bad_rows(const void* tokens, Dtype dtype, int64_t rows, int64_t dim, int threads) {
    switch (dtype) {
        case Dtype::float32:
            return find<uint32_t>(tokens, rows, dim, threads, 0x7fffffff, 0x7f800000);
        case Dtype::float16:
            return find<uint16_t>(tokens, rows, dim, threads, 0x7fff, 0x7c00);
        case Dtype::bfloat16:
            return find<uint16_t>(tokens, rows, dim, threads, 0x7fff, 0x7f80);
        case Dtype::int8: {
            const BadRows found = find<uint8_t>(tokens, rows, dim, threads, 0xff, 0xff);
            return {-1, found.zero};
        }
    }
    return {-1, -1};
}

bool within(const float* numbers, int64_t count, float limit) {
    uint32_t bits = 0;
    std::memcpy(&bits, &limit, sizeof bits);
    const auto* data = reinterpret_cast<const uint32_t*>(numbers);
    return !any_at_least<uint32_t>(data, count, 0x7fffffff, bits + 1);
}

}  // namespace lateint::dense
