// Nearest centroids of tokens, for building.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/centroids.hpp"
#include "codes/group.hpp"
#include "codes/subcells.hpp"

namespace lateint::codes {

// Nearest centroid (least Euclidean distance, lowest id among equals) for many tokens.
class Assigner {
public:
    // Cells are divided into `subcells`, unless these are null: each centroid is a member of one, whose cell need not
    // be the one that `cell_offsets` says.
    Assigner(const Centroids& centroids, const Subcells* subcells, int threads);
    // tokens [n, depth]; looks into the `cells` nearest cells of each token, or at all centroids where cells <= 0.
    // Where there are subcells: into the `cells` nearest ones of the nearest cell, one less of the next cell, and so
    // on.
    void nearest(const uint8_t* tokens, int64_t n, int cells, int threads, uint32_t* ids) const;

private:
    struct Cell {
        Group centres;              // of its subcells, where it is divided
        std::vector<Group> groups;  // its centroids: those of each subcell, or all of them, or none
    };
    struct Pairs {  // of n tokens and the cells that each looks into, the nearest first: p is of token p / each
        int each;
        std::vector<uint32_t> cell;
        std::vector<int64_t> starts;  // those of cell c are order[starts[c]] to order[starts[c + 1] - 1]
        std::vector<uint32_t> order;
        void sort(int64_t cell_count);
    };
    struct Block;  // pairs of one cell
    void route(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs) const;
    void look_into(const Cell& cell, const uint8_t* tokens, const uint32_t* pairs, int64_t count, int each,
                   Block& block, int64_t* keys) const;
    void send_to_subcells(const Cell& cell, const Int8Kernels& kernels, const uint32_t* pairs, int64_t count, int each,
                          Block& block) const;
    void nearest_of_cells(const uint8_t* tokens, int64_t n, int threads, Pairs& pairs, uint32_t* ids) const;
    void nearest_of_all(const uint8_t* tokens, int64_t n, int threads, uint32_t* ids) const;

    int64_t depth_;
    Group centres_;  // of the cells
    std::vector<Cell> cells_;
};

// means[c]: the mean of the tokens with ids[i] = c, rounded half up, or zeros where there are none; and how many there
// are. means is [K, depth].
void cluster_means(const uint8_t* tokens, const uint32_t* ids, int64_t n, int64_t depth, int64_t count, int threads,
                   uint8_t* means, int64_t* members);

}  // namespace lateint::codes
