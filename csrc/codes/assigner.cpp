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
constexpr int64_t kRun = 1 << 16;    // tokens that look for their centroids at a time, so that they stay in caches
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
    if (cells <= 0 || cells >= static_cast<int64_t>(groups_.size())) return nearest_of_all(tokens, n, threads, ids);
    Pairs pairs;
    for (int64_t first = 0; first < n; first += kRun) {
        const int64_t size = std::min(kRun, n - first);
        pairs.cell.resize(size * cells);
        route(tokens + first * depth_, size, cells, threads, pairs.cell.data());
        nearest_of_cells(tokens + first * depth_, size, cells, threads, pairs, ids + first);
    }
}

// The nearest of the centroids of the cells of each token.
void Assigner::nearest_of_cells(const uint8_t* tokens, int64_t n, int cells, int threads, Pairs& pairs,
                                uint32_t* ids) const {
    const auto cell_count = static_cast<int64_t>(groups_.size());
    pairs.sort(cell_count);
    pairs.best.assign(n * cells, kWorst);
    pairs.found.assign(n * cells, 0);
    parallel_for(cell_count, threads, [&](int64_t c, int) {
        constexpr int64_t kBlock = 256;
        const int64_t begin = pairs.starts[c], end = pairs.starts[c + 1];
        if (begin == end || groups_[c].size == 0) return;
        const Session session(int8_kernels());
        std::vector<uint8_t> rows(std::min(kBlock, end - begin) * depth_);
        std::vector<int32_t> scratch(kGroupRows * kGroupTiles * kLanes), top(kBlock), id(kBlock);
        for (int64_t b = begin; b < end; b += kBlock) {
            const int64_t count = std::min(kBlock, end - b);
            const uint32_t* const pair = pairs.order.data() + b;
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(rows.data() + i * depth_, tokens + int64_t(pair[i] / cells) * depth_, depth_);
            std::fill(top.begin(), top.end(), kWorst);
            std::fill(id.begin(), id.end(), 0);
            offer(groups_[c], rows.data(), count, scratch.data(), top.data(), id.data());
            for (int64_t i = 0; i < count; ++i) pairs.best[pair[i]] = top[i], pairs.found[pair[i]] = id[i];
        }
    });
    for (int64_t i = 0; i < n; ++i) {
        int64_t winner = i * cells;
        for (int64_t p = winner + 1; p < (i + 1) * cells; ++p)
            if (pairs.best[p] > pairs.best[winner]) winner = p;
        ids[i] = static_cast<uint32_t>(pairs.found[winner]);
    }
}

void Assigner::Pairs::sort(int64_t cell_count) {
    starts.assign(cell_count + 1, 0);
    for (uint32_t c : cell) ++starts[c + 1];
    for (int64_t c = 0; c < cell_count; ++c) starts[c + 1] += starts[c];
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    order.resize(cell.size());
    for (size_t p = 0; p < cell.size(); ++p) order[next[cell[p]]++] = static_cast<uint32_t>(p);
}

void cluster_means(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                   uint8_t* means, int64_t* members) {
    std::vector<int64_t> starts(count + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++starts[ids[i] + 1];
    for (int64_t c = 0; c < count; ++c) members[c] = starts[c + 1], starts[c + 1] += starts[c];
    std::vector<uint32_t> order(n);
    {
        std::vector<int64_t> next(starts.begin(), starts.end() - 1);
        for (int64_t i = 0; i < n; ++i) order[next[ids[i]]++] = static_cast<uint32_t>(i);
    }
    constexpr int64_t kBlock = 64;
    parallel_for_chunks(count, kBlock, threads, [&](int64_t first, int64_t size) {
        std::vector<int32_t> sums(depth);
        for (int64_t c = first; c < first + size; ++c) {
            std::fill(sums.begin(), sums.end(), 0);
            for (int64_t p = starts[c]; p < starts[c + 1]; ++p) {
                const uint8_t* row = tokens + int64_t(order[p]) * depth;
                for (int64_t k = 0; k < depth; ++k) sums[k] += row[k];
            }
            const int64_t many = std::max<int64_t>(members[c], 1);
            for (int64_t k = 0; k < depth; ++k)
                means[c * depth + k] = static_cast<uint8_t>((2 * int64_t(sums[k]) + many) / (2 * many));
        }
    });
}

}  // namespace lateint::codes
