#include "codes/rotation.hpp"

#include <algorithm>
#include <vector>

#include "codes/residual.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {

namespace {

constexpr int64_t kTogether = 16;  // tokens that are centred before they are rotated; they stay in the first cache

}  // namespace

void rotate(const Rotation& rotation, const void* tokens, Dtype dtype, int64_t n, float step, int threads, float* out) {
    const int64_t dim = rotation.dim, width = rotation.width;
    const char* const from = static_cast<const char*>(tokens);
    const float inverse = 1.0f / step;
    const ResidualKernels& kernels = residual_kernels();
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        std::vector<float> wide(dim), centred(kTogether * width);
        for (int64_t begin = first; begin < first + count; begin += kTogether) {
            const int64_t some = std::min(kTogether, first + count - begin);
            for (int64_t i = 0; i < some; ++i) {
                const char* const stored = from + (begin + i) * dim * itemsize(dtype);
                const float* token = reinterpret_cast<const float*>(stored);
                if (dtype != Dtype::float32) kernels.widen(stored, dtype, dim, wide.data()), token = wide.data();
                float* const row = centred.data() + i * width;
                for (int64_t k = 0; k < dim; ++k) row[k] = (token[k] - rotation.mean[k]) * inverse;
            }
            kernels.rotate(centred.data(), some, width, rotation.block, rotation.rotation, rotation.permutation,
                           out + begin * width);
        }
    });
}

}  // namespace lateint::codes
