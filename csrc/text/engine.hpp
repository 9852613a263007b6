// Search over segments of postings: integer sums on a scoreboard find candidates, float64 decides among the best.
//
// A score is the sum of weight * worth over the terms that query and document share, as Bm25 and Impacts say what these
// are, rounded to float32. Scores are the same bits whatever the segments and threads.
#pragma once

#include <cstdint>
#include <vector>

#include "text/bm25.hpp"
#include "text/impacts.hpp"

namespace lateint::text {

struct Hit {
    float score;
    int64_t position;
};

template <class Scoring>
class Engine : public Scoring {
public:
    using Scoring::Scoring;

    // The k best documents that have a term of the query, by score descending, then position. `allowed`: one byte a
    // position; null for all that are live.
    std::vector<Hit> search(const Query&, int64_t k, const uint8_t* allowed) const;
    // The score of each document; 0 where it has no term of the query.
    void score(const Query&, const int64_t* positions, int64_t n, float* scores) const;

private:
    std::vector<int64_t> candidates(const std::vector<Wanted>&, int64_t k, const uint8_t* allowed) const;
    void score(const std::vector<Wanted>&, const int64_t* positions, int64_t n, float* scores) const;
};

using TextEngine = Engine<Bm25>;
using SparseEngine = Engine<Impacts>;

}  // namespace lateint::text
