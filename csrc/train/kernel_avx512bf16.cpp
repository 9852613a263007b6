#include <immintrin.h>

#include "train/lanes.hpp"

namespace lateint::train {
namespace {

struct Vectors {
    using Reg = __m512;
    static constexpr int kWidth = 16, kTiles = 2, kRows = 8;
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg set(float x) { return _mm512_set1_ps(x); }
    static Reg load(const void* from) { return _mm512_loadu_ps(from); }
    static Reg broadcast(const char* from) {
        int32_t step;
        __builtin_memcpy(&step, from, sizeof step);
        return _mm512_castsi512_ps(_mm512_set1_epi32(step));
    }
    static void store(float* to, Reg x) { _mm512_storeu_ps(to, x); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
    static Reg multiply(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static __mmask16 greater(Reg x, Reg y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
    static Reg pick(__mmask16 where, Reg a, Reg b) { return _mm512_mask_mov_ps(b, where, a); }
};

// A step is a pair of numbers; of an odd dim the last one is half empty.
struct Pairs {
    using V = Vectors;
    using Reg = V::Reg;
    static constexpr int kNumbers = 2;
    static Reg dot(Reg token, Reg query, Reg sum) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(token), reinterpret_cast<__m512bh>(query));
    }
    static bool direct(int64_t dim) { return dim % 2 == 0; }
    static void pack_documents(const void* tokens, const int32_t* positions, int64_t count, int64_t dim, void* rows) {
        uint16_t* target = static_cast<uint16_t*>(rows);
        for (int64_t row = 0; row < count; ++row, target += (dim + 1) / 2 * 2) {
            const int64_t from = positions != nullptr ? positions[row] : row;
            __builtin_memcpy(target, static_cast<const uint16_t*>(tokens) + from * dim, static_cast<size_t>(dim) * 2);
            if (dim % 2 != 0) target[dim] = 0;
        }
    }
    static void pack_queries(const void* queries, const int64_t* rows, int count, int64_t dim, void* tile) {
        const uint16_t* const source = static_cast<const uint16_t*>(queries);
        uint16_t* target = static_cast<uint16_t*>(tile);
        for (int64_t k = 0; k < dim; k += 2) {
            for (int lane = 0; lane < kLanes; ++lane) {
                *target++ = lane < count ? source[rows[lane] * dim + k] : uint16_t{0};
                *target++ = lane < count && k + 1 < dim ? source[rows[lane] * dim + k + 1] : uint16_t{0};
            }
        }
    }
};

constexpr ForwardKernel kBfloat16 = lanes_forward_kernel<Pairs>();

}  // namespace

const ForwardKernel* forward_kernel_avx512bf16(Dtype dtype) { return dtype == Dtype::bfloat16 ? &kBfloat16 : nullptr; }

}  // namespace lateint::train
