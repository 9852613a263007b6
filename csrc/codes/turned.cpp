#include "codes/turned.hpp"

#include <algorithm>

#include "codes/int8.hpp"

namespace lateint::codes {

TurnedCells::TurnedCells(const Centroids& centroids)
    : centroids_(centroids), first_tile_{0}, states_(new std::atomic<uint8_t>[centroids.cell_count + 1]) {
    const int64_t cells = centroids.cell_count;
    const int64_t* const offsets = centroids.cell_offsets;
    for (int64_t c = 0; c <= cells; ++c) {
        first_tile_.push_back(first_tile_.back() + tiles_for(c < cells ? offsets[c + 1] - offsets[c] : cells));
        states_[c].store(kNot, std::memory_order_relaxed);
    }
    const auto bytes = static_cast<size_t>(first_tile_.back() * kLanes * centroids.depth);
    tiles_ = {static_cast<uint8_t*>(allocate(bytes)), Free(bytes)};
}

const uint8_t* TurnedCells::turned(int64_t number, const uint8_t* rows, int64_t n) {
    const int64_t depth = centroids_.depth;
    uint8_t* const tiles = tiles_.get() + first_tile_[number] * kLanes * depth;
    uint8_t state = states_[number].load(std::memory_order_acquire);
    if (state == kNot && states_[number].compare_exchange_strong(state, kAtWork, std::memory_order_acquire)) {
        for (int64_t r = 0; r < n; r += kLanes) {
            pack_tile(reinterpret_cast<const int8_t*>(rows + r * depth),
                      static_cast<int>(std::min<int64_t>(kLanes, n - r)), depth, depth,
                      reinterpret_cast<int8_t*>(tiles + r * depth));
        }
        states_[number].store(kDone, std::memory_order_release);
        return tiles;
    }
    return state == kDone ? tiles : nullptr;
}

}  // namespace lateint::codes
