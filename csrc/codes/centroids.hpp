// Centroids: the nearest one for tokens at build time, the best ones for query tokens at search time.
#pragma once

#include <cstdint>
#include <vector>

#include "platform/tiles.hpp"

namespace lateint::codes {

// K centroids as unsigned bytes (value = (byte - 128) * step), row length `depth`, grouped by cell: those of cell c are
// rows [cell_offsets[c], cell_offsets[c + 1]). `cells` holds the cells' own centres.
struct Centroids {
    const uint8_t* rows;
    int64_t count;
    int64_t depth;
    const uint8_t* cells;
    const int64_t* cell_offsets;
    int64_t cell_count;
};

// Nearest centroid (least Euclidean distance, lowest id among equals) for many tokens.
class Assigner {
public:
    explicit Assigner(const Centroids& centroids, int threads);
    // tokens [n, depth]; looks into the `cells` nearest cells of each token, or at all centroids where cells <= 0.
    void assign(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const;

private:
    struct Group {  // centroids [first, first + size) as tiles
        int64_t first = 0, size = 0;
        std::vector<int8_t> tiles;
        std::vector<int32_t> bias;  // |c|^2 / 2 and what the unsigned offset of the tokens adds
        int ntiles() const { return static_cast<int>(bias.size() / kLanes); }
    };
    static Group pack(const uint8_t* rows, int64_t first, int64_t size, int64_t depth);
    void nearest_of(const Group&, const uint8_t* tokens, int64_t n, int32_t* scratch, int32_t* best,
                    int32_t* ids) const;
    void route(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* out) const;
    void assign_flat(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const;

    int64_t depth_;
    Group supers_;
    std::vector<Group> groups_;
};

// sums[c][k] = sum of tokens[i][k] over the tokens with ids[i] = c, and their number; sums is [K, depth].
void accumulate(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                int32_t* sums, int64_t* members);

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
