#include "codes/centroids.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "codes/int8.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int kGroupTiles = 16;      // centroids are taken 256 at a time ...
constexpr int64_t kGroupRows = 32;   // ... by 32 tokens, so that the scores stay in the first-level cache
constexpr int32_t kNever = 1 << 30;  // bias of absent centroids
constexpr int32_t kWorst = std::numeric_limits<int32_t>::min();

}  // namespace

Assigner::Group Assigner::pack(const uint8_t* rows, int64_t first, int64_t size, int64_t depth) {
    Group group;
    group.first = first;
    group.size = size;
    const int64_t ntiles = tiles_for(size);
    group.tiles.resize(ntiles * depth * kLanes);
    group.bias.assign(ntiles * kLanes, kNever);
    std::vector<int8_t> block(kLanes * depth);
    for (int64_t t = 0; t < ntiles; ++t) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, size - t * kLanes));
        for (int j = 0; j < lanes; ++j) {
            int32_t sum = 0, squares = 0;
            for (int64_t k = 0; k < depth; ++k) {
                const int c = rows[(first + t * kLanes + j) * depth + k] - 128;
                block[j * depth + k] = static_cast<int8_t>(c);
                sum += c;
                squares += c * c;
            }
            group.bias[t * kLanes + j] = 128 * sum + (squares + 1) / 2;
        }
        pack_tile(block.data(), lanes, depth, depth, group.tiles.data() + t * depth * kLanes);
    }
    return group;
}

Assigner::Assigner(const Centroids& centroids, int threads) : depth_(centroids.depth) {
    supers_ = pack(centroids.cells, 0, centroids.cell_count, depth_);
    groups_.resize(centroids.cell_count);
    parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
        groups_[c] = pack(centroids.rows, centroids.cell_offsets[c],
                          centroids.cell_offsets[c + 1] - centroids.cell_offsets[c], depth_);
    });
}

void Assigner::nearest_of(const Group& group, const uint8_t* tokens, int64_t n, int32_t* scratch, int32_t* best,
                          int32_t* ids) const {
    const Int8Kernels& kernels = int8_kernels();
    for (int t = 0; t < group.ntiles(); t += kGroupTiles) {
        const int ntiles = std::min(kGroupTiles, group.ntiles() - t);
        for (int64_t r = 0; r < n; r += kGroupRows) {
            const int64_t rows = std::min(kGroupRows, n - r);
            kernels.dot(tokens + r * depth_, rows, depth_, group.tiles.data() + t * depth_ * kLanes, ntiles, scratch);
            kernels.nearest(scratch, rows, ntiles * kLanes, group.bias.data() + t * kLanes,
                            static_cast<int32_t>(group.first + t * kLanes), best + r, ids + r);
        }
    }
}

void Assigner::assign_flat(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const {
    constexpr int64_t kBlock = 512;
    parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t task, int) {
        const Session session(int8_kernels());
        std::vector<int32_t> scratch(kGroupRows * kGroupTiles * kLanes), best(kBlock, kWorst), found(kBlock, 0);
        const int64_t first = task * kBlock, rows = std::min(kBlock, n - first);
        for (const Group& group : groups_)
            nearest_of(group, tokens + first * depth_, rows, scratch.data(), best.data(), found.data());
        std::copy(found.begin(), found.begin() + rows, ids + first);
    });
}

// out[i * cells + r]: the cells nearest to token i, ascending.
void Assigner::route(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* out) const {
    constexpr int64_t kBlock = 32;
    const int lanes = supers_.ntiles() * kLanes;
    parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t task, int) {
        const Session session(int8_kernels());
        const int64_t first = task * kBlock, rows = std::min(kBlock, n - first);
        std::vector<int32_t> scores(kBlock * lanes);
        session.kernels.dot(tokens + first * depth_, rows, depth_, supers_.tiles.data(), supers_.ntiles(),
                            scores.data());
        for (int64_t r = 0; r < rows; ++r) {
            uint32_t* chosen = out + (first + r) * cells;
            for (int c = 0; c < cells; ++c) {
                int32_t best = kWorst, where = 0;
                session.kernels.nearest(scores.data() + r * lanes, 1, lanes, supers_.bias.data(), 0, &best, &where);
                chosen[c] = static_cast<uint32_t>(where);
                scores[r * lanes + where] = kWorst / 2;  // not to be chosen again
            }
            std::sort(chosen, chosen + cells);
        }
    });
}

void Assigner::assign(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const {
    const int64_t cell_count = static_cast<int64_t>(groups_.size());
    if (cells <= 0 || cells >= cell_count) return assign_flat(tokens, n, threads, ids);
    const int64_t pairs = n * cells;
    std::vector<uint32_t> routed(pairs);
    route(tokens, n, cells, threads, routed.data());
    // Pairs (token, cell) by cell, so that every cell's centroids are read once.
    std::vector<int64_t> starts(cell_count + 1, 0);
    for (uint32_t c : routed) ++starts[c + 1];
    for (int64_t c = 0; c < cell_count; ++c) starts[c + 1] += starts[c];
    std::vector<uint32_t> order(pairs);
    {
        std::vector<int64_t> next(starts.begin(), starts.end() - 1);
        for (int64_t p = 0; p < pairs; ++p) order[next[routed[p]]++] = static_cast<uint32_t>(p);
    }
    std::vector<int32_t> best(pairs, kWorst), found(pairs, 0);  // by pair
    parallel_for(cell_count, threads, [&](int64_t c, int) {
        constexpr int64_t kBlock = 256;
        const int64_t size = starts[c + 1] - starts[c];
        if (size == 0 || groups_[c].size == 0) return;
        const Session session(int8_kernels());
        std::vector<uint8_t> rows(kBlock * depth_);
        std::vector<int32_t> scratch(kGroupRows * kGroupTiles * kLanes), top(kBlock), id(kBlock);
        for (int64_t b = 0; b < size; b += kBlock) {
            const int64_t count = std::min(kBlock, size - b);
            const uint32_t* pair = order.data() + starts[c] + b;
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(rows.data() + i * depth_, tokens + int64_t(pair[i] / cells) * depth_, depth_);
            std::fill(top.begin(), top.end(), kWorst);
            std::fill(id.begin(), id.end(), 0);
            nearest_of(groups_[c], rows.data(), count, scratch.data(), top.data(), id.data());
            for (int64_t i = 0; i < count; ++i) best[pair[i]] = top[i], found[pair[i]] = id[i];
        }
    });
    for (int64_t i = 0; i < n; ++i) {
        int64_t winner = i * cells;
        for (int64_t p = winner + 1; p < (i + 1) * cells; ++p)
            if (best[p] > best[winner]) winner = p;
        ids[i] = static_cast<uint32_t>(found[winner]);
    }
}

void accumulate(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                int32_t* sums, int64_t* members) {
    std::vector<int64_t> starts(count + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++starts[ids[i] + 1];
    for (int64_t c = 0; c < count; ++c) members[c] = starts[c + 1], starts[c + 1] += starts[c];
    std::vector<uint32_t> order(n);
    {
        std::vector<int64_t> next(starts.begin(), starts.end() - 1);
        for (int64_t i = 0; i < n; ++i) order[next[ids[i]]++] = static_cast<uint32_t>(i);
    }
    std::fill(sums, sums + count * depth, 0);
    constexpr int64_t kBlock = 64;
    parallel_for((count + kBlock - 1) / kBlock, threads, [&](int64_t task, int) {
        for (int64_t c = task * kBlock; c < std::min(count, (task + 1) * kBlock); ++c)
            for (int64_t p = starts[c]; p < starts[c + 1]; ++p) {
                const uint8_t* row = tokens + int64_t(order[p]) * depth;
                for (int64_t k = 0; k < depth; ++k) sums[c * depth + k] += row[k];
            }
    });
}

// A key orders by score first and by lower id among equal scores.
static uint64_t key_of(int32_t score, uint32_t id) {
    return uint64_t(static_cast<uint32_t>(score) ^ 0x80000000u) << 32 | (~id & 0xFFFFFFFFu);
}

// Some vectors of tiles as tiles of their own.
static void gather_lanes(const int8_t* tiles, const std::vector<int>& lanes, int64_t depth, std::vector<int8_t>& out) {
    const auto size = static_cast<int64_t>(lanes.size());
    out.assign(round_up(size, kLanes) * depth, 0);
    for (int64_t p = 0; p < size; ++p) {
        const int8_t* from = tiles + lanes[p] / kLanes * depth * kLanes + lanes[p] % kLanes * 4;
        int8_t* to = out.data() + p / kLanes * depth * kLanes + p % kLanes * 4;
        for (int64_t k = 0; k < depth / 4; ++k) std::memcpy(to + k * 4 * kLanes, from + k * 4 * kLanes, 4);
    }
}

static Probe probe_of(uint64_t key) {
    return {static_cast<int32_t>(static_cast<uint32_t>(key >> 32) ^ 0x80000000u), ~static_cast<uint32_t>(key)};
}

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
