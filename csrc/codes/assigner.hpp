// Nearest centroids of tokens, for building.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"
#include "codes/group.hpp"

namespace lateint::codes {

// Nearest centroid (least Euclidean distance, lowest id among equals) for many tokens.
class Assigner {
public:
    // Divides the cells, see `subdivide`, where `subcells` is true.
    Assigner(const Centroids& centroids, bool subcells, int threads);
    // tokens [n, depth]; looks into the `cells` nearest cells of each token, or at all centroids where cells <= 0.
    // Where there are subcells: into the `cells` nearest ones of the nearest cell, one less of the next cell, and so
    // on.
    void nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const;

private:
    struct Pairs {  // of n tokens and the groups that each looks into: p is of token p / each
        int each;
        std::vector<uint32_t> group;
        std::vector<int64_t> starts;  // those of group g are order[starts[g]] to order[starts[g + 1] - 1]
        std::vector<uint32_t> order;
        void sort(int64_t groups);
    };
    void route(const uint8_t* tokens, int64_t n, int threads, Pairs& cells) const;
    void route_on(const uint8_t* tokens, int64_t n, int threads, Pairs& cells, Pairs& subcells) const;
    void gather(const uint8_t* tokens, const uint32_t* pairs, int64_t count, int each, uint8_t* rows) const;
    void nearest_of_groups(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs, uint32_t* ids) const;
    void nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const;

    int64_t depth_;
    Group cells_;
    std::vector<Group> centres_;  // of the subcells of each cell, where there are any
    std::vector<Group> groups_;   // the centroids of each cell, or of each subcell
};

// means[c]: the mean of the tokens with ids[i] = c, rounded half up, or zeros where there are none; and how many there
// are. means is [K, depth].
void cluster_means(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                   uint8_t* means, int64_t* members);

}  // namespace lateint::codes
