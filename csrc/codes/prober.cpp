#include "codes/prober.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "codes/int8.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int32_t kWorst = std::numeric_limits<int32_t>::min();

// A key orders by score first and by lower id among equal scores.
uint64_t key_of(int32_t score, uint32_t id) {
    return uint64_t(static_cast<uint32_t>(score) ^ 0x80000000u) << 32 | (~id & 0xFFFFFFFFu);
}

// Some vectors of tiles as tiles of their own.
void gather_lanes(const int8_t* tiles, const std::vector<int>& lanes, int64_t depth, std::vector<int8_t>& out) {
    const auto size = static_cast<int64_t>(lanes.size());
    out.assign(round_up(size, kLanes) * depth, 0);
    for (int64_t p = 0; p < size; ++p) {
        const int8_t* from = tiles + lanes[p] / kLanes * depth * kLanes + lanes[p] % kLanes * 4;
        int8_t* to = out.data() + p / kLanes * depth * kLanes + p % kLanes * 4;
        for (int64_t k = 0; k < depth / 4; ++k) std::memcpy(to + k * 4 * kLanes, from + k * 4 * kLanes, 4);
    }
}

Probe probe_of(uint64_t key) {
    return {static_cast<int32_t>(static_cast<uint32_t>(key >> 32) ^ 0x80000000u), ~static_cast<uint32_t>(key)};
}

}  // namespace

void TileProber::start(int lanes, int64_t count, int64_t offered) {
    count_ = count;
    capacity_ = std::min(std::max<int64_t>(4 * count, 64), offered);
    kept_.resize(lanes * capacity_);
    sizes_.assign(lanes, 0);
    least_.assign(lanes, 0);
}

void TileProber::prune(int lane) {
    uint64_t* keys = kept_.data() + lane * capacity_;
    std::nth_element(keys, keys + count_ - 1, keys + sizes_[lane], std::greater<uint64_t>());
    sizes_[lane] = count_;
    least_[lane] = keys[count_ - 1];
}

// What a score must exceed to be looked at: an equal one with a lower id is better than the last one kept.
int32_t TileProber::threshold(int lane) const { return least_[lane] ? probe_of(least_[lane]).score - 1 : kWorst; }

// Offers rows [first, first + n) to the tokens that are in the tiles: position p is token lanes[p].
void TileProber::collect(const uint8_t* rows, int64_t first, int64_t n, int64_t depth, const int8_t* tiles,
                         const std::vector<int>& lanes) {
    const Int8Kernels& kernels = int8_kernels();
    const int size = static_cast<int>(lanes.size()), width = static_cast<int>(round_up(size, kLanes));
    const int64_t block = std::max<int64_t>(32, 4096 / width);
    scores_.resize(block * width);
    hits_.resize(block * width);
    thresholds_.assign(width, std::numeric_limits<int32_t>::max());  // of no token: nothing is kept
    for (int p = 0; p < size; ++p) thresholds_[p] = threshold(lanes[p]);
    const auto tighten = [&](int p) { prune(lanes[p]), thresholds_[p] = threshold(lanes[p]); };
    for (int64_t r = 0; r < n; r += block) {
        const int64_t count = std::min(block, n - r);
        kernels.dot(rows + (first + r) * depth, count, depth, tiles, width / kLanes, scores_.data());
        const int64_t hits = kernels.above(scores_.data(), count, width, thresholds_.data(), hits_.data());
        for (int64_t h = 0; h < hits; ++h) {
            const uint32_t row = hits_[h] >> 16, p = hits_[h] & 0xFFFF;
            const int lane = lanes[p];
            const uint64_t key = key_of(scores_[int64_t(row) * width + p], static_cast<uint32_t>(first + r + row));
            if (key <= least_[lane]) continue;
            if (sizes_[lane] == capacity_) {
                tighten(p);
                if (key <= least_[lane]) continue;
            }
            kept_[lane * capacity_ + sizes_[lane]++] = key;
        }
        // Thresholds start low; tightening them early keeps the lists short.
        if (r == 0 || hits > width)
            for (int p = 0; p < size; ++p)
                if (sizes_[lanes[p]] >= 2 * count_) tighten(p);
    }
}

void TileProber::finish(int lanes) {
    probes_.resize(lanes * count_);
    for (int lane = 0; lane < lanes; ++lane) {
        uint64_t* keys = kept_.data() + lane * capacity_;
        const int64_t found = std::min(count_, sizes_[lane]);
        std::partial_sort(keys, keys + found, keys + sizes_[lane], std::greater<uint64_t>());
        for (int64_t i = 0; i < found; ++i) probes_[lane * count_ + i] = probe_of(keys[i]);
        sizes_[lane] = found;
    }
}

void TileProber::run(const Centroids& centroids, const int8_t* tiles, int lanes, int64_t count, int64_t cells) {
    const Session session(int8_kernels());
    const bool all = cells <= 0 || cells >= centroids.cell_count;
    const uint8_t* rows = all ? centroids.rows : centroids.cells;
    const int64_t n = all ? centroids.count : centroids.cell_count;
    std::vector<int> every(lanes);
    std::iota(every.begin(), every.end(), 0);
    start(lanes, std::min(all ? count : cells, n), n);
    collect(rows, 0, n, centroids.depth, tiles, every);
    finish(lanes);
    if (!all) look_into(centroids, tiles, lanes, count, cells);
}

// Each token looks at the centroids of its own best cells, which probes_ has. A cell is read once, by all tokens that
// want it, gathered into tiles of their own. The best cell of each token comes first, then the second best of each, so
// that thresholds rise early; the order changes no result.
void TileProber::look_into(const Centroids& centroids, const int8_t* tiles, int lanes, int64_t count, int64_t cells) {
    readers_.resize(centroids.cell_count);
    for (int lane = 0; lane < lanes; ++lane)
        for (int64_t i = 0; i < cells; ++i) readers_[probes_[lane * cells + i].centroid].push_back(lane);
    std::swap(wanted_, probes_);
    start(lanes, std::min(count, centroids.count), centroids.count);
    for (int64_t i = 0; i < lanes * cells; ++i) {
        const uint32_t c = wanted_[i % lanes * cells + i / lanes].centroid;
        if (readers_[c].empty()) continue;
        gather_lanes(tiles, readers_[c], centroids.depth, gathered_);
        const int64_t first = centroids.cell_offsets[c];
        collect(centroids.rows, first, centroids.cell_offsets[c + 1] - first, centroids.depth, gathered_.data(),
                readers_[c]);
        readers_[c].clear();
    }
    finish(lanes);
}

void Prober::run(const Centroids& centroids, const int8_t* tiles, int lanes, int64_t count, int64_t cells,
                 int threads) {
    const int ntiles = static_cast<int>(tiles_for(lanes));
    const int most = std::min(ntiles, threads > 0 ? threads : default_threads());
    run_ = (ntiles + most - 1) / most * kLanes;
    const int parts = (lanes + run_ - 1) / run_;
    if (static_cast<int>(parts_.size()) < parts) parts_.resize(parts);
    parallel_for(parts, threads, [&](int64_t part, int) {
        const int first = static_cast<int>(part) * run_;
        parts_[part].run(centroids, tiles + first * centroids.depth, std::min(run_, lanes - first), count, cells);
    });
}

}  // namespace lateint::codes
