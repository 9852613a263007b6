#include <immintrin.h>

#include "train/lane_kernel.hpp"

namespace lateint::train {
namespace {

struct Vectors {
    using Reg = __m256;
    static constexpr int kWidth = 8, kTiles = 1, kRows = 6, kSums = 8, kTogether = 6;
    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg set(float x) { return _mm256_set1_ps(x); }
    static Reg load(const void* from) { return _mm256_loadu_ps(static_cast<const float*>(from)); }
    static Reg broadcast(const char* from) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(from)); }
    static void store(float* to, Reg x) { _mm256_storeu_ps(to, x); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
    static Reg multiply(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg subtract(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
    static float sum(Reg x) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    static Reg greater(Reg x, Reg y) { return _mm256_cmp_ps(x, y, _CMP_GT_OQ); }
    static Reg pick(Reg where, Reg a, Reg b) { return _mm256_blendv_ps(b, a, where); }
    static uint32_t bits(Reg where) { return static_cast<uint32_t>(_mm256_movemask_ps(where)); }
    static Reg power(Reg x) {
        const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(x), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(127 << 23)));
    }

    template <Dtype dtype>
    static Reg widen(const char* from, int64_t n) {
        constexpr int64_t kItem = itemsize(dtype);
        char part[kWidth * kItem] = {};
        if (n < kWidth) {
            for (int64_t byte = 0; byte < n * kItem; ++byte) part[byte] = from[byte];
            from = part;
        }
        if constexpr (dtype == Dtype::float32) {
            return load(from);
        } else {
            const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
            if constexpr (dtype == Dtype::float16) return _mm256_cvtph_ps(bits);
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
        }
    }
    template <Dtype dtype>
    static void narrow(char* to, Reg x, int64_t n) {
        constexpr int64_t kItem = itemsize(dtype);
        char part[kWidth * kItem];
        char* const target = n < kWidth ? part : to;
        if constexpr (dtype == Dtype::float32) {
            _mm256_storeu_ps(reinterpret_cast<float*>(target), x);
        } else if constexpr (dtype == Dtype::float16) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                             _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        } else {  // to nearest, ties to even; a NaN becomes the quiet one
            const __m256i whole = _mm256_castps_si256(x);
            const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(whole, 16), _mm256_set1_epi32(1));
            const __m256i rounded = _mm256_add_epi32(whole, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            const __m256 kept =
                _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)),
                                 _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
            const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(kept), 16);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                             _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
        }
        if (n < kWidth) {
            for (int64_t byte = 0; byte < n * kItem; ++byte) to[byte] = part[byte];
        }
    }
};

}  // namespace

const ForwardKernel* forward_kernel_avx2(Dtype dtype) { return lanes_forward<Vectors>(dtype); }
const BackwardKernel* backward_kernel_avx2(Dtype dtype) { return lanes_backward<Vectors>(dtype); }
const LaneKernel* lane_kernel_avx2() { return lanes_kernel<Vectors>(); }

}  // namespace lateint::train
