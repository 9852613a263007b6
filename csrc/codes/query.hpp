// A query ready for integer arithmetic: q_i ~ scale_i * byte vector.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "codes/rotation.hpp"
#include "platform/tiles.hpp"

namespace lateint::codes {

constexpr int32_t kNoMaximum = std::numeric_limits<int32_t>::min();  // of a document without tokens

struct Query {
    int64_t length = 0;
    int ntiles = 0;
    std::vector<int8_t> tiles;     // [ntiles][depth / 4][16][4]
    std::vector<double> scales;    // [length], the step of the documents included
    std::vector<int32_t> offsets;  // [length]: 128 * sum of the bytes, what unsigned rows add to a product
    double constant = 0;           // sum_i <q_i, mean>

    int64_t room() const { return std::max<int64_t>(1, ntiles) * kLanes; }  // of the maxima of a document
};

// tokens [length, dim]; rows of documents have `depth` components and one unit of them means `step`.
Query prepare(const Rotation& rotation, float step, int64_t depth, const float* tokens, int64_t length);

// `count` <= length numbers below `length`, evenly spread, ascending; and the others.
std::vector<int64_t> evenly_spread(int64_t length, int64_t count);
std::vector<int64_t> others(int64_t length, const std::vector<int64_t>& numbers);

// Some tokens of a query, by number; the constant part is that of the whole.
Query part_of(const Query& query, int64_t depth, const std::vector<int64_t>& tokens);

// The score of a document by its largest product with each token of the query: best [length].
float total(const Query& query, const int32_t* best);

// bytes [length, depth]: the tiles of a query, token after token.
void unpack(const Query& query, int64_t depth, int8_t* bytes);

}  // namespace lateint::codes
