// Cells divided once more, for building with many centroids.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"

namespace lateint::codes {

constexpr int kSubcells = 16;  // of a cell, at most

// The centroids of each cell by k-means, none of the subcells empty. Those of cell c are [first[c], first[c + 1]); the
// centroids of subcell s are members[offsets[s]] to members[offsets[s + 1] - 1], ascending.
struct Subcells {
    std::vector<int64_t> first, offsets;
    std::vector<uint32_t> members;  // [K]
    std::vector<uint8_t> centres;   // [subcells, depth]
};

// The same on every machine: integers, from evenly spaced centroids of the cell.
Subcells subdivide(const Centroids& centroids, int threads);

}  // namespace lateint::codes
