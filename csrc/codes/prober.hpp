// Best centroids of query tokens, for searching.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"

namespace lateint::codes {

// The best few centroids of each query token, by inner product: score descending, then id.
struct Probe {
    int32_t score;
    uint32_t centroid;
};

// Those of some tokens, found by one thread.
class TileProber {
public:
    void run(const Centroids& centroids, const int8_t* tiles, int lanes, int64_t count, int64_t cells);
    const Probe* of(int lane) const { return probes_.data() + lane * count_; }
    int64_t size(int lane) const { return sizes_[lane]; }  // at most `count`: cells may hold fewer

private:
    void collect(const uint8_t* rows, int64_t first, int64_t n, int64_t depth, const int8_t* tiles,
                 const std::vector<int>& lanes);
    void look_into(const Centroids&, const int8_t* tiles, int lanes, int64_t count, int64_t cells);
    void start(int lanes, int64_t count, int64_t offered);  // room for the best `count` of `offered`
    void prune(int lane);
    int32_t threshold(int lane) const;
    void finish(int lanes);

    int64_t count_ = 0, capacity_ = 0;
    std::vector<uint64_t> kept_;  // [lanes][capacity]: score and id in one key, greater is better
    std::vector<int64_t> sizes_;
    std::vector<uint64_t> least_;  // [lanes]: a key must be greater to be kept
    std::vector<int32_t> thresholds_, scores_;
    std::vector<uint32_t> hits_;
    std::vector<Probe> probes_;  // [lanes][count]
    // Of cells; kept for their memory.
    std::vector<Probe> wanted_;              // [lanes][cells]
    std::vector<std::vector<int>> readers_;  // [cell]: tokens that look into it; empty between searches
    std::vector<int8_t> gathered_;           // their tiles
};

class Prober {
public:
    // Finds the best `count` centroids for each of `lanes` query tokens given as tiles: in the best `cells` cells of
    // each of them, or among all centroids where cells <= 0. No token depends on another, so threads share them out.
    void run(const Centroids& centroids, const int8_t* tiles, int lanes, int64_t count, int64_t cells, int threads);
    const Probe* of(int lane) const { return parts_[lane / run_].of(lane % run_); }
    int64_t size(int lane) const { return parts_[lane / run_].size(lane % run_); }  // at most `count`

private:
    int run_ = 1;  // tokens of a part
    std::vector<TileProber> parts_;
};

}  // namespace lateint::codes
