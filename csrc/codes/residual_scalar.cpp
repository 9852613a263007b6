#include "codes/residual_generic.hpp"

namespace lateint::codes {
namespace {

void decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* rows) {
    if (codec.nbits == 8) return copy_rows(codec, tokens, first, n, rows);
    const int64_t bytes = codec.code_bytes();
    const int mask = (1 << codec.nbits) - 1;
    for (int64_t i = first; i < first + n; ++i, rows += codec.depth) {
        const uint8_t* code = tokens.codes + i * bytes;
        const uint8_t* centroid = codec.centroids + tokens.centroid(i) * codec.depth;
        const int8_t* levels = codec.levels[tokens.scales[i]];
        for (int s = 0; s < 8 / codec.nbits; ++s)
            for (int64_t j = 0; j < bytes; ++j) {
                const int64_t k = s * bytes + j;
                rows[k] = static_cast<uint8_t>(centroid[k] + levels[code[j] >> (s * codec.nbits) & mask]);
            }
    }
}

}  // namespace

const ResidualKernels kResidualScalar = {decode_rows, encode_generic, rotate_generic, widen_generic, to_bytes_generic};

}  // namespace lateint::codes
