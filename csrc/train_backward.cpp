#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "buffer.hpp"
#include "isa.hpp"
#include "threads.hpp"
#include "train.hpp"
#include "train_kernel.hpp"

namespace lateint {
namespace {

constexpr int64_t kQuerySumBytes = 128 << 10;  // of the query tokens whose gradients a task sums
constexpr int64_t kDocumentSumBytes = 1 << 20;
constexpr int64_t kBlockRows = 256;  // query tokens taken together over a document

const BackwardKernel& choose(Dtype dtype) {
#if defined(__x86_64__) || defined(__i386__)
    if (active_isa() >= Isa::avx512) return *backward_kernel_avx512(dtype);
    if (active_isa() >= Isa::avx2) return *backward_kernel_avx2(dtype);
#endif
    return *backward_kernel_scalar(dtype);
}

// Pairs by one of their sides, in their own order: list[starts[i] .. starts[i + 1]] are those of i.
struct Groups {
    std::vector<int64_t> starts, list;
    Groups(const int64_t* index, int64_t pairs, int64_t count) : starts(count + 1), list(pairs) {
        for (int64_t p = 0; p < pairs; ++p) ++starts[index[p] + 1];
        std::partial_sum(starts.begin(), starts.end(), starts.begin());
        std::vector<int64_t> next(starts.begin(), starts.end() - 1);
        for (int64_t p = 0; p < pairs; ++p) list[next[index[p]]++] = p;
    }
};

struct Worker {
    Buffer sums;
    std::vector<Term> terms;
    std::vector<uint8_t> touched;
};

// A norm of at most 1e-12 is taken as 1e-12, whatever the numbers: nothing to project on.
float squared_if_normal(float inverse_norm) { return inverse_norm < 0.999e12f ? inverse_norm * inverse_norm : 0; }

class Backward {
public:
    Backward(const TrainProblem& problem, const float* score_gradients, Positions positions)
        : problem_(problem),
          score_gradients_(score_gradients),
          positions_(positions),
          kernel_(choose(problem.dtype)),
          stride_(sum_stride(problem.dim)),
          has_tokens_(problem.document_count) {
        for (int64_t j = 0; j < problem.document_count; ++j) {
            for (int64_t t = problem.document_offsets[j]; !has_tokens_[j] && t < problem.document_offsets[j + 1]; ++t) {
                has_tokens_[j] = problem.document_present(t);
            }
        }
    }

    void queries(void* gradients, float* weight_gradients, int threads);
    void documents(void* gradients, int threads);

private:
    int64_t position(int64_t at) const {
        if (positions_.bytes == 1) return static_cast<const uint8_t*>(positions_.data)[at];
        if (positions_.bytes == 2) return static_cast<const int16_t*>(positions_.data)[at];
        return static_cast<const int32_t*>(positions_.data)[at];
    }
    // Query tokens first .. last of one query, in one document: where their positions begin, and their gradient.
    template <class Take>
    void over_grid(int64_t document, int64_t first, int64_t last, const Take& take) const;
    void query_block(int64_t first, int64_t last, const Groups* groups, int64_t query, Worker& worker) const;
    void add_to_queries(int64_t first, int64_t last, int64_t document, float gradient, int64_t at, int64_t base,
                        Worker& worker) const;
    void finish_queries(int64_t first, int64_t last, void* gradients, float* weight_gradients, Worker& worker) const;
    void document_slice(int64_t document, int64_t first, int64_t last, const Groups* groups, void* gradients,
                        Worker& worker) const;
    void add_to_document(int64_t first, int64_t last, int64_t start, int64_t end, float gradient, int64_t at,
                         Worker& worker) const;
    void flush(float* sums, const void* rows, Worker& worker) const {
        kernel_.accumulate(sums, rows, problem_.dim, worker.terms.data(), static_cast<int64_t>(worker.terms.size()));
        worker.terms.clear();
    }
    const void* row(const void* tokens, int64_t i) const {
        return static_cast<const char*>(tokens) + i * problem_.dim * itemsize(problem_.dtype);
    }

    const TrainProblem& problem_;
    const float* const score_gradients_;
    const Positions positions_;
    const BackwardKernel& kernel_;
    const int64_t stride_;
    std::vector<uint8_t> has_tokens_;
};

// The parts of query tokens first .. last that belong to one query each, with their gradient for `document`.
template <class Take>
void Backward::over_grid(int64_t document, int64_t first, int64_t last, const Take& take) const {
    const int64_t* const offsets = problem_.query_offsets;
    int64_t query = std::upper_bound(offsets, offsets + problem_.query_count, first) - offsets - 1;
    for (int64_t s = first; s < last; ++query) {
        const int64_t end = std::min(last, offsets[query + 1]);
        const float gradient = score_gradients_[query * problem_.document_count + document];
        if (gradient != 0 && s < end) take(s, end, gradient, document * problem_.query_rows() + s);
        s = std::max(s, end);
    }
}

// Terms g c_a id_a d_a for the query tokens first .. last; their positions begin at `at`, sums at token `base`.
void Backward::add_to_queries(int64_t first, int64_t last, int64_t document, float gradient, int64_t at, int64_t base,
                              Worker& worker) const {
    const int64_t start = problem_.document_offsets[document];
    for (int64_t s = first; s < last; ++s) {
        if (!problem_.query_present(s)) continue;
        const int64_t t = start + position(at + s - first);
        worker.touched[s - base] = 1;
        worker.terms.push_back({static_cast<int32_t>(s - base), gradient * problem_.document_factor(t), t});
    }
}

// Sums of the query tokens first .. last, over all documents, or over the pairs of their query.
void Backward::query_block(int64_t first, int64_t last, const Groups* groups, int64_t query, Worker& worker) const {
    float* const sums = worker.sums.floats((last - first) * stride_);
    std::fill_n(sums, (last - first) * stride_, 0.0f);
    worker.touched.assign(last - first, 0);
    const int64_t count =
        groups == nullptr ? problem_.document_count : groups->starts[query + 1] - groups->starts[query];
    for (int64_t i = 0; i < count; ++i) {
        const int64_t pair = groups == nullptr ? 0 : groups->list[groups->starts[query] + i];
        const int64_t document = groups == nullptr ? i : problem_.document_index[pair];
        if (!has_tokens_[document]) continue;
        if (groups == nullptr) {
            over_grid(document, first, last, [&](int64_t begin, int64_t end, float gradient, int64_t at) {
                add_to_queries(begin, end, document, gradient, at, first, worker);
            });
        } else if (score_gradients_[pair] != 0) {
            add_to_queries(first, last, document, score_gradients_[pair],
                           pair * problem_.max_query_length + first - problem_.query_offsets[query], first, worker);
        }
        flush(sums, problem_.documents, worker);
    }
}

void Backward::finish_queries(int64_t first, int64_t last, void* gradients, float* weight_gradients,
                              Worker& worker) const {
    const int64_t dim = problem_.dim, row_bytes = dim * itemsize(problem_.dtype);
    for (int64_t s = first; s < last; ++s) {
        char* const out = gradients != nullptr ? static_cast<char*>(gradients) + s * row_bytes : nullptr;
        if (!worker.touched[s - first]) {
            if (out != nullptr) std::memset(out, 0, row_bytes);
            if (weight_gradients != nullptr) weight_gradients[s] = 0;
            continue;
        }
        const float* const sum = reinterpret_cast<const float*>(worker.sums.data()) + (s - first) * stride_;
        const void* const token = row(problem_.queries, s);
        const float* const norms = problem_.query_inverse_norms;
        const float dot = weight_gradients != nullptr || norms != nullptr ? kernel_.dot(sum, token, dim) : 0;
        if (weight_gradients != nullptr) weight_gradients[s] = (norms != nullptr ? norms[s] : 1) * dot;
        if (out == nullptr) continue;
        const float projection = norms != nullptr ? squared_if_normal(norms[s]) * dot : 0;
        kernel_.finish(sum, token, problem_.query_factor(s), projection, dim, out);
    }
}

void Backward::queries(void* gradients, float* weight_gradients, int threads) {
    struct Block {
        int64_t first, last, query;
    };
    const int64_t most = std::max<int64_t>(kTileLanes, kQuerySumBytes / (stride_ * 4));
    std::vector<Block> blocks;
    const int64_t groups_of_rows = problem_.grid() ? 1 : problem_.query_count;
    for (int64_t query = 0; query < groups_of_rows; ++query) {
        int64_t first = problem_.grid() ? 0 : problem_.query_offsets[query];
        const int64_t end = problem_.grid() ? problem_.query_rows() : problem_.query_offsets[query + 1];
        for (; first < end; first += most) blocks.push_back({first, std::min(end, first + most), query});
    }
    const Groups groups(problem_.query_index, problem_.grid() ? 0 : problem_.pairs, problem_.query_count);
    std::vector<Worker> workers(threads);
    parallel_for(static_cast<int64_t>(blocks.size()), threads, [&](int64_t task, int id) {
        const Block& block = blocks[task];
        query_block(block.first, block.last, problem_.grid() ? nullptr : &groups, block.query, workers[id]);
        finish_queries(block.first, block.last, gradients, weight_gradients, workers[id]);
    });
}

// Terms g w_s iq_s q_s for the document's tokens start .. end, of the query tokens first .. last.
void Backward::add_to_document(int64_t first, int64_t last, int64_t start, int64_t end, float gradient, int64_t at,
                               Worker& worker) const {
    for (int64_t s = first; s < last; ++s) {
        const int64_t t = position(at + s - first);
        if (t < start || t >= end || !problem_.query_present(s)) continue;
        worker.touched[t - start] = 1;
        worker.terms.push_back({static_cast<int32_t>(t - start), gradient * problem_.query_factor(s), s});
    }
}

// Gradients of the tokens first .. last of a document, over all query tokens that chose one of them.
void Backward::document_slice(int64_t document, int64_t first, int64_t last, const Groups* groups, void* gradients,
                              Worker& worker) const {
    float* const sums = worker.sums.floats((last - first) * stride_);
    std::fill_n(sums, (last - first) * stride_, 0.0f);
    worker.touched.assign(last - first, 0);
    if (has_tokens_[document] && groups == nullptr) {
        for (int64_t s = 0; s < problem_.query_rows(); s += kBlockRows) {
            over_grid(document, s, std::min(problem_.query_rows(), s + kBlockRows),
                      [&](int64_t begin, int64_t end, float gradient, int64_t at) {
                          add_to_document(begin, end, first, last, gradient, at, worker);
                      });
            flush(sums, problem_.queries, worker);
        }
    } else if (has_tokens_[document]) {
        for (int64_t i = groups->starts[document]; i < groups->starts[document + 1]; ++i) {
            const int64_t pair = groups->list[i], query = problem_.query_index[pair];
            if (score_gradients_[pair] == 0) continue;
            add_to_document(problem_.query_offsets[query], problem_.query_offsets[query + 1], first, last,
                            score_gradients_[pair], pair * problem_.max_query_length, worker);
            flush(sums, problem_.queries, worker);
        }
    }
    const int64_t dim = problem_.dim, row_bytes = dim * itemsize(problem_.dtype);
    const int64_t start = problem_.document_offsets[document];
    const float* const norms = problem_.document_inverse_norms;
    for (int64_t t = first; t < last; ++t) {
        char* const out = static_cast<char*>(gradients) + (start + t) * row_bytes;
        if (!worker.touched[t - first]) {
            std::memset(out, 0, row_bytes);
            continue;
        }
        const float* const sum = sums + (t - first) * stride_;
        const void* const token = row(problem_.documents, start + t);
        const float projection =
            norms != nullptr ? squared_if_normal(norms[start + t]) * kernel_.dot(sum, token, dim) : 0;
        kernel_.finish(sum, token, problem_.document_factor(start + t), projection, dim, out);
    }
}

void Backward::documents(void* gradients, int threads) {
    struct Slice {
        int64_t document, first, last;
    };
    const int64_t most = std::max<int64_t>(kTileLanes, kDocumentSumBytes / (stride_ * 4));
    std::vector<Slice> slices;
    for (int64_t document = 0; document < problem_.document_count; ++document) {
        const int64_t length = problem_.document_offsets[document + 1] - problem_.document_offsets[document];
        for (int64_t first = 0; first < length; first += most) {
            slices.push_back({document, first, std::min(length, first + most)});
        }
    }
    const Groups groups(problem_.document_index, problem_.grid() ? 0 : problem_.pairs, problem_.document_count);
    std::vector<Worker> workers(threads);
    parallel_for(static_cast<int64_t>(slices.size()), threads, [&](int64_t task, int id) {
        const Slice& slice = slices[task];
        document_slice(slice.document, slice.first, slice.last, problem_.grid() ? nullptr : &groups, gradients,
                       workers[id]);
    });
}

}  // namespace

void train_backward(const TrainProblem& problem, const float* score_gradients, Positions positions,
                    void* query_gradients, void* document_gradients, float* weight_gradients, int threads) {
    if (threads <= 0) threads = default_threads();
    Backward backward(problem, score_gradients, positions);
    if (query_gradients != nullptr || weight_gradients != nullptr) {
        backward.queries(query_gradients, weight_gradients, threads);
    }
    if (document_gradients != nullptr) backward.documents(document_gradients, threads);
}

}  // namespace lateint
