// The smooth maximum and its gradients. Products are made again for the gradients, so that no more of them are kept
// than a worker needs at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "platform/buffer.hpp"
#include "platform/threads.hpp"
#include "train/kernel.hpp"
#include "train/problem.hpp"
#include "train/tokens.hpp"

namespace lateint::train {
namespace {

constexpr int64_t kTogether = 2 * kLanes;  // query tokens whose products are made together, and stay in the first cache
constexpr int64_t kChunk = 128;            // document tokens, likewise
constexpr int64_t kPanel = 128;            // query tokens of a task
constexpr int64_t kGroups = 32;            // of documents, each with its own sums of the gradients of queries
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = -3e38f;  // stands in for minus infinity, of which differences are taken

// ---- forward ----

struct ForwardWorker {
    DocumentTokens tokens;
    Buffer scratch, products;
};

class SmoothForward {
public:
    SmoothForward(const Problem& problem, float temperature, float* found, int threads)
        : problem_(problem),
          temperature_(temperature),
          found_(found),
          threads_(threads),
          kernel_(forward_kernel(problem.dtype)),
          lane_kernel_(lane_kernel()),
          queries_(problem, kernel_, kPanel, threads) {}

    void run() {
        const int64_t documents = problem_.document_count;
        std::fill_n(found_, problem_.query_rows() * documents, 0.0f);
        std::vector<ForwardWorker> workers(threads_);
        parallel_for(queries_.panels() * documents, threads_, [&](int64_t task, int id) {
            const Session session(kernel_);
            panel(task / documents, task % documents, workers[id]);
        });
    }

private:
    void panel(int64_t panel, int64_t document, ForwardWorker& worker) const;
    void settle(int64_t document, const DocumentTokens& tokens, int64_t first, int64_t chunk, const int64_t* rows,
                int64_t lanes, const float* scales, float* products, float* special) const;

    const Problem& problem_;
    const float temperature_;
    float* const found_;
    const int threads_;
    const ForwardKernel& kernel_;
    const LaneKernel& lane_kernel_;
    const QueryPanels queries_;
};

// What is not finite is noted in `special`, 0 else, and taken out of the products.
void SmoothForward::settle(int64_t document, const DocumentTokens& tokens, int64_t first, int64_t chunk,
                           const int64_t* rows, int64_t lanes, const float* scales, float* products,
                           float* special) const {
    float poison[kTogether];
    lane_kernel_.check(products, chunk, kTogether, tiles_for(lanes), poison);
    if (std::all_of(poison, poison + lanes, [](float x) { return x == 0; })) return;
    repair(problem_, document, tokens, first, chunk, rows, lanes, kTogether, products);
    for (int64_t i = 0; i < chunk; ++i) {
        for (int64_t lane = 0; lane < lanes; ++lane) {
            float& product = products[i * kTogether + lane];
            if (std::isfinite(product)) continue;
            const bool low = product == -kInfinity;
            if (!low) special[lane] += product;
            product = low ? kLowest / scales[lane] : 0;
        }
    }
}

void SmoothForward::panel(int64_t panel, int64_t document, ForwardWorker& worker) const {
    const int64_t* const rows = queries_.rows(panel);
    const int64_t count = queries_.count(panel), documents = problem_.document_count;
    if (!worker.tokens.open(problem_, kernel_, document)) {
        for (int64_t i = 0; i < count; ++i) found_[rows[i] * documents + document] = -kInfinity;
        return;
    }
    float scales[kPanel] = {}, largest[kPanel], sum[kPanel] = {}, special[kPanel] = {};
    std::fill_n(largest, kPanel, -kInfinity);
    for (int64_t i = 0; i < count; ++i) scales[i] = problem_.query_inverse_norm(rows[i]) / temperature_;
    float* const products = worker.products.floats(kChunk * kTogether);
    char* const scratch = worker.scratch.get(kernel_.scratch_bytes(problem_.dim));
    const int64_t size = worker.tokens.size(), tile_bytes = kernel_.tile_bytes(problem_.dim);
    const char* const tiles = queries_.tiles(panel);
    for (int64_t first = 0; first < size; first += kChunk) {
        const int64_t chunk = std::min(kChunk, size - first);
        const void* const tokens = worker.tokens.rows(first, chunk);
        for (int64_t lane = 0; lane < count; lane += kTogether) {
            const int64_t lanes = std::min(kTogether, count - lane);
            kernel_.products(tiles + lane / kLanes * tile_bytes, tiles_for(lanes), tokens, chunk, problem_.dim,
                             worker.tokens.scales(first), scratch, products, kTogether);
            settle(document, worker.tokens, first, chunk, rows + lane, lanes, scales + lane, products, special + lane);
            lane_kernel_.log_sum_exp(products, chunk, kTogether, tiles_for(lanes), scales + lane, largest + lane,
                                     sum + lane);
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        float& out = found_[rows[i] * documents + document];
        out = static_cast<float>(temperature_ * (largest[i] + std::log(double{sum[i]})));
        if (largest[i] <= 0.99f * kLowest) out = -kInfinity;
        if (special[i] != 0) out = special[i];  // infinity or NaN
    }
}

// ---- backward ----

struct BackwardWorker {
    DocumentTokens tokens;
    Buffer scratch, products, rows;
};

class SmoothBackward {
public:
    SmoothBackward(const Problem& problem, float temperature, const float* found, const float* gradients,
                   void* query_gradients, void* document_gradients, int threads)
        : problem_(problem),
          temperature_(temperature),
          found_(found),
          gradients_(gradients),
          query_gradients_(static_cast<char*>(query_gradients)),
          document_gradients_(static_cast<char*>(document_gradients)),
          threads_(threads),
          kernel_(forward_kernel(problem.dtype)),
          lane_kernel_(lane_kernel()),
          width_(sum_stride(problem.dim)),
          row_bytes_(problem.dim * itemsize(problem.dtype)),
          groups_(std::min(kGroups, problem.document_count)),
          queries_(problem, kernel_, kPanel, threads) {}

    void run();

private:
    void widen_queries(int64_t panel);
    void group(int64_t panel, int64_t group, BackwardWorker& worker);
    bool set_lanes(int64_t panel, int64_t document, float* subtrahends, float* factors) const;
    void chunk(int64_t panel, int64_t document, int64_t first, int64_t count, const float* subtrahends,
               const float* factors, float* query_sums, BackwardWorker& worker);
    void finish(const float* sum, const void* tokens, int64_t row, float norm, bool normalized, float factor,
                char* out) const;
    void finish_queries(int64_t panel);
    void finish_documents();

    const Problem& problem_;
    const float temperature_;
    const float *const found_, *const gradients_;
    char *const query_gradients_, *const document_gradients_;
    const int threads_;
    const ForwardKernel& kernel_;
    const LaneKernel& lane_kernel_;
    const int64_t width_, row_bytes_, groups_;
    const QueryPanels queries_;
    Buffer query_rows_;        // the panel's tokens, normalised, as floats
    Buffer query_sums_;        // [groups][kPanel][width]
    std::vector<float> sums_;  // of documents, [document rows][width], present tokens of each first
    float scales_[kPanel] = {};
};

void SmoothBackward::widen_queries(int64_t panel) {
    float* const to = query_rows_.floats(kPanel * width_);
    for (int64_t i = 0; i < queries_.count(panel); ++i) {
        const int64_t s = queries_.rows(panel)[i];
        const float norm = problem_.query_inverse_norm(s);
        scales_[i] = norm / temperature_;
        lane_kernel_.widen(static_cast<const char*>(problem_.queries) + s * row_bytes_, problem_.dtype, problem_.dim,
                           norm, width_, to + i * width_);
    }
}

// What makes products shares of their gradient; false: all of these are zero.
bool SmoothBackward::set_lanes(int64_t panel, int64_t document, float* subtrahends, float* factors) const {
    bool any = false;
    for (int64_t i = 0; i < queries_.count(panel); ++i) {
        const int64_t at = queries_.rows(panel)[i] * problem_.document_count + document;
        factors[i] = gradients_[at];
        subtrahends[i] = found_[at] == -kInfinity ? 0 : found_[at] / temperature_;
        any = any || factors[i] != 0;
    }
    return any;
}

// shares_ts = g_s exp((<q_s, d_t> - found_s) / T); u_s += sum_t shares_ts d_t, v_t += sum_s shares_ts q_s
void SmoothBackward::chunk(int64_t panel, int64_t document, int64_t first, int64_t count, const float* subtrahends,
                           const float* factors, float* query_sums, BackwardWorker& worker) {
    constexpr int64_t kStride = kPanel + kLanes;  // not a power of two: rows must not share the places of a cache
    const int64_t lanes = queries_.count(panel), start = problem_.document_offsets[document];
    float* const products = worker.products.floats(kChunk * kStride);
    kernel_.products(queries_.tiles(panel), tiles_for(lanes), worker.tokens.rows(first, count), count, problem_.dim,
                     worker.tokens.scales(first), worker.scratch.get(kernel_.scratch_bytes(problem_.dim)), products,
                     kStride);
    float poison[kPanel];
    lane_kernel_.check(products, count, kStride, tiles_for(lanes), poison);
    if (!std::all_of(poison, poison + lanes, [](float x) { return x == 0; })) {
        repair(problem_, document, worker.tokens, first, count, queries_.rows(panel), lanes, kStride, products);
    }
    lane_kernel_.shares(products, count, kStride, tiles_for(lanes), scales_, subtrahends, factors);
    if (query_gradients_ != nullptr) {
        float* const rows = worker.rows.floats(kChunk * width_);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t t = start + worker.tokens.position(first + i);
            lane_kernel_.widen(static_cast<const char*>(problem_.documents) + t * row_bytes_, problem_.dtype,
                               problem_.dim, problem_.document_factor(t), width_, rows + i * width_);
        }
        lane_kernel_.add_rows(query_sums, lanes, products, 1, kStride, rows, count, width_);
    }
    if (document_gradients_ != nullptr) {
        lane_kernel_.add_rows(&sums_[(start + first) * width_], count, products, kStride, 1,
                              reinterpret_cast<const float*>(query_rows_.data()), lanes, width_);
    }
}

void SmoothBackward::group(int64_t panel, int64_t group, BackwardWorker& worker) {
    const int64_t documents = problem_.document_count;
    float* const query_sums = reinterpret_cast<float*>(query_sums_.data()) + group * kPanel * width_;
    std::fill_n(query_sums, kPanel * width_, 0.0f);
    for (int64_t document = group * documents / groups_; document < (group + 1) * documents / groups_; ++document) {
        float subtrahends[kPanel] = {}, factors[kPanel] = {};
        if (!set_lanes(panel, document, subtrahends, factors)) continue;
        if (!worker.tokens.open(problem_, kernel_, document)) continue;
        for (int64_t first = 0; first < worker.tokens.size(); first += kChunk) {
            const int64_t count = std::min(kChunk, worker.tokens.size() - first);
            chunk(panel, document, first, count, subtrahends, factors, query_sums, worker);
        }
    }
}

// out = factor (sum - norm^2 <sum, x> x), without the latter part for tokens that are not normalised
void SmoothBackward::finish(const float* sum, const void* tokens, int64_t row, float norm, bool normalized,
                            float factor, char* out) const {
    const BackwardKernel& kernel = backward_kernel(problem_.dtype);
    const void* const token = static_cast<const char*>(tokens) + row * row_bytes_;
    const float projection = normalized ? squared_if_normal(norm) * kernel.dot(sum, token, problem_.dim) : 0;
    kernel.finish(sum, token, factor, projection, problem_.dim, out + row * row_bytes_);
}

void SmoothBackward::finish_queries(int64_t panel) {
    parallel_for(queries_.count(panel), threads_, [&](int64_t i, int) {
        float* const sum = reinterpret_cast<float*>(query_sums_.data()) + i * width_;
        for (int64_t group = 1; group < groups_; ++group) {
            const float* const part = sum + group * kPanel * width_;
            for (int64_t k = 0; k < width_; ++k) sum[k] += part[k];
        }
        const int64_t s = queries_.rows(panel)[i];
        const float norm = problem_.query_inverse_norm(s);
        finish(sum, problem_.queries, s, norm, problem_.query_inverse_norms != nullptr, norm, query_gradients_);
    });
}

void SmoothBackward::finish_documents() {
    std::memset(document_gradients_, 0, problem_.document_rows() * row_bytes_);
    std::vector<DocumentTokens> tokens(threads_);
    parallel_for(problem_.document_count, threads_, [&](int64_t document, int id) {
        if (!tokens[id].open(problem_, kernel_, document)) return;
        const int64_t start = problem_.document_offsets[document];
        for (int64_t i = 0; i < tokens[id].size(); ++i) {
            const int64_t t = start + tokens[id].position(i);
            const bool normalized = problem_.document_inverse_norms != nullptr;
            finish(&sums_[(start + i) * width_], problem_.documents, t,
                   normalized ? problem_.document_inverse_norms[t] : 1, normalized, problem_.document_factor(t),
                   document_gradients_);
        }
    });
}

void SmoothBackward::run() {
    query_sums_.get(groups_ * kPanel * width_ * 4);
    if (query_gradients_ != nullptr) std::memset(query_gradients_, 0, problem_.query_rows() * row_bytes_);
    if (document_gradients_ != nullptr) sums_.assign(problem_.document_rows() * width_, 0.0f);
    std::vector<BackwardWorker> workers(threads_);
    for (int64_t panel = 0; panel < queries_.panels(); ++panel) {
        widen_queries(panel);
        parallel_for(groups_, threads_, [&](int64_t number, int id) {
            const Session session(kernel_);
            group(panel, number, workers[id]);
        });
        if (query_gradients_ != nullptr && groups_ > 0) finish_queries(panel);
    }
    if (document_gradients_ != nullptr) finish_documents();
}

}  // namespace

void smooth_forward(const Problem& problem, float temperature, float* found, int threads) {
    SmoothForward(problem, temperature, found, threads_for(threads)).run();
}

void smooth_backward(const Problem& problem, float temperature, const float* found, const float* gradients,
                     void* query_gradients, void* document_gradients, int threads) {
    SmoothBackward(problem, temperature, found, gradients, query_gradients, document_gradients, threads_for(threads))
        .run();
}

}  // namespace lateint::train
