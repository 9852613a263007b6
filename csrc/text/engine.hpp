// BM25 over segments of postings: integer sums on a scoreboard find candidates, float64 decides among the best.
//
//     S(q, d) = sum over terms t of q: n_t * idf_t * f / (f + k1 * (1 - b + b * |d| / mean length))
//     idf_t = ln(1 + (N - df_t + 1/2) / (df_t + 1/2))
//
// n_t and f are how often query and document have t, |d| how many terms the document has, N how many documents have
// any and df_t how many have t. Only live documents count (Robertson and Zaragoza 2009, with the idf of Lucene). Scores
// are rounded to float32. They are the same bits whatever the segments and threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/segment.hpp"

namespace lateint::text {

struct Term {
    std::string bytes;
    double count;  // n_t
};
using Query = std::vector<Term>;  // ascending by bytes, each once

struct Hit {
    float score;
    int64_t position;
};

struct Parameters {
    double k1, b;
};

class Engine {
public:
    // `live`: one byte a position, null where all are.
    Engine(Parameters, std::vector<Segment>, const uint8_t* live);

    const Parameters parameters;
    const std::vector<Segment> segments;

    int64_t documents() const { return first_position_.back(); }

    // The k best documents that have a term of the query, by score descending, then position. `allowed`: one byte a
    // position; null for all that are live.
    std::vector<Hit> search(const Query&, int64_t k, const uint8_t* allowed) const;
    // The score of each document; 0 where it has no term of the query.
    void score(const Query&, const int64_t* positions, int64_t n, float* scores) const;
    // N, the sum of |d| over live documents, and df of each term; for tests.
    void statistics(const Query&, int64_t* texts, int64_t* length, int64_t* frequencies) const;

private:
    struct Wanted {  // a term of the query that some live document has
        double weight;
        std::vector<int64_t> numbers;  // [segments]: of the term, or -1
    };

    std::vector<Wanted> weigh(const Query&) const;
    int64_t frequency(size_t segment, int64_t number) const;
    std::vector<int64_t> candidates(const std::vector<Wanted>&, int64_t k, const uint8_t* allowed) const;
    void score(const std::vector<Wanted>&, const int64_t* positions, int64_t n, float* scores) const;
    double norm_base() const { return parameters.k1 * (1 - parameters.b); }
    double norm_slope() const {
        return length_ > 0 ? parameters.k1 * parameters.b * static_cast<double>(texts_) / static_cast<double>(length_)
                           : 0;
    }

    const uint8_t* const live_;
    std::vector<int64_t> first_position_;  // of each segment, and the number of documents
    int64_t texts_ = 0, length_ = 0;       // live documents that have terms, and how many terms they have
    // df of terms in segments with deleted documents, once somebody asked.
    mutable std::vector<std::unique_ptr<std::atomic<int64_t>[]>> frequencies_;
};

}  // namespace lateint::text
