#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "platform/buffer.hpp"
#include "platform/threads.hpp"
#include "train/kernel.hpp"
#include "train/problem.hpp"
#include "train/tokens.hpp"

namespace lateint::train {
namespace {

// What is used together stays in the second cache: sums, and the rows that are added to them.
constexpr int64_t kSumBytes = 512 << 10;
constexpr int64_t kLongestSumBytes = 1 << 20;  // of one document, which is else cut
constexpr int64_t kRowBytes = 256 << 10;
constexpr int64_t kMostDocuments = 16, kMostRows = 1024, kLeastRows = 16;

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

// One query, or part of it, and one document: query token s chose position[at + s].
struct Meeting {
    int64_t first, last;  // query tokens
    int64_t at;
    int64_t document;
    float gradient;
};

struct Worker {
    Buffer sums;
    std::vector<Meeting> meetings;
    std::vector<Run> runs;
    std::vector<Term> terms;  // `count` of them, and room for those that are only fetched
    int64_t count = 0;
    std::vector<int32_t> places;
    std::vector<uint8_t> touched;

    void reserve(int64_t size) {
        if (static_cast<int64_t>(terms.size()) < size + kTermsAhead) terms.resize(size + kTermsAhead);
    }
};

// A part of a document's tokens, and where its sums are.
struct Slice {
    int64_t document, first, last, sum;
};

class Backward {
public:
    Backward(const Problem& problem, const float* score_gradients, Positions positions, int threads)
        : problem_(problem),
          score_gradients_(score_gradients),
          positions_(positions),
          threads_(threads),
          kernel_(backward_kernel(problem.dtype)),
          sum_bytes_(sum_stride(problem.dim) * 4),
          row_bytes_(problem.dim * itemsize(problem.dtype)),
          has_tokens_(problem.document_count),
          by_query_(problem.query_index, problem.pairs, problem.query_count),
          by_document_(problem.document_index, problem.pairs, problem.document_count) {
        for (int64_t j = 0; j < problem.document_count; ++j) {
            for (int64_t t = problem.document_offsets[j]; !has_tokens_[j] && t < problem.document_offsets[j + 1]; ++t) {
                has_tokens_[j] = problem.document_present(t);
            }
        }
    }

    void queries(void* gradients, float* weight_gradients) const;
    void documents(void* gradients) const;

private:
    // f(pointer to the positions in their own type)
    template <class F>
    void with_positions(const F& f) const {
        if (positions_.bytes == 1) f(static_cast<const uint8_t*>(positions_.data));
        if (positions_.bytes == 2) f(static_cast<const int16_t*>(positions_.data));
        if (positions_.bytes == 4) f(static_cast<const int32_t*>(positions_.data));
    }
    // Tokens first .. last of a query meet a document; pair < 0: of the grid.
    void meet(int64_t first, int64_t last, int64_t query, int64_t document, int64_t pair, Worker& worker) const {
        const float gradient = score_gradients_[pair < 0 ? query * problem_.document_count + document : pair];
        if (gradient == 0 || first >= last || !has_tokens_[document]) return;
        const int64_t at = pair < 0 ? document * problem_.query_rows()
                                    : pair * problem_.max_query_length - problem_.query_offsets[query];
        worker.meetings.push_back({first, last, at, document, gradient});
    }
    int64_t query_of(int64_t s) const {
        const int64_t* const offsets = problem_.query_offsets;
        return std::upper_bound(offsets, offsets + problem_.query_count, s) - offsets - 1;
    }
    std::vector<int64_t> document_chunks() const;
    void add_to_queries(int64_t first, Worker& worker) const;
    void add_to_documents(const Slice& slice, Worker& worker) const;
    void sum_queries(int64_t first, int64_t last, Worker& worker) const;
    void finish_queries(int64_t first, int64_t last, void* gradients, float* weight_gradients, Worker& worker) const;
    void sum_documents(const std::vector<Slice>& slices, Worker& worker) const;
    void finish_documents(const Slice& slice, void* gradients, Worker& worker) const;
    void start(int64_t rows, Worker& worker) const {
        std::memset(worker.sums.get(rows * sum_bytes_), 0, rows * sum_bytes_);
        worker.touched.assign(rows, 0);
    }
    void flush(const void* rows, Worker& worker) const {
        if (worker.runs.empty()) return;
        std::fill_n(&worker.terms[worker.count], kTermsAhead, Term{0, 0});
        kernel_.accumulate(sum(worker, 0), rows, problem_.dim, worker.runs.data(),
                           static_cast<int64_t>(worker.runs.size()), worker.terms.data());
        for (const Run& run : worker.runs) worker.touched[run.target] = 1;
        worker.runs.clear();
        worker.count = 0;
    }
    float* sum(const Worker& worker, int64_t row) const {
        return reinterpret_cast<float*>(worker.sums.data() + row * sum_bytes_);
    }

    const Problem& problem_;
    const float* const score_gradients_;
    const Positions positions_;
    const int threads_;
    const BackwardKernel& kernel_;
    const int64_t sum_bytes_, row_bytes_;
    std::vector<uint8_t> has_tokens_;
    const Groups by_query_, by_document_;
};

// ---- queries: u_s = sum_j g_ij c_a id_a d_a ----

// All meetings are of the same query tokens.
void Backward::add_to_queries(int64_t first, Worker& worker) const {
    if (worker.meetings.empty()) return;
    const int64_t begin = worker.meetings[0].first, end = worker.meetings[0].last;
    const int64_t most = worker.count + (end - begin) * static_cast<int64_t>(worker.meetings.size());
    worker.reserve(most);
    Term* term = &worker.terms[worker.count];
    with_positions([&](const auto* positions) {
        for (int64_t s = begin; s < end; ++s) {
            if (!problem_.query_present(s)) continue;
            for (const Meeting& meeting : worker.meetings) {
                const int64_t t = problem_.document_offsets[meeting.document] + positions[meeting.at + s];
                *term++ = {static_cast<int32_t>(t), meeting.gradient * problem_.document_factor(t)};
            }
            worker.runs.push_back({static_cast<int32_t>(s - first), static_cast<int32_t>(worker.meetings.size())});
        }
    });
    worker.count = term - worker.terms.data();
    worker.meetings.clear();
}

// The ends of groups of documents whose tokens are used together.
std::vector<int64_t> Backward::document_chunks() const {
    std::vector<int64_t> ends;
    for (int64_t first = 0, last; first < problem_.document_count; first = last) {
        last = first + 1;
        const auto bytes = [&] {
            return (problem_.document_offsets[last + 1] - problem_.document_offsets[first]) * row_bytes_;
        };
        while (last < problem_.document_count && last - first < kMostDocuments && bytes() <= 2 * kRowBytes) ++last;
        ends.push_back(last);
    }
    return ends;
}

// Sums of the query tokens first .. last: of the grid, or of one query's pairs.
void Backward::sum_queries(int64_t first, int64_t last, Worker& worker) const {
    start(last - first, worker);
    if (problem_.grid()) {
        int64_t document = 0;
        for (const int64_t end : document_chunks()) {
            for (int64_t s = first, query = query_of(first); s < last; ++query) {
                const int64_t stop = std::min(last, problem_.query_offsets[query + 1]);
                for (int64_t j = document; j < end; ++j) meet(s, stop, query, j, -1, worker);
                add_to_queries(first, worker);
                s = std::max(s, stop);
            }
            flush(problem_.documents, worker);
            document = end;
        }
        return;
    }
    const int64_t query = query_of(first), end = by_query_.starts[query + 1];
    for (int64_t i = by_query_.starts[query]; i < end;) {
        for (const int64_t stop = std::min(end, i + kMostDocuments); i < stop; ++i) {
            const int64_t pair = by_query_.list[i];
            meet(first, last, query, problem_.document_index[pair], pair, worker);
        }
        add_to_queries(first, worker);
        flush(problem_.documents, worker);
    }
}

// dq_s = w_s iq_s (u_s - iq_s^2 <u_s, q_s> q_s), dw_s = iq_s <u_s, q_s>
void Backward::finish_queries(int64_t first, int64_t last, void* gradients, float* weight_gradients,
                              Worker& worker) const {
    const int64_t dim = problem_.dim;
    const float* const norms = problem_.query_inverse_norms;
    for (int64_t s = first; s < last; ++s) {
        char* const out = gradients != nullptr ? static_cast<char*>(gradients) + s * row_bytes_ : nullptr;
        if (!worker.touched[s - first]) {
            if (out != nullptr) std::memset(out, 0, row_bytes_);
            if (weight_gradients != nullptr) weight_gradients[s] = 0;
            continue;
        }
        const float* const u = sum(worker, s - first);
        const void* const token = static_cast<const char*>(problem_.queries) + s * row_bytes_;
        const float dot = weight_gradients != nullptr || norms != nullptr ? kernel_.dot(u, token, dim) : 0;
        if (weight_gradients != nullptr) weight_gradients[s] = (norms != nullptr ? norms[s] : 1) * dot;
        if (out == nullptr) continue;
        const float projection = norms != nullptr ? squared_if_normal(norms[s]) * dot : 0;
        kernel_.finish(u, token, problem_.query_factor(s), projection, dim, out);
    }
}

void Backward::queries(void* gradients, float* weight_gradients) const {
    const int64_t rows = problem_.query_rows(), fair = (rows + 2 * threads_ - 1) / (2 * threads_);
    const int64_t most = std::max(kLeastRows, std::min(kSumBytes / sum_bytes_, fair));
    std::vector<std::pair<int64_t, int64_t>> blocks;
    for (int64_t first = 0, last; first < rows; first = last) {
        last = problem_.grid() ? rows : problem_.query_offsets[query_of(first) + 1];
        last = std::min(last, first + most);
        blocks.emplace_back(first, last);
    }
    std::vector<Worker> workers(threads_);
    parallel_for(static_cast<int64_t>(blocks.size()), threads_, [&](int64_t task, int id) {
        const auto& [first, last] = blocks[task];
        sum_queries(first, last, workers[id]);
        finish_queries(first, last, gradients, weight_gradients, workers[id]);
    });
}

// ---- documents: v_t = sum_{(i, s): a = t} g_ij w_s iq_s q_s ----

// Sorts the query tokens of all meetings by the document's token that they chose, and in their own order then.
void Backward::add_to_documents(const Slice& slice, Worker& worker) const {
    const int64_t size = slice.last - slice.first;
    worker.places.assign(size + 1, 0);
    int32_t* const places = worker.places.data();
    with_positions([&](const auto* positions) {
        const auto over_chosen = [&](const auto& take) {
            for (const Meeting& meeting : worker.meetings) {
                for (int64_t s = meeting.first; s < meeting.last; ++s) {
                    const int64_t t = int64_t{positions[meeting.at + s]} - slice.first;
                    if (t >= 0 && t < size && problem_.query_present(s)) take(t, s, meeting.gradient);
                }
            }
        };
        over_chosen([&](int64_t t, int64_t, float) { ++places[t]; });
        int32_t total = 0;
        for (int64_t t = 0; t < size; ++t) {
            const int32_t count = places[t];
            if (count > 0) worker.runs.push_back({static_cast<int32_t>(slice.sum + t), count});
            places[t] = total;
            total += count;
        }
        worker.reserve(total);
        worker.count = total;
        Term* const terms = worker.terms.data();
        over_chosen([&](int64_t t, int64_t s, float gradient) {
            terms[places[t]++] = {static_cast<int32_t>(s), gradient * problem_.query_factor(s)};
        });
    });
    worker.meetings.clear();
    flush(problem_.queries, worker);
}

void Backward::sum_documents(const std::vector<Slice>& slices, Worker& worker) const {
    start(slices.back().sum + slices.back().last - slices.back().first, worker);
    if (problem_.grid()) {
        const int64_t rows = problem_.query_rows();
        const int64_t most = std::clamp(kRowBytes / row_bytes_, kLeastRows, kMostRows);
        for (int64_t first = 0; first < rows; first += most) {
            const int64_t last = std::min(rows, first + most);
            for (const Slice& slice : slices) {
                for (int64_t s = first, query = query_of(first); s < last; ++query) {
                    const int64_t stop = std::min(last, problem_.query_offsets[query + 1]);
                    meet(s, stop, query, slice.document, -1, worker);
                    s = std::max(s, stop);
                }
                add_to_documents(slice, worker);
            }
        }
        return;
    }
    for (const Slice& slice : slices) {
        int64_t rows = 0;
        for (int64_t i = by_document_.starts[slice.document]; i < by_document_.starts[slice.document + 1]; ++i) {
            const int64_t pair = by_document_.list[i], query = problem_.query_index[pair];
            const int64_t first = problem_.query_offsets[query], last = problem_.query_offsets[query + 1];
            meet(first, last, query, slice.document, pair, worker);
            rows += last - first;
            if (rows < kMostRows) continue;
            add_to_documents(slice, worker);
            rows = 0;
        }
        add_to_documents(slice, worker);
    }
}

// dd_t = c_t id_t (v_t - id_t^2 <v_t, d_t> d_t)
void Backward::finish_documents(const Slice& slice, void* gradients, Worker& worker) const {
    const int64_t start = problem_.document_offsets[slice.document], dim = problem_.dim;
    const float* const norms = problem_.document_inverse_norms;
    for (int64_t t = start + slice.first, row = slice.sum; t < start + slice.last; ++t, ++row) {
        char* const out = static_cast<char*>(gradients) + t * row_bytes_;
        if (!worker.touched[row]) {
            std::memset(out, 0, row_bytes_);
            continue;
        }
        const float* const v = sum(worker, row);
        const void* const token = static_cast<const char*>(problem_.documents) + t * row_bytes_;
        const float projection = norms != nullptr ? squared_if_normal(norms[t]) * kernel_.dot(v, token, dim) : 0;
        kernel_.finish(v, token, problem_.document_factor(t), projection, dim, out);
    }
}

void Backward::documents(void* gradients) const {
    const int64_t rows = problem_.document_rows(), fair = (rows + 4 * threads_ - 1) / (4 * threads_);
    const int64_t longest = std::max(kLeastRows, kLongestSumBytes / sum_bytes_);
    const int64_t most = std::max(kLeastRows, std::min(kSumBytes / sum_bytes_, fair));
    std::vector<std::vector<Slice>> tasks;
    int64_t taken = most;
    for (int64_t document = 0; document < problem_.document_count; ++document) {
        const int64_t length = problem_.document_offsets[document + 1] - problem_.document_offsets[document];
        for (int64_t first = 0; first < length; first += longest) {
            const int64_t last = std::min(length, first + longest);
            if (taken + last - first > most) {
                tasks.emplace_back();
                taken = 0;
            }
            tasks.back().push_back({document, first, last, taken});
            taken += last - first;
        }
    }
    std::vector<Worker> workers(threads_);
    parallel_for(static_cast<int64_t>(tasks.size()), threads_, [&](int64_t task, int id) {
        sum_documents(tasks[task], workers[id]);
        for (const Slice& slice : tasks[task]) finish_documents(slice, gradients, workers[id]);
    });
}

}  // namespace

void backward(const Problem& problem, const float* score_gradients, Positions positions, void* query_gradients,
              void* document_gradients, float* weight_gradients, int threads) {
    if (std::max(problem.query_rows(), problem.document_rows()) > INT32_MAX) {
        throw std::invalid_argument("queries and documents must have at most 2147483647 tokens in all");
    }
    const Backward backward(problem, score_gradients, positions, threads_for(threads));
    if (query_gradients != nullptr || weight_gradients != nullptr) {
        backward.queries(query_gradients, weight_gradients);
    }
    if (document_gradients != nullptr) backward.documents(document_gradients);
}

}  // namespace lateint::train
