#include "codes/assigner.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "codes/subcells.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kRun = 1 << 17;       // tokens that look for their centroids at a time
constexpr int64_t kBlock = 128;         // tokens that are compared with a group at a time
constexpr int32_t kTaken = kWorst / 2;  // score of what is not to be chosen again

std::vector<uint32_t> numbers(int64_t first, int64_t last) {
    std::vector<uint32_t> ids(last - first);
    std::iota(ids.begin(), ids.end(), static_cast<uint32_t>(first));
    return ids;
}

// The larger, the nearer; the lowest id among equals has the largest.
int64_t key_of(int32_t score, uint32_t id) { return (int64_t{score} << 32) + (~uint32_t{0} - id); }
uint32_t id_of(int64_t key) { return ~uint32_t{0} - static_cast<uint32_t>(key); }

// chosen[0..count): the places of the best of `lanes` scores less their bias, the lowest among equals. Spoils scores.
void best_places(const Int8Kernels& kernels, int32_t* scores, int lanes, const int32_t* bias, int count,
                 uint32_t* chosen) {
    for (int c = 0; c < count; ++c) {
        int32_t best = kWorst, where = 0;
        kernels.nearest(scores, 1, lanes, bias, 0, &best, &where);
        chosen[c] = static_cast<uint32_t>(where);
        scores[where] = kTaken;
    }
}

}  // namespace

Assigner::Assigner(const Centroids& centroids, bool subcells, int threads)
    : depth_(centroids.depth), cells_(pack(centroids.cells, depth_, numbers(0, centroids.cell_count))) {
    if (!subcells) {
        groups_.resize(centroids.cell_count);
        parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
            groups_[c] =
                pack(centroids.rows, depth_, numbers(centroids.cell_offsets[c], centroids.cell_offsets[c + 1]));
        });
        return;
    }
    const Subcells divided = subdivide(centroids, threads);
    groups_.resize(divided.offsets.size() - 1);
    centres_.resize(centroids.cell_count);
    parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
        centres_[c] = pack(divided.centres.data(), depth_, numbers(divided.first[c], divided.first[c + 1]));
        for (int64_t s = divided.first[c]; s < divided.first[c + 1]; ++s)
            groups_[s] =
                pack(centroids.rows, depth_,
                     {divided.members.begin() + divided.offsets[s], divided.members.begin() + divided.offsets[s + 1]});
    });
}

void Assigner::nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const {
    if (cells <= 0 || cells >= static_cast<int64_t>(cells_.ids.size())) return nearest_of_all(tokens, n, threads, ids);
    Pairs of_cells{cells, {}, {}, {}}, of_subcells{cells * (cells + 1) / 2, {}, {}, {}};
    for (int64_t first = 0; first < n; first += kRun) {
        const int64_t size = std::min(kRun, n - first);
        const uint8_t* const some = tokens + first * depth_;
        route(some, size, threads, of_cells);
        if (!centres_.empty()) route_on(some, size, threads, of_cells, of_subcells);
        nearest_of_groups(some, size, threads, centres_.empty() ? of_cells : of_subcells, ids + first);
    }
}

void Assigner::nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const {
    constexpr int64_t kTokens = 512;
    parallel_for_chunks(n, kTokens, threads, [&](int64_t first, int64_t size) {
        const Session session(int8_kernels());
        GroupScratch scratch;
        std::vector<int64_t> keys(size, key_of(kWorst, 0));
        for (const Group& group : groups_)
            nearest_in(group, session.kernels, tokens + first * depth_, size, depth_, scratch,
                       [&](int64_t i, int32_t score, uint32_t id) { keys[i] = std::max(keys[i], key_of(score, id)); });
        std::transform(keys.begin(), keys.end(), ids + first, id_of);
    });
}

// The cells nearest to each token, the nearest one first.
void Assigner::route(const uint8_t* tokens, int64_t n, int threads, Pairs& cells) const {
    const int lanes = cells_.ntiles() * kLanes;
    cells.group.resize(n * cells.each);
    parallel_for_chunks(n, kGroupRows, threads, [&](int64_t first, int64_t rows) {
        const Session session(int8_kernels());
        std::vector<int32_t> scores(kGroupRows * lanes);
        session.kernels.dot(tokens + first * depth_, rows, depth_, cells_.tiles.data(), cells_.ntiles(), scores.data());
        for (int64_t r = 0; r < rows; ++r)
            best_places(session.kernels, scores.data() + r * lanes, lanes, cells_.bias.data(), cells.each,
                        cells.group.data() + (first + r) * cells.each);
    });
}

// The subcells of its cells that each token looks into; the best one of a cell again where it has too few.
void Assigner::route_on(const uint8_t* tokens, int64_t n, int threads, Pairs& cells, Pairs& subcells) const {
    const auto cell_count = static_cast<int64_t>(centres_.size());
    cells.sort(cell_count);
    subcells.group.assign(n * subcells.each, static_cast<uint32_t>(groups_.size()));
    parallel_for(cell_count, threads, [&](int64_t c, int) {
        const Session session(int8_kernels());
        const Group& centres = centres_[c];
        if (centres.ids.empty()) return;  // its pairs keep a number that no group has
        std::vector<uint8_t> rows(kBlock * depth_);
        int32_t products[kBlock * kLanes];
        for (int64_t begin = cells.starts[c]; begin < cells.starts[c + 1]; begin += kBlock) {
            const int64_t count = std::min(kBlock, cells.starts[c + 1] - begin);
            const uint32_t* const pair = cells.order.data() + begin;
            gather(tokens, pair, count, cells.each, rows.data());
            session.kernels.dot(rows.data(), count, depth_, centres.tiles.data(), 1, products);
            for (int64_t i = 0; i < count; ++i) {
                const int rank = pair[i] % cells.each, looked_into = cells.each - rank;
                uint32_t* const chosen = subcells.group.data() + int64_t{pair[i] / cells.each} * subcells.each +
                                         subcells.each - looked_into * (looked_into + 1) / 2;
                best_places(session.kernels, products + i * kLanes, kLanes, centres.bias.data(), looked_into, chosen);
                for (int s = 0; s < looked_into; ++s)
                    chosen[s] = chosen[s] < centres.ids.size() ? centres.ids[chosen[s]] : chosen[0];
            }
        }
    });
}

// The nearest of the centroids of the groups of each token.
void Assigner::nearest_of_groups(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs, uint32_t* ids) const {
    const auto count = static_cast<int64_t>(groups_.size());
    pairs.sort(count + 1);
    std::vector<int64_t> keys(n * pairs.each, key_of(kWorst, 0));
    constexpr int64_t kGroups = 16;  // of a task: neighbours, which mostly are of one cell
    parallel_for_chunks(count, kGroups, threads, [&](int64_t first, int64_t size) {
        const Session session(int8_kernels());
        std::vector<uint8_t> rows(kBlock * depth_);
        GroupScratch scratch;
        for (int64_t g = first; g < first + size; ++g) {
            if (groups_[g].ids.empty()) continue;
            for (int64_t begin = pairs.starts[g]; begin < pairs.starts[g + 1]; begin += kBlock) {
                const int64_t some = std::min(kBlock, pairs.starts[g + 1] - begin);
                const uint32_t* const pair = pairs.order.data() + begin;
                gather(tokens, pair, some, pairs.each, rows.data());
                nearest_in(groups_[g], session.kernels, rows.data(), some, depth_, scratch,
                           [&](int64_t i, int32_t score, uint32_t id) { keys[pair[i]] = key_of(score, id); });
            }
        }
    });
    for (int64_t i = 0; i < n; ++i) {
        const auto begin = keys.begin() + i * pairs.each;
        ids[i] = id_of(*std::max_element(begin, begin + pairs.each));
    }
}

// The tokens of so many pairs, one after another.
void Assigner::gather(const uint8_t* tokens, const uint32_t* pairs, int64_t count, int each, uint8_t* rows) const {
    for (int64_t i = 0; i < count; ++i)
        std::memcpy(rows + i * depth_, tokens + int64_t(pairs[i] / each) * depth_, depth_);
}

void Assigner::Pairs::sort(int64_t groups) {
    starts.assign(groups + 1, 0);
    for (uint32_t g : group) ++starts[g + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    order.resize(group.size());
    for (size_t p = 0; p < group.size(); ++p) order[next[group[p]]++] = static_cast<uint32_t>(p);
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
