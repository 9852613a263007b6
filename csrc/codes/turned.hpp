// Centroids once more, in the order in which products by vector read them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codes/centroids.hpp"

namespace lateint::codes {

// The rows of each cell as tiles (int8.hpp), 16 rows a tile. A cell is turned when it is first asked for: opening an
// index does not wait for it, and memory that no search needs is never touched.
class TurnedCells {
public:
    explicit TurnedCells(const Centroids&);  // whose cell_offsets rise from 0 to count

    // Null while another thread turns the cell.
    const uint8_t* of(int64_t cell);
    bool are_of(const Centroids& other) const {
        return other.rows == centroids_.rows && other.count == centroids_.count;
    }

private:
    enum State : uint8_t { kNot, kAtWork, kDone };
    struct Free {
        void operator()(uint8_t* bytes) const;
    };

    const Centroids centroids_;
    std::vector<int64_t> first_tile_;                 // [cells + 1]
    std::unique_ptr<uint8_t, Free> tiles_;            // not touched before it is needed
    std::unique_ptr<std::atomic<uint8_t>[]> states_;  // [cells]
};

}  // namespace lateint::codes
