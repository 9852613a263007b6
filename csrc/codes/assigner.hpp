// Nearest centroids of tokens, for building.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"
#include "platform/tiles.hpp"

namespace lateint::codes {

// Nearest centroid (least Euclidean distance, lowest id among equals) for many tokens.
class Assigner {
public:
    explicit Assigner(const Centroids& centroids, int threads);
    // tokens [n, depth]; looks into the `cells` nearest cells of each token, or at all centroids where cells <= 0.
    void nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const;

private:
    struct Group {  // centroids [first, first + size) as tiles
        int64_t first = 0, size = 0;
        std::vector<int8_t> tiles;
        std::vector<int32_t> bias;  // |c|^2 / 2 and what the unsigned offset of the tokens adds
        int ntiles() const { return static_cast<int>(bias.size() / kLanes); }
    };
    struct Pairs {  // of n tokens and the cells that each looks into: p is of token p / cells
        std::vector<uint32_t> cell;
        std::vector<int64_t> starts;  // those of cell c are order[starts[c]] to order[starts[c + 1] - 1]
        std::vector<uint32_t> order;
        std::vector<int32_t> best, found;
        void sort(int64_t cell_count);
    };
    static Group pack(const uint8_t* rows, int64_t first, int64_t size, int64_t depth);
    void offer(const Group&, const uint8_t* tokens, int64_t n, int32_t* scratch, int32_t* best, int32_t* ids) const;
    void route(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* out) const;
    void nearest_of_cells(const uint8_t* tokens, int64_t n, int cells, int threads, Pairs&, uint32_t* ids) const;
    void nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const;

    int64_t depth_;
    Group cells_;
    std::vector<Group> groups_;
};

// means[c]: the mean of the tokens with ids[i] = c, rounded half up, or zeros where there are none; and how many there
// are. means is [K, depth].
void cluster_means(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                   uint8_t* means, int64_t* members);

}  // namespace lateint::codes
