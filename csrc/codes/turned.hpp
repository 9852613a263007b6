// Centroids once more, in the order in which products by vector read them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codes/centroids.hpp"
#include "platform/paging.hpp"

namespace lateint::codes {

// The rows of each cell as tiles (int8.hpp), 16 rows a tile, and the cells' own. A cell is turned when it is first
// asked for: opening an index does not wait for it, and memory that no search comes near is never touched.
class TurnedCells {
public:
    explicit TurnedCells(const Centroids&);  // whose cell_offsets rise from 0 to count

    // Null while another thread turns the cell.
    const uint8_t* of(int64_t cell) {
        const int64_t first = centroids_.cell_offsets[cell];
        return turned(cell, centroids_.rows + first * centroids_.depth, centroids_.cell_offsets[cell + 1] - first);
    }
    const uint8_t* cells() { return turned(centroids_.cell_count, centroids_.cells, centroids_.cell_count); }
    bool are_of(const Centroids& other) const {
        return other.rows == centroids_.rows && other.count == centroids_.count;
    }

private:
    enum State : uint8_t { kNot, kAtWork, kDone };
    struct Free {
        Free() : size(0) {}
        explicit Free(size_t size) : size(size) {}
        size_t size;
        void operator()(uint8_t* bytes) const { release(bytes, size); }
    };

    const uint8_t* turned(int64_t number, const uint8_t* rows, int64_t n);

    const Centroids centroids_;
    std::vector<int64_t> first_tile_;                 // [cells + 2]: of each cell, of their own rows, and the end
    std::unique_ptr<uint8_t, Free> tiles_;            // not touched before it is needed
    std::unique_ptr<std::atomic<uint8_t>[]> states_;  // [cells + 1]
};

}  // namespace lateint::codes
