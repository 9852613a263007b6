// Products by vector instead of by row, for instruction sets whose own form is `dot`.
#pragma once

#include <algorithm>
#include <cstring>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

using Dot = void (*)(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out);

// Gathers the lanes into tiles of their own, multiplies, and turns the products round.
template <Dot dot>
inline void cross_by_tiles(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                           int32_t* out, int64_t stride) {
    constexpr int64_t kRows = 32;
    alignas(64) int8_t tile[kLanes * kMostDepth];
    alignas(64) int32_t products[kRows * kLanes];
    for (int begin = 0; begin < m; begin += kLanes) {
        const int count = std::min<int>(kLanes, m - begin);
        if (count < kLanes) std::memset(tile, 0, depth * kLanes);
        for (int j = 0; j < count; ++j)
            for (int64_t k = 0; k < depth; k += 4)
                std::memcpy(tile + j * 4 + k * kLanes, lanes[begin + j] + k * kLanes, 4);
        for (int64_t first = 0; first < n; first += kRows) {
            const int64_t size = std::min(kRows, n - first);
            dot(rows + first * depth, size, depth, tile, 1, products);
            for (int j = 0; j < count; ++j)
                for (int64_t r = 0; r < size; ++r) out[(begin + j) * stride + first + r] = products[r * kLanes + j];
        }
    }
}

}  // namespace
}  // namespace lateint::codes
