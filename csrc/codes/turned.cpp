#include "codes/turned.hpp"

#include <algorithm>
#include <new>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {
constexpr std::align_val_t kLine{64};
}

void TurnedCells::Free::operator()(uint8_t* bytes) const { ::operator delete(bytes, kLine); }

TurnedCells::TurnedCells(const Centroids& centroids)
    : centroids_(centroids), first_tile_{0}, states_(new std::atomic<uint8_t>[centroids.cell_count]) {
    const int64_t* const offsets = centroids.cell_offsets;
    for (int64_t c = 0; c < centroids.cell_count; ++c) {
        first_tile_.push_back(first_tile_.back() + tiles_for(offsets[c + 1] - offsets[c]));
        states_[c].store(kNot, std::memory_order_relaxed);
    }
    const auto bytes = static_cast<size_t>(first_tile_.back() * kLanes * centroids.depth);
    tiles_.reset(static_cast<uint8_t*>(::operator new(std::max<size_t>(bytes, 1), kLine)));
}

const uint8_t* TurnedCells::of(int64_t cell) {
    uint8_t* const tiles = tiles_.get() + first_tile_[cell] * kLanes * centroids_.depth;
    uint8_t state = states_[cell].load(std::memory_order_acquire);
    if (state == kNot && states_[cell].compare_exchange_strong(state, kAtWork, std::memory_order_acquire)) {
        const int64_t first = centroids_.cell_offsets[cell], end = centroids_.cell_offsets[cell + 1];
        for (int64_t r = first; r < end; r += kLanes) {
            pack_tile(reinterpret_cast<const int8_t*>(centroids_.rows + r * centroids_.depth),
                      static_cast<int>(std::min<int64_t>(kLanes, end - r)), centroids_.depth, centroids_.depth,
                      reinterpret_cast<int8_t*>(tiles + (r - first) * centroids_.depth));
        }
        states_[cell].store(kDone, std::memory_order_release);
        return tiles;
    }
    return state == kDone ? tiles : nullptr;
}

}  // namespace lateint::codes
