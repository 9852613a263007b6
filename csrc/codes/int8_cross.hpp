// Products by vector instead of by row, for instruction sets whose own form is `dot`.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

using Dot = void (*)(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* tiles, int ntiles, int32_t* out);

// Gathers the lanes into tiles of their own, multiplies, and turns the products round.
template <Dot dot>
inline void cross_by_tiles(const uint8_t* rows, int64_t n, int64_t depth, const int8_t* const* lanes, int m,
                           int32_t* out, int64_t stride) {
    constexpr int64_t kRows = 32;
    const auto ntiles = static_cast<int>(tiles_for(m));
    static thread_local std::vector<int8_t> tiles;
    static thread_local std::vector<int32_t> products;
    tiles.assign(ntiles * depth * kLanes, 0);
    products.resize(kRows * ntiles * kLanes);
    for (int j = 0; j < m; ++j) {
        int8_t* tile = tiles.data() + j / kLanes * depth * kLanes + j % kLanes * 4;
        for (int64_t k = 0; k < depth; k += 4) std::memcpy(tile + k * kLanes, lanes[j] + k * kLanes, 4);
    }
    for (int64_t first = 0; first < n; first += kRows) {
        const int64_t count = std::min(kRows, n - first);
        dot(rows + first * depth, count, depth, tiles.data(), ntiles, products.data());
        for (int j = 0; j < m; ++j)
            for (int64_t r = 0; r < count; ++r) out[j * stride + first + r] = products[r * ntiles * kLanes + j];
    }
}

}  // namespace
}  // namespace lateint::codes
