// A query ready for integer arithmetic: q_i ~ scale_i * byte vector.
#pragma once

#include <cstdint>
#include <vector>

#include "codes/rotation.hpp"

namespace lateint::codes {

struct Query {
    int64_t length = 0;
    int ntiles = 0;
    std::vector<int8_t> tiles;     // [ntiles][depth / 4][16][4]
    std::vector<double> scales;    // [length], the step of the documents included
    std::vector<int32_t> offsets;  // [length]: 128 * sum of the bytes, what unsigned rows add to a product
    double constant = 0;           // sum_i <q_i, mean>
};

// tokens [length, dim]; rows of documents have `depth` components and one unit of them means `step`.
Query prepare(const Rotation& rotation, float step, int64_t depth, const float* tokens, int64_t length);

// `count` <= length tokens of a query, evenly spread over it; the constant part is that of the whole.
Query sample(const Query& query, int64_t depth, int64_t count);

// bytes [length, depth]: the tiles of a query, token after token.
void unpack(const Query& query, int64_t depth, int8_t* bytes);

}  // namespace lateint::codes
