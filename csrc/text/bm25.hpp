// What a word is worth.
//
//     S(q, d) = sum over terms t of q: n_t * idf_t * f / (f + k1 * (1 - b + b * |d| / mean length))
//     idf_t = ln(1 + (N - df_t + 1/2) / (df_t + 1/2))
//
// n_t and f are how often query and document have t, |d| how many terms the document has, N how many documents have
// any and df_t how many have t. Only live documents count (Robertson and Zaragoza 2009, with the idf of Lucene).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "text/collection.hpp"

namespace lateint::text {

struct Parameters {
    double k1, b;
};

class Bm25 : public Collection<TextSegment> {
public:
    Bm25(Parameters, std::vector<TextSegment>, const uint8_t* live);

    std::vector<Wanted> weigh(const Query&) const;
    // What n documents, at most kChunk, gain by a term in integer scores. Those of the postings are in range.
    void gains(const TextSegment&, Share, int64_t posting, int64_t n, int32_t* gains) const;
    int32_t gain(const TextSegment&, Share, int64_t posting) const;
    // What a posting is worth, exactly.
    double worth(const TextSegment&, int64_t posting) const;
    // N, the sum of |d| over live documents, and df of each term; for tests.
    void statistics(const Query&, int64_t* texts, int64_t* length, int64_t* frequencies) const;

private:
    int64_t frequency(size_t segment, int64_t number) const;

    double base_, slope_;             // k1 * (1 - b), and k1 * b over the mean length
    int64_t texts_ = 0, length_ = 0;  // live documents that have terms, and how many terms they have
    // df of terms in segments with deleted documents, once somebody asked.
    std::vector<std::unique_ptr<std::atomic<int64_t>[]>> frequencies_;
};

}  // namespace lateint::text
