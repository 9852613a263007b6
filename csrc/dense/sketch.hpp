// A sketch of float32 documents: each token as int8 codes times a scale, and how far that is from the token.
#pragma once

#include <cstdint>

namespace lateint::dense {

// Of one token. A token that float32 products of codes cannot stand for has scale 0 and an infinite error.
struct SketchScale {
    float scale;  // of the codes
    float error;  // at least |token - scale codes|
};

// The tokens of a document with their sketch.
struct SketchedTokens {
    const float* tokens;
    const int8_t* codes;
    const SketchScale* scales;
};

// Kernels read this many bytes past the last code.
constexpr int64_t sketch_padding(int64_t dim) { return 32 * dim + 64; }

// codes [rows, dim] and padding, scales [rows].
void sketch(const float* tokens, int64_t rows, int64_t dim, int threads, int8_t* codes, SketchScale* scales);

}  // namespace lateint::dense
