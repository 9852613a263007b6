// Best centroids of query tokens, for searching.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"
#include "codes/int8.hpp"
#include "codes/turned.hpp"

namespace lateint::codes {

// A centroid and its inner product with a query token.
struct Probe {
    int32_t score;
    uint32_t centroid;
};

// By score descending, then id.
void sort_probes(Probe* probes, int64_t n);

// The best `count` of the rows that one query token was offered.
class Best {
public:
    void start(int64_t count, int64_t offered);  // room for the best `count` of `offered`
    // Scores of rows first, first + 1, ...; at most kOffered of them.
    void offer(const int32_t* scores, int64_t n, uint32_t first, const Int8Kernels&);
    // The best `listed` of them in any order into `out`; returns how many. The score of the last of all goes to
    // `least`.
    int64_t finish(int64_t listed, const Int8Kernels&, Probe* out, int32_t* least);

    static constexpr int64_t kOffered = 256;

private:
    int32_t prune(int64_t count, const Int8Kernels&);  // keeps the best `count`; returns the least of them

    int64_t count_ = 0, size_ = 0;
    int32_t threshold_ = 0;  // a score must exceed it: an equal one with a lower id is better than the last one kept
    std::vector<int32_t> scores_;
    std::vector<uint32_t> rows_;
};

// Probes of tokens [first, first + lanes) of a query, found by one thread.
class TokensProber {
public:
    void run(const Centroids&, TurnedCells&, const int8_t* tiles, int first, int lanes, int64_t count, int64_t listed,
             bool sorted, int64_t cells);
    const Probe* of(int lane) const { return probes_.data() + lane * listed_; }
    int64_t size(int lane) const { return sizes_[lane]; }
    int32_t least(int lane) const { return leasts_[lane]; }

private:
    void start(int lanes, int64_t count, int64_t offered);
    void finish(int lanes, int64_t listed, bool sorted);
    void offer(const uint8_t* rows, const uint8_t* turned, int64_t first, int64_t n, int64_t depth, const int8_t* tiles,
               const std::vector<int>& readers);
    void offer_cell(const Centroids&, TurnedCells&, int64_t cell, const int8_t* tiles, const std::vector<int>& readers);
    void look_into(const Centroids&, TurnedCells&, const int8_t* tiles, int lanes, int64_t cells);

    int first_ = 0;
    int64_t listed_ = 0;
    std::vector<Best> best_;       // [lanes]
    std::vector<Probe> probes_;    // [lanes][listed]
    std::vector<int64_t> sizes_;   // [lanes]
    std::vector<int32_t> leasts_;  // [lanes]
    std::vector<int32_t> scores_;  // of the rows at hand
    // Which tokens look into a cell: a chain of their wishes, the last of which is in heads_.
    std::vector<int64_t> heads_;   // [cells]; none between searches
    std::vector<int64_t> next_;    // [lanes * cells of each]
    std::vector<uint32_t> order_;  // cells that are looked into, as they are read
    std::vector<int> readers_;     // of the cell at hand
};

class Prober {
public:
    // Finds the best `count` centroids of each of `lanes` query tokens given as tiles: in the best `cells` cells of
    // each of them, or among all centroids where cells <= 0. Cells may hold fewer. The best `listed` of them are kept,
    // `sorted` or in any order, and the score of the last. No token depends on another, so threads share them out.
    void run(const Centroids&, TurnedCells&, const int8_t* tiles, int lanes, int64_t count, int64_t listed, bool sorted,
             int64_t cells, int threads);
    static int most_parts(int64_t lanes, int threads);  // that so many threads share out
    const Probe* of(int lane) const { return parts_[lane / run_].of(lane % run_); }
    int64_t size(int lane) const { return parts_[lane / run_].size(lane % run_); }    // at most `listed`
    int32_t least(int lane) const { return parts_[lane / run_].least(lane % run_); }  // the score of the last found

private:
    int run_ = 1;  // tokens of a part
    std::vector<TokensProber> parts_;
};

}  // namespace lateint::codes
