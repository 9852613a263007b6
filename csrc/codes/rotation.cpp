#include "codes/rotation.hpp"

#include <vector>

#include "codes/residual.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {

void permute(const Rotation& rotation, const float* token, float* row) {
    for (int64_t i = 0; i < rotation.width; ++i) {
        const int64_t from = rotation.permutation[i];
        row[i] = from < rotation.dim ? token[from] : 0.0f;
    }
}

void rotate(const Rotation& rotation, const void* tokens, Dtype dtype, int64_t n, float step, int threads, float* out) {
    const int64_t dim = rotation.dim, width = rotation.width;
    const char* const from = static_cast<const char*>(tokens);
    const float inverse = 1.0f / step;
    const ResidualKernels& kernels = residual_kernels();
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        std::vector<float> token(dim), rows(count * width);
        for (int64_t i = 0; i < count; ++i) {
            kernels.widen(from + (first + i) * dim * itemsize(dtype), dtype, dim, token.data());
            for (int64_t k = 0; k < dim; ++k) token[k] = (token[k] - rotation.mean[k]) * inverse;
            permute(rotation, token.data(), rows.data() + i * width);
        }
        kernels.rotate(rows.data(), count, width, rotation.block, rotation.rotation, out + first * width);
    });
}

}  // namespace lateint::codes
