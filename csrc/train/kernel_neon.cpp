// Vectors of eight floats in two registers each: then sums have the order, and the bits, of AVX2.
#include <arm_neon.h>

#include <cstddef>

#include "train/lane_kernel.hpp"

namespace lateint::train {
namespace {

struct Vectors {
    struct Reg {
        float32x4_t low, high;
    };
    struct Mask {
        uint32x4_t low, high;
    };
    static constexpr int kWidth = 8, kTiles = 1, kRows = 6, kSums = 8, kTogether = 6;
    static Reg zero() { return set(0); }
    static Reg set(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
    static Reg load(const void* from) {
        const float* const numbers = static_cast<const float*>(from);
        return {vld1q_f32(numbers), vld1q_f32(numbers + 4)};
    }
    static Reg broadcast(const char* from) {
        const float32x4_t x = vld1q_dup_f32(reinterpret_cast<const float*>(from));
        return {x, x};
    }
    static void store(float* to, Reg x) {
        vst1q_f32(to, x.low);
        vst1q_f32(to + 4, x.high);
    }
    static Reg fma(Reg a, Reg b, Reg c) { return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)}; }
    static Reg multiply(Reg a, Reg b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
    static Reg add(Reg a, Reg b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
    static Reg subtract(Reg a, Reg b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
    static float sum(Reg x) {
        const float32x4_t four = vaddq_f32(x.low, x.high);
        const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
    }
    static Mask greater(Reg x, Reg y) { return {vcgtq_f32(x.low, y.low), vcgtq_f32(x.high, y.high)}; }
    static Reg pick(Mask where, Reg a, Reg b) {
        return {vbslq_f32(where.low, a.low, b.low), vbslq_f32(where.high, a.high, b.high)};
    }
    static uint32_t bits(Mask where) {
        constexpr uint32_t kLow[] = {1, 2, 4, 8}, kHigh[] = {16, 32, 64, 128};
        return vaddvq_u32(vorrq_u32(vandq_u32(where.low, vld1q_u32(kLow)), vandq_u32(where.high, vld1q_u32(kHigh))));
    }
    static float32x4_t power(float32x4_t x) {
        return vreinterpretq_f32_s32(vaddq_s32(vshlq_n_s32(vreinterpretq_s32_f32(x), 23), vdupq_n_s32(127 << 23)));
    }
    static Reg power(Reg x) { return {power(x.low), power(x.high)}; }

    template <Dtype dtype>
    static Reg widen(const char* from, int64_t n) {
        constexpr int64_t kItem = itemsize(dtype);
        char part[kWidth * kItem] = {};
        if (n < kWidth) {
            __builtin_memcpy(part, from, static_cast<size_t>(n * kItem));
            from = part;
        }
        if constexpr (dtype == Dtype::float32) {
            return load(from);
        } else {
            const uint16x8_t bits = vld1q_u16(reinterpret_cast<const uint16_t*>(from));
            if constexpr (dtype == Dtype::float16) {
                const float16x8_t halves = vreinterpretq_f16_u16(bits);
                return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
            }
            return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)),
                    vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16))};
        }
    }
    // To nearest, ties to even; a NaN becomes the quiet one.
    static uint16x4_t bfloat16(float32x4_t x) {
        const uint32x4_t whole = vreinterpretq_u32_f32(x);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(whole, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(whole, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, vdupq_n_u32(0x7fc00000)), 16);
    }
    template <Dtype dtype>
    static void narrow(char* to, Reg x, int64_t n) {
        constexpr int64_t kItem = itemsize(dtype);
        char part[kWidth * kItem];
        char* const target = n < kWidth ? part : to;
        if constexpr (dtype == Dtype::float32) {
            store(reinterpret_cast<float*>(target), x);
        } else {
            uint16x8_t bits;
            if constexpr (dtype == Dtype::float16) {
                bits = vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.low), x.high));
            } else {
                bits = vcombine_u16(bfloat16(x.low), bfloat16(x.high));
            }
            vst1q_u16(reinterpret_cast<uint16_t*>(target), bits);
        }
        if (n < kWidth) __builtin_memcpy(to, part, static_cast<size_t>(n * kItem));
    }
};

}  // namespace

const ForwardKernel* forward_kernel_neon(Dtype dtype) { return lanes_forward<Vectors>(dtype); }
const BackwardKernel* backward_kernel_neon(Dtype dtype) { return lanes_backward<Vectors>(dtype); }
const LaneKernel* lane_kernel_neon() { return lanes_kernel<Vectors>(); }

}  // namespace lateint::train
