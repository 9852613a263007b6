#include <immintrin.h>

#include "dense/lanes.hpp"

namespace lateint::dense {
namespace {

struct Bfloat16 {
    using Reg = __m512;
    static constexpr int kRegs = 1, kTiles = 2, kRows = 8, kSlice = 256, kNumbers = 2;
    static constexpr int64_t kItem = 2;
    static constexpr bool kOffset = false;
    static bool direct(int64_t dim) { return dim % 2 == 0; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {  // odd dim: a zero ends each row
        const uint16_t* source = reinterpret_cast<const uint16_t*>(from);
        uint16_t* target = reinterpret_cast<uint16_t*>(to);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t k = 0; k < dim; ++k) *target++ = *source++;
            *target++ = 0;
        }
    }
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg lowest() { return _mm512_set1_ps(-__builtin_inff()); }
    static Reg load(const char* from) { return _mm512_loadu_ps(from); }
    static void store(char* to, Reg x) { _mm512_storeu_ps(to, x); }
    static Reg broadcast(const char* from) { return _mm512_castsi512_ps(_mm512_set1_epi32(step_bits(from))); }
    static Reg dot(Reg sum, Reg token, Reg query) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(token), reinterpret_cast<__m512bh>(query));
    }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
};

void pack_bfloat16(const void* queries, int rows, int64_t dim, void* tile) {
    pack_steps<Bfloat16, uint32_t, uint16_t>(queries, rows, dim, tile,
                                             [](uint32_t bits) { return static_cast<uint16_t>(bits >> 16); });
}

constexpr Kernel kBfloat16 = lanes_kernel<Bfloat16>(pack_bfloat16);

}  // namespace

const Kernel* kernel_avx512bf16(QueryKind queries, Dtype documents) {
    return queries == QueryKind::bfloat16 && documents == Dtype::bfloat16 ? &kBfloat16 : nullptr;
}

}  // namespace lateint::dense
