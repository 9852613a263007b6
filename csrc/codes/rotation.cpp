#include "codes/rotation.hpp"

#include <vector>

#include "codes/residual.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {

void permute(const Rotation& rotation, const float* token, float* row) {
    const int32_t* const permutation = rotation.permutation;
    for (int64_t i = 0; i < rotation.width; ++i) row[i] = token[permutation[i]];
}

void rotate(const Rotation& rotation, const void* tokens, Dtype dtype, int64_t n, float step, int threads, float* out) {
    const int64_t dim = rotation.dim, width = rotation.width;
    const char* const from = static_cast<const char*>(tokens);
    const float inverse = 1.0f / step;
    const ResidualKernels& kernels = residual_kernels();
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        std::vector<float> token(width), rows(count * width);
        for (int64_t i = 0; i < count; ++i) {
            const char* const stored = from + (first + i) * dim * itemsize(dtype);
            const float* const wide = dtype == Dtype::float32 ? reinterpret_cast<const float*>(stored) : token.data();
            if (dtype != Dtype::float32) kernels.widen(stored, dtype, dim, token.data());
            for (int64_t k = 0; k < dim; ++k) token[k] = (wide[k] - rotation.mean[k]) * inverse;
            permute(rotation, token.data(), rows.data() + i * width);
        }
        kernels.rotate(rows.data(), count, width, rotation.block, rotation.rotation, out + first * width);
    });
}

}  // namespace lateint::codes
