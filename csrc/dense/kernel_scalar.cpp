// The portable kernel: four lanes at a time in the vectors that GCC and Clang offer on every CPU.
#include "dense/lanes.hpp"
#include "platform/floats.hpp"

namespace lateint::dense {
namespace {

template <Dtype dtype>
float number(const char* tokens, int64_t i) {
    if constexpr (dtype == Dtype::float32) return reinterpret_cast<const float*>(tokens)[i];
    if constexpr (dtype == Dtype::float16) return float16_to_float(reinterpret_cast<const uint16_t*>(tokens)[i]);
    if constexpr (dtype == Dtype::bfloat16) return bfloat16_to_float(reinterpret_cast<const uint16_t*>(tokens)[i]);
    return reinterpret_cast<const int8_t*>(tokens)[i];
}

template <class T>
struct Lanes {
    using Reg __attribute__((vector_size(16))) = T;
    static constexpr int kRegs = 4, kTiles = 1, kRows = 2, kSlice = 256, kNumbers = 1;
    static constexpr bool kOffset = false;
    static Reg zero() { return Reg{}; }
    static Reg load(const char* from) {
        Reg x;
        __builtin_memcpy(&x, from, sizeof x);
        return x;
    }
    static void store(char* to, Reg x) { __builtin_memcpy(to, &x, sizeof x); }
    static Reg broadcast(const char* from) {
        T x;
        __builtin_memcpy(&x, from, sizeof x);
        return Reg{x, x, x, x};
    }
    static Reg dot(Reg sum, Reg token, Reg query) { return sum + token * query; }
    static Reg add(Reg a, Reg b) { return a + b; }
    static Reg max(Reg a, Reg b) { return a > b ? a : b; }
};

template <Dtype dtype>
struct Float : Lanes<float> {
    static constexpr int64_t kItem = itemsize(dtype);
    static bool direct(int64_t) { return dtype == Dtype::float32; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        float* target = reinterpret_cast<float*>(to);
        for (int64_t i = 0; i < rows * dim; ++i) target[i] = number<dtype>(from, i);
    }
    static Reg lowest() { return Reg{} - __builtin_inff(); }
};

struct Int8 : Lanes<int32_t> {
    static constexpr int64_t kItem = 1;
    static bool direct(int64_t) { return false; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        int32_t* target = reinterpret_cast<int32_t*>(to);
        for (int64_t i = 0; i < rows * dim; ++i) target[i] = reinterpret_cast<const int8_t*>(from)[i];
    }
    static Reg lowest() { return Reg{} + INT32_MIN; }
};

void pack_int8(const void* queries, int rows, int64_t dim, void* tile) {
    pack_steps<Int8, int8_t, int32_t>(queries, rows, dim, tile, [](int8_t x) -> int32_t { return x; });
}

constexpr Kernel kInt8 = lanes_kernel<Int8>(pack_int8);

}  // namespace

const Kernel* kernel_scalar(QueryKind queries, Dtype documents) {
    return lanes_kernel_for<Float>(queries, documents, kInt8);
}

}  // namespace lateint::dense
