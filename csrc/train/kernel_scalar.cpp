// The portable kernels: four lanes at a time in the vectors that GCC and Clang offer on every CPU.
#include "platform/floats.hpp"
#include "train/lane_kernel.hpp"

namespace lateint::train {
namespace {

uint16_t float_to_bfloat16(float number) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    if (number != number) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t float_to_float16(float number) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 65536 or more
    if (magnitude < 0x38800000) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the last bits
        const float shifted = float_from_bits(magnitude) + 0.5f;
        std::memcpy(&bits, &shifted, sizeof bits);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000));
    }
    return static_cast<uint16_t>(sign | ((magnitude + 0xfff + (magnitude >> 13 & 1)) - (112u << 23)) >> 13);
}

template <Dtype dtype>
float number(const char* from, int64_t i) {
    if constexpr (dtype == Dtype::float32) return reinterpret_cast<const float*>(from)[i];
    const uint16_t bits = reinterpret_cast<const uint16_t*>(from)[i];
    return dtype == Dtype::float16 ? float16_to_float(bits) : bfloat16_to_float(bits);
}

struct Vectors {
    typedef float Reg __attribute__((vector_size(16)));
    typedef int32_t Mask __attribute__((vector_size(16)));
    static constexpr int kWidth = 4, kTiles = 1, kRows = 2, kSums = 8, kTogether = 4;
    static Reg zero() { return Reg{}; }
    static Reg set(float x) { return Reg{x, x, x, x}; }
    static Reg load(const void* from) {
        Reg x;
        std::memcpy(&x, from, sizeof x);
        return x;
    }
    static Reg broadcast(const char* from) { return set(*reinterpret_cast<const float*>(from)); }
    static void store(float* to, Reg x) { std::memcpy(to, &x, sizeof x); }
    static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
    static Reg multiply(Reg a, Reg b) { return a * b; }
    static Reg add(Reg a, Reg b) { return a + b; }
    static Reg subtract(Reg a, Reg b) { return a - b; }
    static float sum(Reg x) { return (x[0] + x[1]) + (x[2] + x[3]); }
    static Mask greater(Reg x, Reg y) { return x > y; }
    static Reg pick(Mask where, Reg a, Reg b) { return where ? a : b; }
    static uint32_t bits(Mask where) {
        return static_cast<uint32_t>((where[0] & 1) | (where[1] & 2) | (where[2] & 4) | (where[3] & 8));
    }
    static Reg power(Reg x) {
        typedef uint32_t Bits __attribute__((vector_size(16)));
        return reinterpret_cast<Reg>((reinterpret_cast<Bits>(x) << 23) + (127u << 23));
    }

    template <Dtype dtype>
    static Reg widen(const char* from, int64_t n) {
        Reg x = {};
        for (int64_t i = 0; i < n; ++i) x[i] = number<dtype>(from, i);
        return x;
    }
    template <Dtype dtype>
    static void narrow(char* to, Reg x, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
            if constexpr (dtype == Dtype::float32) {
                reinterpret_cast<float*>(to)[i] = x[i];
            } else {
                reinterpret_cast<uint16_t*>(to)[i] =
                    dtype == Dtype::float16 ? float_to_float16(x[i]) : float_to_bfloat16(x[i]);
            }
        }
    }
};

}  // namespace

const ForwardKernel* forward_kernel_scalar(Dtype dtype) { return lanes_forward<Vectors>(dtype); }
const BackwardKernel* backward_kernel_scalar(Dtype dtype) { return lanes_backward<Vectors>(dtype); }
const LaneKernel* lane_kernel_scalar() { return lanes_kernel<Vectors>(); }

}  // namespace lateint::train
