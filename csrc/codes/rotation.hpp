// What is done to tokens before they are coded: centred, their components permuted, each block of them rotated.
#pragma once

#include <cstdint>

#include "platform/dtype.hpp"

namespace lateint::codes {

struct Rotation {
    int64_t dim;                 // components of a token as it comes
    int64_t width;               // and as it is coded, a multiple of `block`
    int64_t block;               // components that are rotated together
    const float* mean;           // [dim]
    const float* rotation;       // [width / block][block][block]
    const int32_t* permutation;  // [width]: component i of the rotation's input is permutation[i]; 0 from dim on
};

// out [n, width]: tokens [n, dim], centred, permuted and rotated, divided by `step`.
void rotate(const Rotation& rotation, const void* tokens, Dtype dtype, int64_t n, float step, int threads, float* out);

}  // namespace lateint::codes
