// What XTR's scores are made of: the largest product of each query token in each document, and the smallest that is
// among its k largest of all. The products of a few query tokens with some thousand document tokens are kept at a time.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "platform/buffer.hpp"
#include "platform/threads.hpp"
#include "train/kernel.hpp"
#include "train/problem.hpp"
#include "train/tokens.hpp"

namespace lateint::train {
namespace {

constexpr int64_t kPanel = 2 * kLanes;  // query tokens of a task
constexpr int64_t kTiles = kPanel / kLanes;
constexpr int64_t kChunk = 128;      // document tokens that are multiplied together
constexpr int64_t kBlock = 6 << 10;  // whose products are kept: in the second cache
constexpr int kHalvings = 12;        // of the range in which a bound is looked for
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The k largest products of each lane so far.
class Largest {
public:
    void begin(int64_t k, int64_t lanes) {
        k_ = k;
        for (int64_t lane = 0; lane < kPanel; ++lane) {
            kept_[lane].clear();
            bound_[lane] = lane < lanes ? -kInfinity : kInfinity;
        }
    }
    // Takes products [count][kPanel] in. groups [group_count][kPanel] has the largest ones of parts of them.
    void take(const LaneKernel& kernel, const float* products, int64_t count, const float* groups, int64_t group_count);
    // The smallest of them; if there are fewer, of all.
    float least(int64_t lane) const {
        const std::vector<float>& kept = kept_[lane];
        return kept.empty() ? 0 : *std::min_element(kept.begin(), kept.end());
    }

private:
    void raise_bound(const LaneKernel& kernel, const float* groups, int64_t group_count);
    void keep(int64_t lane);

    int64_t k_ = 0;
    std::vector<float> kept_[kPanel];
    float bound_[kPanel];  // nothing below it can be among them
    std::vector<uint16_t> bits_;
};

// Where k groups have something that is not below a bound, so have k products. The largest such bound, nearly.
void Largest::raise_bound(const LaneKernel& kernel, const float* groups, int64_t group_count) {
    float low[kPanel], high[kPanel], middle[kPanel], counts[kPanel];
    std::copy_n(groups, kPanel, low);
    std::copy_n(groups, kPanel, high);
    for (int64_t i = 1; i < group_count; ++i) {
        for (int64_t lane = 0; lane < kPanel; ++lane) {
            low[lane] = std::min(low[lane], groups[i * kPanel + lane]);
            high[lane] = std::max(high[lane], groups[i * kPanel + lane]);
        }
    }
    for (int64_t lane = 0; lane < kPanel; ++lane) {
        if (!std::isfinite(low[lane]) || !std::isfinite(high[lane])) low[lane] = high[lane] = -kInfinity;
    }
    for (int halving = 0; halving < kHalvings; ++halving) {
        for (int64_t lane = 0; lane < kPanel; ++lane) middle[lane] = 0.5f * low[lane] + 0.5f * high[lane];
        kernel.count_from(groups, group_count, kPanel, kTiles, middle, counts);
        for (int64_t lane = 0; lane < kPanel; ++lane) {
            (counts[lane] >= static_cast<float>(k_) ? low : high)[lane] = middle[lane];
        }
    }
    for (int64_t lane = 0; lane < kPanel; ++lane) bound_[lane] = std::max(bound_[lane], low[lane]);
}

void Largest::keep(int64_t lane) {
    std::vector<float>& kept = kept_[lane];
    if (static_cast<int64_t>(kept.size()) < k_) return;
    std::nth_element(kept.begin(), kept.begin() + (k_ - 1), kept.end(), std::greater<float>());
    kept.resize(static_cast<size_t>(k_));
    bound_[lane] = kept.back();
}

void Largest::take(const LaneKernel& kernel, const float* products, int64_t count, const float* groups,
                   int64_t group_count) {
    if (group_count >= k_) raise_bound(kernel, groups, group_count);
    bits_.resize(static_cast<size_t>(count * kTiles));
    kernel.find_from(products, count, kPanel, kTiles, bound_, bits_.data());
    for (int64_t i = 0; i < count * kTiles; ++i) {
        for (uint32_t bits = bits_[i]; bits != 0; bits &= bits - 1) {
            const int64_t lane = i % kTiles * kLanes + __builtin_ctz(bits);
            const float product = products[i / kTiles * kPanel + lane];
            kept_[lane].push_back(std::isnan(product) ? kInfinity : product);
        }
    }
    for (int64_t lane = 0; lane < kPanel; ++lane) keep(lane);
}

struct Worker {
    DocumentTokens tokens;
    ExactProducts exact;
    Largest largest;
    Buffer scratch, products, groups;
    int64_t kept = 0, group_count = 0;  // of products and groups
};

class Retrieval {
public:
    Retrieval(const Problem& problem, int64_t k, float* best, Positions positions, float* least, int threads)
        : problem_(problem),
          best_(best),
          positions_(positions),
          least_(least),
          threads_(threads),
          kernel_(forward_kernel(problem.dtype)),
          lane_kernel_(lane_kernel()),
          queries_(problem, kernel_, kPanel, threads) {
        int64_t tokens = 0;
        for (int64_t t = 0; t < problem.document_rows(); ++t) tokens += problem.document_present(t);
        k_ = std::min(k, tokens);
        // The bound is better the smaller groups are, and found faster the fewer they are.
        const int64_t of_each = std::min(tokens, kBlock) / std::max<int64_t>(1, k_);
        while (4 * group_ * group_ <= of_each) group_ *= 2;
    }

    void run();

private:
    void panel(int64_t panel, Worker& worker) const;
    void document(int64_t panel, int64_t document, Worker& worker) const;
    void multiply(int64_t panel, int64_t document, int64_t first, int64_t count, Worker& worker, float* best,
                  float* position) const;
    void flush(int64_t panel, Worker& worker) const;
    void write(int64_t s, int64_t document, float best, int64_t position) const;

    const Problem& problem_;
    float* const best_;
    const Positions positions_;
    float* const least_;
    const int threads_;
    const ForwardKernel& kernel_;
    const LaneKernel& lane_kernel_;
    const QueryPanels queries_;
    int64_t k_ = 0, group_ = 1;
};

void Retrieval::run() {
    const int64_t rows = problem_.query_rows(), documents = problem_.document_count;
    std::fill_n(best_, rows * documents, 0.0f);
    std::fill_n(least_, rows, 0.0f);
    if (positions_.data != nullptr)
        std::fill_n(static_cast<char*>(positions_.data), rows * documents * positions_.bytes, 0);
    std::vector<Worker> workers(threads_);
    parallel_for(queries_.panels(), threads_, [&](int64_t number, int id) { panel(number, workers[id]); });
}

void Retrieval::panel(int64_t panel, Worker& worker) const {
    const Session session(kernel_);
    const int64_t documents = problem_.document_count;
    worker.largest.begin(k_, queries_.count(panel));
    worker.kept = worker.group_count = 0;
    worker.products.get((kBlock + kChunk) * kPanel * 4);
    worker.groups.get((kBlock + kChunk) * kPanel * 4);
    for (int64_t j = 0; j < documents; ++j) document(panel, j, worker);
    flush(panel, worker);
    for (int64_t lane = 0; lane < queries_.count(panel); ++lane) {
        const int64_t s = queries_.rows(panel)[lane];
        least_[s] = worker.largest.least(lane) * problem_.query_inverse_norm(s);
    }
}

void Retrieval::document(int64_t panel, int64_t document, Worker& worker) const {
    const int64_t* const rows = queries_.rows(panel);
    float best[kPanel], position[kPanel] = {};
    std::fill_n(best, kPanel, -kInfinity);
    const bool any = worker.tokens.open(problem_, kernel_, document);
    for (int64_t first = 0; first < worker.tokens.size(); first += kChunk) {
        multiply(panel, document, first, std::min(kChunk, worker.tokens.size() - first), worker, best, position);
    }
    for (int64_t lane = 0; lane < queries_.count(panel); ++lane) {
        if (any) position[lane] = static_cast<float>(worker.tokens.position(static_cast<int64_t>(position[lane])));
        if (std::isnan(best[lane])) {  // not finite, or the kernel does not vouch for it
            worker.exact.open(problem_, rows[lane]);
            worker.exact.largest(document, best[lane], position[lane]);
        }
        write(rows[lane], document, best[lane], static_cast<int64_t>(position[lane]));
    }
}

void Retrieval::multiply(int64_t panel, int64_t document, int64_t first, int64_t count, Worker& worker, float* best,
                         float* position) const {
    const int64_t lanes = queries_.count(panel);
    float* const products = reinterpret_cast<float*>(worker.products.data()) + worker.kept * kPanel;
    float* const groups = reinterpret_cast<float*>(worker.groups.data()) + worker.group_count * kPanel;
    if (lanes <= kLanes) std::fill_n(products, count * kPanel, 0.0f);
    kernel_.products(queries_.tiles(panel), tiles_for(lanes), worker.tokens.rows(first, count), count, problem_.dim,
                     worker.tokens.scales(first), worker.scratch.get(kernel_.scratch_bytes(problem_.dim)), products,
                     kPanel);
    float poison[kPanel];
    lane_kernel_.check(products, count, kPanel, kTiles, poison);
    if (!std::all_of(poison, poison + lanes, [](float x) { return x == 0; })) {
        repair(problem_, document, worker.tokens, first, count, queries_.rows(panel), lanes, kPanel, products);
    }
    lane_kernel_.largest(products, count, kPanel, kTiles, first, best, position, group_, groups);
    worker.kept += count;
    worker.group_count += (count + group_ - 1) / group_;
    if (worker.kept >= kBlock) flush(panel, worker);
}

void Retrieval::flush(int64_t panel, Worker& worker) const {
    if (worker.kept == 0) return;
    worker.largest.take(lane_kernel_, reinterpret_cast<const float*>(worker.products.data()), worker.kept,
                        reinterpret_cast<const float*>(worker.groups.data()), worker.group_count);
    worker.kept = worker.group_count = 0;
}

void Retrieval::write(int64_t s, int64_t document, float best, int64_t position) const {
    best_[s * problem_.document_count + document] = best * problem_.query_inverse_norm(s);
    const int64_t at = document * problem_.query_rows() + s;
    if (positions_.data == nullptr) return;
    if (positions_.bytes == 1) static_cast<uint8_t*>(positions_.data)[at] = static_cast<uint8_t>(position);
    if (positions_.bytes == 2) static_cast<int16_t*>(positions_.data)[at] = static_cast<int16_t>(position);
    if (positions_.bytes == 4) static_cast<int32_t*>(positions_.data)[at] = static_cast<int32_t>(position);
}

}  // namespace

void retrieve(const Problem& problem, int64_t k, float* best, Positions positions, float* least, int threads) {
    Retrieval(problem, k, best, positions, least, threads_for(threads)).run();
}

}  // namespace lateint::train
