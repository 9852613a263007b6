// The portable kernel: four document tokens at a time against one tile, for any compiler to vectorise.
#include "half.hpp"
#include "maxsim_kernel.hpp"

namespace lateint {
namespace {

constexpr int64_t kSlice = 256;  // of dim summed at a time, as the fast kernels do: rounding errors stay small

template <Dtype dtype>
float number(const void* tokens, int64_t i) {
    if constexpr (dtype == Dtype::float32) return static_cast<const float*>(tokens)[i];
    if constexpr (dtype == Dtype::float16) return float16_to_float(static_cast<const uint16_t*>(tokens)[i]);
    if constexpr (dtype == Dtype::int8) return static_cast<const int8_t*>(tokens)[i];
    return bfloat16_to_float(static_cast<const uint16_t*>(tokens)[i]);
}

template <class T>
int64_t tile_bytes(int64_t dim) {
    return (dim * kLanes * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
}

int64_t scratch_bytes(int64_t dim, int64_t) { return dim * 4; }

template <class T>
void pack(const void* queries, int rows, int64_t dim, void* tile) {  // [dim][16]
    const T* source = static_cast<const T*>(queries);
    T* target = static_cast<T*>(tile);
    for (int64_t k = 0; k < dim; ++k) {
        for (int lane = 0; lane < kLanes; ++lane) target[k * kLanes + lane] = lane < rows ? source[lane * dim + k] : 0;
    }
}

void nothing() {}

template <Dtype dtype>
void best_float(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void* scratch,
                void* result) {
    float* best = static_cast<float*>(result);
    float* token = static_cast<float*>(scratch);
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t k = 0; k < dim; ++k) token[k] = number<dtype>(tokens, row * dim + k);
        for (int64_t tile = 0; tile < count; ++tile) {
            const float* queries =
                reinterpret_cast<const float*>(static_cast<const char*>(tiles) + tile * tile_bytes<float>(dim));
            float total[kLanes] = {};
            for (int64_t start = 0; start < dim; start += kSlice) {
                const int64_t end = start + kSlice < dim ? start + kSlice : dim;
                float part[kLanes] = {};
                for (int64_t k = start; k < end; ++k) {
                    for (int lane = 0; lane < kLanes; ++lane) part[lane] += token[k] * queries[k * kLanes + lane];
                }
                for (int lane = 0; lane < kLanes; ++lane) total[lane] += part[lane];
            }
            float* lanes = best + tile * kLanes;
            for (int lane = 0; lane < kLanes; ++lane) {
                lanes[lane] = row == 0 || total[lane] > lanes[lane] ? total[lane] : lanes[lane];
            }
        }
    }
}

void best_int8(const void* tiles, int64_t count, const void* tokens, int64_t rows, int64_t dim, void*, void* result) {
    int32_t* best = static_cast<int32_t*>(result);
    for (int64_t row = 0; row < rows; ++row) {
        const int8_t* token = static_cast<const int8_t*>(tokens) + row * dim;
        for (int64_t tile = 0; tile < count; ++tile) {
            const int8_t* queries = static_cast<const int8_t*>(tiles) + tile * tile_bytes<int8_t>(dim);
            int32_t total[kLanes] = {};
            for (int64_t k = 0; k < dim; ++k) {
                for (int lane = 0; lane < kLanes; ++lane) total[lane] += token[k] * queries[k * kLanes + lane];
            }
            int32_t* lanes = best + tile * kLanes;
            for (int lane = 0; lane < kLanes; ++lane) {
                lanes[lane] = row == 0 || total[lane] > lanes[lane] ? total[lane] : lanes[lane];
            }
        }
    }
}

template <Dtype dtype>
constexpr MaxsimKernel kFloat = {tile_bytes<float>, scratch_bytes, pack<float>, nothing, nothing, best_float<dtype>};
constexpr MaxsimKernel kInt8 = {tile_bytes<int8_t>, scratch_bytes, pack<int8_t>, nothing, nothing, best_int8};

}  // namespace

const MaxsimKernel* maxsim_kernel_scalar(QueryKind queries, Dtype documents) {
    if (queries == QueryKind::int8) return &kInt8;
    switch (documents) {
        case Dtype::float32:
            return &kFloat<Dtype::float32>;
        case Dtype::float16:
            return &kFloat<Dtype::float16>;
        case Dtype::bfloat16:
            return &kFloat<Dtype::bfloat16>;
        case Dtype::int8:
            return &kFloat<Dtype::int8>;
    }
    return nullptr;
}

}  // namespace lateint
