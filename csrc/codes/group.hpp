// Centroids that tokens are compared with together: the innermost loop of building.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "codes/int8.hpp"
#include "platform/tiles.hpp"

namespace lateint::codes {

constexpr int kGroupTiles = 16;      // centroids are taken 256 at a time ...
constexpr int64_t kGroupRows = 32;   // ... by 32 tokens, so that the scores stay in the first-level cache
constexpr int32_t kNever = 1 << 30;  // bias of absent centroids
constexpr int32_t kWorst = std::numeric_limits<int32_t>::min();

// Some centroids as tiles. The nearest one has the largest `product - bias`.
struct Group {
    std::vector<uint32_t> ids;  // ascending
    std::vector<int8_t> tiles;
    std::vector<int32_t> bias;  // |c|^2 / 2 and what the unsigned offset of the tokens adds
    int ntiles() const { return static_cast<int>(bias.size() / kLanes); }
};

// What `nearest_in` needs room for.
struct GroupScratch {
    std::vector<int32_t> products = std::vector<int32_t>(kGroupRows * kGroupTiles * kLanes);
    int32_t best[kGroupRows], index[kGroupRows];
};

// Rows [K, depth] whose numbers are `ids`.
Group pack(const uint8_t* rows, int64_t depth, std::vector<uint32_t> ids);

// take(i, score, id) for the nearest centroid of each token i, the lowest id among equals; the group is not empty.
template <typename Take>
void nearest_in(const Group& group, const Int8Kernels& kernels, const uint8_t* tokens, int64_t n, int64_t depth,
                GroupScratch& scratch, const Take& take) {
    for (int64_t r = 0; r < n; r += kGroupRows) {
        const int64_t rows = n - r < kGroupRows ? n - r : kGroupRows;
        for (int64_t i = 0; i < rows; ++i) scratch.best[i] = kWorst, scratch.index[i] = 0;
        for (int t = 0; t < group.ntiles(); t += kGroupTiles) {
            const int ntiles = group.ntiles() - t < kGroupTiles ? group.ntiles() - t : kGroupTiles;
            kernels.dot(tokens + r * depth, rows, depth, group.tiles.data() + t * depth * kLanes, ntiles,
                        scratch.products.data());
            kernels.nearest(scratch.products.data(), rows, ntiles * kLanes, group.bias.data() + t * kLanes, t * kLanes,
                            scratch.best, scratch.index);
        }
        for (int64_t i = 0; i < rows; ++i) take(r + i, scratch.best[i], group.ids[scratch.index[i]]);
    }
}

}  // namespace lateint::codes
