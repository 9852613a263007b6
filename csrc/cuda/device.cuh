// What the kernels need of CUDA beyond the language, without its headers (NVRTC brings none).
#pragma once

namespace lateint {

typedef long long int64;
typedef float fp32;

constexpr unsigned ALL_LANES = 0xffffffffu;

// Below this an inverse norm is that of a vector longer than 1e-12; above, the norm was clamped and has no slope.
constexpr float CLAMPED_INVERSE_NORM = 0.99e12f;

struct bf16 {
    unsigned short bits;
};

struct fp16 {
    unsigned short bits;
};

__device__ inline float to_float(float x) { return x; }

__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

__device__ inline void from_float(float x, float& out) { out = x; }

// To nearest, ties to even; a NaN stays one.
__device__ inline void from_float(float x, bf16& out) {
    const unsigned bits = __float_as_uint(x);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out.bits = static_cast<unsigned short>(nan ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ inline float to_float(fp16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ inline void from_float(float x, fp16& out) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x)); }

// N neighbouring numbers, moved in one instruction: N * sizeof(T) is 8 or 16.
template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
    T values[N];
};

template <typename T, int N>
__device__ inline Pack<T, N> load(const T* from) {
    return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, typename T>
__device__ inline void store(T* to, const float (&from)[N]) {
    Pack<T, N> pack;
    for (int i = 0; i < N; ++i) from_float(from[i], pack.values[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// An argmax of 1, 2 or 4 bytes.
__device__ inline int load_position(const void* positions, int64 index, int bytes) {
    if (bytes == 1) return static_cast<const unsigned char*>(positions)[index];
    if (bytes == 2) return static_cast<const short*>(positions)[index];
    return static_cast<const int*>(positions)[index];
}

__device__ inline float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

}  // namespace lateint
