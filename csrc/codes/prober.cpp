#include "codes/prober.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int32_t kWorst = std::numeric_limits<int32_t>::min();
constexpr int kLeastLanes = 4;    // of a part
constexpr int kMostLanes = 4096;  // of a part: their lists then take some megabytes
constexpr int64_t kNone = -1;
constexpr int kReadersAtATime = 16;  // their scores of a block of rows stay in the first-level cache
constexpr int64_t kLinesAhead = 64;  // of the next cell, which are fetched before this one is read

// The rows of a cell as tiles, or null.
const uint8_t* tiles_of(TurnedCells& turned, int64_t cell) {
    return int8_kernels().most_turned > 0 ? turned.of(cell) : nullptr;
}

void prefetch(const Centroids& centroids, TurnedCells& turned, int64_t cell) {
    const int64_t first = centroids.cell_offsets[cell], n = centroids.cell_offsets[cell + 1] - first;
    const uint8_t* const tiles = tiles_of(turned, cell);
    const uint8_t* const rows = tiles != nullptr ? tiles : centroids.rows + first * centroids.depth;
    for (int64_t line = 0; line < std::min(n * centroids.depth / 64, kLinesAhead); ++line)
        __builtin_prefetch(rows + 64 * line);
}

}  // namespace

void sort_probes(Probe* probes, int64_t n) {
    std::sort(probes, probes + n, [](const Probe& a, const Probe& b) {
        return a.score != b.score ? a.score > b.score : a.centroid < b.centroid;
    });
}

void Best::start(int64_t count, int64_t offered) {
    count_ = count;
    size_ = 0;
    threshold_ = kWorst;
    const auto room =
        static_cast<size_t>(std::min(4 * count, offered) + kOffered + 16);  // `above` writes up to 16 more
    if (scores_.size() < room) scores_.resize(room), rows_.resize(room);
}

void Best::offer(const int32_t* scores, int64_t n, uint32_t first, const Int8Kernels& kernels) {
    size_ += kernels.above(scores, n, threshold_, first, scores_.data() + size_, rows_.data() + size_);
    if (size_ > 4 * count_) threshold_ = prune(count_, kernels) - 1;
}

int32_t Best::prune(int64_t count, const Int8Kernels& kernels) {
    if (size_ == 0) return 0;  // cells may be empty
    if (size_ <= count) return *std::min_element(scores_.begin(), scores_.begin() + size_);
    const int32_t least = kernels.keep_best(scores_.data(), rows_.data(), size_, count);
    size_ = count;
    return least;
}

int64_t Best::finish(int64_t listed, const Int8Kernels& kernels, Probe* out, int32_t* least) {
    *least = prune(count_, kernels);
    prune(listed, kernels);
    for (int64_t i = 0; i < size_; ++i) out[i] = {scores_[i], rows_[i]};
    return size_;
}

void TokensProber::start(int lanes, int64_t count, int64_t offered) {
    if (static_cast<int>(best_.size()) < lanes) best_.resize(lanes);
    for (int lane = 0; lane < lanes; ++lane) best_[lane].start(count, offered);
}

void TokensProber::finish(int lanes, int64_t listed, bool sorted) {
    const Int8Kernels& kernels = int8_kernels();
    listed_ = listed;
    probes_.resize(lanes * listed);
    sizes_.resize(lanes);
    leasts_.resize(lanes);
    for (int lane = 0; lane < lanes; ++lane) {
        Probe* const probes = probes_.data() + lane * listed;
        sizes_[lane] = best_[lane].finish(listed, kernels, probes, &leasts_[lane]);
        if (sorted) sort_probes(probes, sizes_[lane]);
    }
}

// Offers rows [first, first + n) to the tokens that read them; `turned`: the same rows as tiles, or null.
void TokensProber::offer(const uint8_t* rows, const uint8_t* turned, int64_t first, int64_t n, int64_t depth,
                         const int8_t* tiles, const std::vector<int>& readers) {
    const Int8Kernels& kernels = int8_kernels();
    scores_.resize(kReadersAtATime * Best::kOffered);
    for (int64_t r = first; r < first + n; r += Best::kOffered) {
        if ((r - first) / Best::kOffered % 64 == 63) check_interrupt();
        const int64_t count = std::min(Best::kOffered, first + n - r);
        for (size_t reader = 0; reader < readers.size(); reader += kReadersAtATime) {
            const int m = static_cast<int>(std::min<size_t>(kReadersAtATime, readers.size() - reader));
            const int8_t* lanes[kReadersAtATime];
            for (int j = 0; j < m; ++j) {
                const int lane = first_ + readers[reader + j];
                lanes[j] = tiles + lane / kLanes * depth * kLanes + lane % kLanes * 4;
            }
            if (turned != nullptr && m <= kernels.most_turned)
                kernels.cross_turned(turned + (r - first) * depth, count, depth, lanes, m, scores_.data(),
                                     Best::kOffered);
            else
                kernels.cross(rows + r * depth, count, depth, lanes, m, scores_.data(), Best::kOffered);
            for (int j = 0; j < m; ++j)
                best_[readers[reader + j]].offer(scores_.data() + j * Best::kOffered, count, static_cast<uint32_t>(r),
                                                 kernels);
        }
    }
}

void TokensProber::offer_cell(const Centroids& centroids, TurnedCells& turned, int64_t cell, const int8_t* tiles,
                              const std::vector<int>& readers) {
    const int64_t first = centroids.cell_offsets[cell], n = centroids.cell_offsets[cell + 1] - first;
    offer(centroids.rows, tiles_of(turned, cell), first, n, centroids.depth, tiles, readers);
}

void TokensProber::run(const Centroids& centroids, TurnedCells& turned, const int8_t* tiles, int first, int lanes,
                       int64_t count, int64_t listed, bool sorted, int64_t cells) {
    first_ = first;
    const Session session(int8_kernels());
    const bool all = cells <= 0 || cells >= centroids.cell_count;
    const uint8_t* rows = all ? centroids.rows : centroids.cells;
    const int64_t n = all ? centroids.count : centroids.cell_count;
    std::vector<int> every(lanes);
    std::iota(every.begin(), every.end(), 0);
    start(lanes, std::min(all ? count : cells, n), n);
    const uint8_t* const columns = !all && int8_kernels().most_turned > 0 ? turned.cells() : nullptr;
    offer(rows, columns, 0, n, centroids.depth, tiles, every);
    if (!all) {
        finish(lanes, cells, true);
        start(lanes, std::min(count, centroids.count), centroids.count);
        look_into(centroids, turned, tiles, lanes, cells);
    }
    finish(lanes, std::min(listed, centroids.count), sorted);
}

// Each token looks at the centroids of its own best cells, which probes_ has. A cell is read once, by all tokens that
// want it. The best cell of each token comes first, then the second best of each, so that thresholds rise early; the
// order changes no result.
void TokensProber::look_into(const Centroids& centroids, TurnedCells& turned, const int8_t* tiles, int lanes,
                             int64_t cells) {
    heads_.resize(centroids.cell_count, kNone);
    next_.resize(lanes * cells);
    order_.clear();
    for (int64_t i = 0; i < lanes * cells; ++i) {
        const uint32_t cell = of(static_cast<int>(i % lanes))[i / lanes].centroid;
        if (heads_[cell] == kNone) order_.push_back(cell);
        next_[i] = std::exchange(heads_[cell], i);
    }
    for (size_t o = 0; o < order_.size(); ++o) {
        if (o + 1 < order_.size()) prefetch(centroids, turned, order_[o + 1]);
        readers_.clear();
        for (int64_t i = std::exchange(heads_[order_[o]], kNone); i != kNone; i = next_[i])
            readers_.push_back(static_cast<int>(i % lanes));
        offer_cell(centroids, turned, order_[o], tiles, readers_);
    }
}

int Prober::most_parts(int64_t lanes, int threads) {
    return static_cast<int>(std::clamp<int64_t>(lanes / kLeastLanes, 1, threads_for(threads)));
}

void Prober::run(const Centroids& centroids, TurnedCells& turned, const int8_t* tiles, int lanes, int64_t count,
                 int64_t listed, bool sorted, int64_t cells, int threads) {
    const int most = most_parts(lanes, threads);
    run_ = std::min((lanes + most - 1) / most, kMostLanes);
    const int parts = (lanes + run_ - 1) / run_;
    if (static_cast<int>(parts_.size()) < parts) parts_.resize(parts);
    parallel_for(parts, threads, [&](int64_t part, int) {
        const int first = static_cast<int>(part) * run_;
        parts_[part].run(centroids, turned, tiles, first, std::min(run_, lanes - first), count, listed, sorted, cells);
    });
}

}  // namespace lateint::codes
