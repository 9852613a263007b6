#include <immintrin.h>

#include "train/lane_kernel.hpp"

namespace lateint::train {
namespace {

struct Vectors {
    using Reg = __m512;
    static constexpr int kWidth = 16, kTiles = 2, kRows = 8, kSums = 16, kTogether = 6;
    static __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg set(float x) { return _mm512_set1_ps(x); }
    static Reg load(const void* from) { return _mm512_loadu_ps(from); }
    static Reg broadcast(const char* from) { return _mm512_set1_ps(*reinterpret_cast<const float*>(from)); }
    static void store(float* to, Reg x) { _mm512_storeu_ps(to, x); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
    static Reg multiply(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg subtract(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
    static float sum(Reg x) { return _mm512_reduce_add_ps(x); }
    static __mmask16 greater(Reg x, Reg y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
    static Reg pick(__mmask16 where, Reg a, Reg b) { return _mm512_mask_mov_ps(b, where, a); }
    static uint32_t bits(__mmask16 where) { return where; }
    static Reg power(Reg x) {
        const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(x), 23);
        return _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(127 << 23)));
    }

    template <Dtype dtype>
    static Reg widen(const char* from, int64_t n) {
        if constexpr (dtype == Dtype::float32) return _mm512_maskz_loadu_ps(first(n), from);
        const __m256i bits = _mm256_maskz_loadu_epi16(first(n), from);
        if constexpr (dtype == Dtype::float16) return _mm512_cvtph_ps(bits);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
    template <Dtype dtype>
    static void narrow(char* to, Reg x, int64_t n) {
        if constexpr (dtype == Dtype::float32) return _mm512_mask_storeu_ps(to, first(n), x);
        __m256i bits;
        if constexpr (dtype == Dtype::float16) {
            bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        } else {  // to nearest, ties to even; a NaN becomes the quiet one
            const __m512i whole = _mm512_castps_si512(x);
            const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(whole, 16), _mm512_set1_epi32(1));
            const __m512i rounded = _mm512_add_epi32(whole, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
            const __m512i kept = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
            bits = _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
        }
        _mm256_mask_storeu_epi16(to, first(n), bits);
    }
};

}  // namespace

const ForwardKernel* forward_kernel_avx512(Dtype dtype) { return lanes_forward<Vectors>(dtype); }
const BackwardKernel* backward_kernel_avx512(Dtype dtype) { return lanes_backward<Vectors>(dtype); }
const LaneKernel* lane_kernel_avx512() { return lanes_kernel<Vectors>(); }

}  // namespace lateint::train
