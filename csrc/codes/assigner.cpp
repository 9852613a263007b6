#include "codes/assigner.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>

#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kRun = 1 << 17;  // tokens that look for their centroids at a time
constexpr int64_t kRouted = 512;   // of them, that a thread sends to their cells at a time
constexpr int64_t kBlock = 512;    // tokens that are compared with a group at a time
constexpr int64_t kAhead = 16;     // tokens between the prefetch of a row and its copy

std::vector<uint32_t> numbers(int64_t first, int64_t last) {
    std::vector<uint32_t> ids(last - first);
    std::iota(ids.begin(), ids.end(), static_cast<uint32_t>(first));
    return ids;
}

// The larger, the nearer; the lowest id among equals has the largest.
int64_t key_of(int32_t score, uint32_t id) { return int64_t{score} * (int64_t{1} << 32) + (~uint32_t{0} - id); }
void take(int64_t& key, int32_t score, uint32_t id) { key = std::max(key, key_of(score, id)); }
uint32_t id_of(int64_t key) { return ~uint32_t{0} - static_cast<uint32_t>(key); }

void copy_row(const uint8_t* from, int64_t depth, uint8_t* to) {
    for (int64_t k = 0; k < depth; k += kDepthStep) std::memcpy(to + k, from + k, kDepthStep);
}

// The places of the best scores of a row less their bias, the lowest among equals. Few reach the score that enough of
// them are sure to reach, and only these are compared.
class BestPlaces {
public:
    explicit BestPlaces(int lanes) : lanes_(lanes), kept_(lanes + kLanes), rows_(lanes + kLanes), keys_(lanes) {}

    // chosen[0..count), at most as many as there are lanes. Spoils scores.
    void choose(const Int8Kernels& kernels, int32_t* scores, const int32_t* bias, int count, uint32_t* chosen) {
        const int32_t reached = kernels.less_bias(scores, bias, lanes_, std::min(count, kLanes));
        const int64_t n =
            kernels.above(scores, lanes_, count > kLanes ? kWorst : reached - 1, 0, kept_.data(), rows_.data());
        for (int64_t i = 0; i < n; ++i) keys_[i] = key_of(kept_[i], rows_[i]);
        std::partial_sort(keys_.begin(), keys_.begin() + count, keys_.begin() + n, std::greater<int64_t>());
        std::transform(keys_.begin(), keys_.begin() + count, chosen, id_of);
    }

private:
    int lanes_;
    std::vector<int32_t> kept_;  // the scores that are compared, and their places
    std::vector<uint32_t> rows_;
    std::vector<int64_t> keys_;
};

}  // namespace

// Pairs of one cell, and which of them look into which of its subcells.
struct Assigner::Block {
    explicit Block(int64_t depth) : rows(kBlock * depth), few(kBlock * depth), products(kBlock * kSubcells) {}
    std::vector<uint8_t> rows, few;  // their tokens; those that look into a subcell
    std::vector<int32_t> products;   // of rows with the centres of the subcells
    uint32_t of[kSubcells][kBlock];  // which rows these are ...
    int64_t looking[kSubcells];      // ... and how many
    int64_t keys[kBlock];
    GroupScratch scratch;
};

Assigner::Assigner(const Centroids& centroids, const Subcells* subcells, int threads)
    : depth_(centroids.depth),
      centres_(pack(centroids.cells, depth_, numbers(0, centroids.cell_count))),
      cells_(centroids.cell_count) {
    parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
        Cell& cell = cells_[c];
        if (subcells == nullptr) {
            const int64_t first = centroids.cell_offsets[c], last = centroids.cell_offsets[c + 1];
            if (first < last) cell.groups.push_back(pack(centroids.rows, depth_, numbers(first, last)));
            return;
        }
        cell.centres = pack(subcells->centres.data(), depth_, numbers(subcells->first[c], subcells->first[c + 1]));
        for (uint32_t s : cell.centres.ids) {
            const auto members = subcells->members.begin();
            cell.groups.push_back(
                pack(centroids.rows, depth_, {members + subcells->offsets[s], members + subcells->offsets[s + 1]}));
        }
    });
}

void Assigner::nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const {
    if (cells <= 0 || cells >= static_cast<int64_t>(cells_.size())) return nearest_of_all(tokens, n, threads, ids);
    Pairs pairs{cells, {}, {}, {}};
    for (int64_t first = 0; first < n; first += kRun) {
        const int64_t size = std::min(kRun, n - first);
        route(tokens + first * depth_, size, threads, pairs);
        nearest_of_cells(tokens + first * depth_, size, threads, pairs, ids + first);
    }
}

void Assigner::nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const {
    constexpr int64_t kTokens = 512;
    parallel_for_chunks(n, kTokens, threads, [&](int64_t first, int64_t size) {
        const Session session(int8_kernels());
        GroupScratch scratch;
        std::vector<int64_t> keys(size, key_of(kWorst, 0));
        for (const Cell& cell : cells_)
            for (const Group& group : cell.groups)
                nearest_in(group, session.kernels, tokens + first * depth_, size, depth_, scratch,
                           [&](int64_t i, int32_t score, uint32_t id) { take(keys[i], score, id); });
        std::transform(keys.begin(), keys.end(), ids + first, id_of);
    });
}

// The cells nearest to each token.
void Assigner::route(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs) const {
    const int lanes = centres_.ntiles() * kLanes;
    pairs.cell.resize(n * pairs.each);
    parallel_for_chunks(n, kRouted, threads, [&](int64_t first, int64_t size) {
        const Session session(int8_kernels());
        std::vector<int32_t> scores(kGroupRows * lanes);
        BestPlaces places(lanes);
        for (int64_t end = first + size; first < end; first += kGroupRows) {
            const int64_t rows = std::min(kGroupRows, end - first);
            session.kernels.dot(tokens + first * depth_, rows, depth_, centres_.tiles.data(), centres_.ntiles(),
                                scores.data());
            for (int64_t r = 0; r < rows; ++r)
                places.choose(session.kernels, scores.data() + r * lanes, centres_.bias.data(), pairs.each,
                              pairs.cell.data() + (first + r) * pairs.each);
        }
    });
    pairs.sort(static_cast<int64_t>(cells_.size()));
}

// The nearest of the centroids of the cells of each token, or of parts of these.
void Assigner::nearest_of_cells(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs, uint32_t* ids) const {
    std::vector<int64_t> keys(n * pairs.each, key_of(kWorst, 0));
    std::vector<std::optional<Block>> blocks(threads_for(threads));
    parallel_for(static_cast<int64_t>(cells_.size()), threads, [&](int64_t c, int worker) {
        if (cells_[c].groups.empty()) return;
        std::optional<Block>& of_worker = blocks[worker];
        Block& block = of_worker ? *of_worker : of_worker.emplace(depth_);
        for (int64_t begin = pairs.starts[c]; begin < pairs.starts[c + 1]; begin += kBlock)
            look_into(cells_[c], tokens, pairs.order.data() + begin, std::min(kBlock, pairs.starts[c + 1] - begin),
                      pairs.each, block, keys.data());
    });
    for (int64_t i = 0; i < n; ++i) {
        const auto begin = keys.begin() + i * pairs.each;
        ids[i] = id_of(*std::max_element(begin, begin + pairs.each));
    }
}

void Assigner::look_into(const Cell& cell, const uint8_t* tokens, const uint32_t* pairs, int64_t count, int each,
                         Block& block, int64_t* keys) const {
    const Session session(int8_kernels());
    const auto token = [&](int64_t i) { return tokens + int64_t(pairs[i] / each) * depth_; };
    for (int64_t i = 0; i < count; ++i) {
        if (i + kAhead < count)
            for (int64_t k = 0; k < depth_; k += 64) __builtin_prefetch(token(i + kAhead) + k);
        copy_row(token(i), depth_, block.rows.data() + i * depth_);
    }
    std::fill_n(block.keys, count, key_of(kWorst, 0));
    if (cell.groups.size() == 1) {
        nearest_in(cell.groups[0], session.kernels, block.rows.data(), count, depth_, block.scratch,
                   [&](int64_t i, int32_t score, uint32_t id) { take(block.keys[i], score, id); });
    } else {
        send_to_subcells(cell, session.kernels, pairs, count, each, block);
        for (size_t s = 0; s < cell.groups.size(); ++s) {
            const uint32_t* const some = block.of[s];
            for (int64_t r = 0; r < block.looking[s]; ++r)
                copy_row(block.rows.data() + some[r] * depth_, depth_, block.few.data() + r * depth_);
            nearest_in(cell.groups[s], session.kernels, block.few.data(), block.looking[s], depth_, block.scratch,
                       [&](int64_t r, int32_t score, uint32_t id) { take(block.keys[some[r]], score, id); });
        }
    }
    for (int64_t i = 0; i < count; ++i) keys[pairs[i]] = block.keys[i];
}

// Which rows look into which subcells: into fewer in cells that are farther off.
void Assigner::send_to_subcells(const Cell& cell, const Int8Kernels& kernels, const uint32_t* pairs, int64_t count,
                                int each, Block& block) const {
    kernels.dot(block.rows.data(), count, depth_, cell.centres.tiles.data(), 1, block.products.data());
    std::fill_n(block.looking, kSubcells, 0);
    for (int64_t first = 0; first < count; first += kLanes) {
        int32_t looked_into[kLanes] = {};
        for (int64_t i = first; i < std::min(first + kLanes, count); ++i)
            looked_into[i - first] = std::min<int>(each - static_cast<int>(pairs[i]) % each, cell.groups.size());
        uint32_t looking[kSubcells];
        kernels.best_lanes(block.products.data() + first * kSubcells, cell.centres.bias.data(), looked_into, looking);
        for (int s = 0; s < kSubcells; ++s)
            for (uint32_t rows = looking[s]; rows != 0; rows &= rows - 1)
                block.of[s][block.looking[s]++] = static_cast<uint32_t>(first + __builtin_ctz(rows));
    }
}

void Assigner::Pairs::sort(int64_t cell_count) {
    starts.assign(cell_count + 1, 0);
    for (uint32_t c : cell) ++starts[c + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
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
