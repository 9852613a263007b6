#include "dense/bytes_neon.hpp"

namespace lateint::dense {
namespace {

// Four numbers of a document as floats.
template <Dtype dtype>
inline float32x4_t widen(const char* from) {
    if constexpr (dtype == Dtype::int8) {
        int32_t four;
        __builtin_memcpy(&four, from, sizeof four);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
    } else {
        const uint16x4_t bits = vld1_u16(reinterpret_cast<const uint16_t*>(from));
        if constexpr (dtype == Dtype::float16) return vcvt_f32_f16(vreinterpret_f16_u16(bits));
        return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
    }
}

// In the order of the x86 kernels, which multiply and add in one step too: the same bits as theirs.
template <Dtype dtype>
struct Float {
    using Reg = float32x4_t;
    static constexpr int kRegs = 4, kTiles = 1, kRows = 6, kSlice = 256, kNumbers = 1;
    static constexpr int64_t kItem = itemsize(dtype);
    static constexpr bool kOffset = false;
    static bool direct(int64_t) { return dtype == Dtype::float32; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        float* target = reinterpret_cast<float*>(to);
        const int64_t numbers = rows * dim;
        int64_t i = 0;
        for (; i + 4 <= numbers; i += 4) vst1q_f32(target + i, widen<dtype>(from + i * kItem));
        if (i == numbers) return;
        char last[4 * kItem] = {};
        __builtin_memcpy(last, from + i * kItem, static_cast<size_t>((numbers - i) * kItem));
        vst1q_f32(target + i, widen<dtype>(last));
    }
    static Reg zero() { return vdupq_n_f32(0); }
    static Reg lowest() { return vdupq_n_f32(-__builtin_inff()); }
    static Reg load(const char* from) { return vld1q_f32(reinterpret_cast<const float*>(from)); }
    static void store(char* to, Reg x) { vst1q_f32(reinterpret_cast<float*>(to), x); }
    static Reg broadcast(const char* from) { return vld1q_dup_f32(reinterpret_cast<const float*>(from)); }
    static Reg dot(Reg sum, Reg token, Reg query) { return vfmaq_f32(sum, token, query); }
    static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
    // Not vmaxq_f32: where either is NaN this takes b, as the other instruction sets do.
    static Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
};

// Products of bytes fit into 16 bits.
struct Dot {
    static int32x4_t dot(int32x4_t sum, int8x16_t token, int8x16_t query) {
        const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(token), vget_low_s8(query)));
        return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(token, query))));
    }
};

constexpr Kernel kInt8 = lanes_kernel<Bytes<Dot>>(Bytes<Dot>::pack);

}  // namespace

const Kernel* kernel_neon(QueryKind queries, Dtype documents) {
    return lanes_kernel_for<Float>(queries, documents, kInt8);
}

}  // namespace lateint::dense
