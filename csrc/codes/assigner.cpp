#include "codes/assigner.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

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
    cells_ = pack(centroids.cells, 0, centroids.cell_count, depth_);
    groups_.resize(centroids.cell_count);
    parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
        groups_[c] = pack(centroids.rows, centroids.cell_offsets[c],
                          centroids.cell_offsets[c + 1] - centroids.cell_offsets[c], depth_);
    });
}

void Assigner::offer(const Group& group, const uint8_t* tokens, int64_t n, int32_t* scratch, int32_t* best,
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

void Assigner::nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const {
    constexpr int64_t kBlock = 512;
    parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t task, int) {
        const Session session(int8_kernels());
        std::vector<int32_t> scratch(kGroupRows * kGroupTiles * kLanes), best(kBlock, kWorst), found(kBlock, 0);
        const int64_t first = task * kBlock, rows = std::min(kBlock, n - first);
        for (const Group& group : groups_)
            offer(group, tokens + first * depth_, rows, scratch.data(), best.data(), found.data());
        std::copy(found.begin(), found.begin() + rows, ids + first);
    });
}

// out[i * cells + r]: the cells nearest to token i, ascending.
void Assigner::route(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* out) const {
    constexpr int64_t kBlock = 32;
    const int lanes = cells_.ntiles() * kLanes;
    parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t task, int) {
        const Session session(int8_kernels());
        const int64_t first = task * kBlock, rows = std::min(kBlock, n - first);
        std::vector<int32_t> scores(kBlock * lanes);
        session.kernels.dot(tokens + first * depth_, rows, depth_, cells_.tiles.data(), cells_.ntiles(), scores.data());
        for (int64_t r = 0; r < rows; ++r) {
            uint32_t* chosen = out + (first + r) * cells;
            for (int c = 0; c < cells; ++c) {
                int32_t best = kWorst, where = 0;
                session.kernels.nearest(scores.data() + r * lanes, 1, lanes, cells_.bias.data(), 0, &best, &where);
                chosen[c] = static_cast<uint32_t>(where);
                scores[r * lanes + where] = kWorst / 2;  // not to be chosen again
            }
            std::sort(chosen, chosen + cells);
        }
    });
}

void Assigner::nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const {
    const int64_t cell_count = static_cast<int64_t>(groups_.size());
    if (cells <= 0 || cells >= cell_count) return nearest_of_all(tokens, n, threads, ids);
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
            offer(groups_[c], rows.data(), count, scratch.data(), top.data(), id.data());
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

void cluster_sums(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
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

}  // namespace lateint::codes
