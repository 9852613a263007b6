#include <immintrin.h>

#include "dense/lanes.hpp"

namespace lateint::dense {
namespace {

// The first `count` <= 16 numbers of a document as floats.
template <Dtype dtype>
inline __m512 widen(const char* from, int64_t count) {
    const __mmask16 mask = count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
    if constexpr (dtype == Dtype::float16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
    if constexpr (dtype == Dtype::bfloat16) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
    }
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, from)));
}

template <Dtype dtype>
struct Float {
    using Reg = __m512;
    static constexpr int kRegs = 1, kTiles = 2, kRows = 8, kSlice = 256, kNumbers = 1;
    static constexpr int64_t kItem = itemsize(dtype);
    static constexpr bool kOffset = false;
    static bool direct(int64_t) { return dtype == Dtype::float32; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        for (int64_t i = 0; i < rows * dim; i += 16) {
            _mm512_storeu_ps(to + i * 4, widen<dtype>(from + i * kItem, rows * dim - i));
        }
    }
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg lowest() { return _mm512_set1_ps(-__builtin_inff()); }
    static Reg load(const char* from) { return _mm512_loadu_ps(from); }
    static void store(char* to, Reg x) { _mm512_storeu_ps(to, x); }
    static Reg broadcast(const char* from) { return _mm512_castsi512_ps(_mm512_set1_epi32(step_bits(from))); }
    static Reg dot(Reg sum, Reg token, Reg query) { return _mm512_fmadd_ps(token, query, sum); }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
};

// vpdpbusd multiplies unsigned by signed bytes: documents go in as x + 128, and accumulators start at -128 sum(query).
struct Int8 {
    using Reg = __m512i;
    static constexpr int kRegs = 1, kTiles = 2, kRows = 8, kSlice = 0, kNumbers = 4;
    static constexpr int64_t kItem = 1;
    static constexpr bool kOffset = true;
    static bool direct(int64_t) { return false; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
        const bool whole = dim % 4 == 0;  // rows then follow each other without gaps
        const int64_t count = whole ? 1 : rows, size = whole ? rows * dim : dim;
        for (int64_t row = 0; row < count; ++row, from += size, to += (size + 3) / 4 * 4) {
            for (int64_t i = 0; i < size; i += 64) {
                const __mmask64 mask = size - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (size - i)) - 1;
                _mm512_storeu_si512(to + i, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from + i), sign));
            }
        }
    }
    static Reg zero() { return _mm512_setzero_si512(); }
    static Reg lowest() { return _mm512_set1_epi32(INT32_MIN); }
    static Reg load(const char* from) { return _mm512_loadu_si512(from); }
    static void store(char* to, Reg x) { _mm512_storeu_si512(to, x); }
    static Reg broadcast(const char* from) { return _mm512_set1_epi32(step_bits(from)); }
    static Reg dot(Reg sum, Reg token, Reg query) { return _mm512_dpbusd_epi32(sum, token, query); }
    static Reg add(Reg a, Reg b) { return _mm512_add_epi32(a, b); }
    static Reg max(Reg a, Reg b) { return _mm512_max_epi32(a, b); }
};

void pack_int8(const void* queries, int rows, int64_t dim, void* tile) {
    pack_steps<Int8, int8_t, int8_t>(queries, rows, dim, tile, [](int8_t x) { return x; });
    int32_t* start = static_cast<int32_t*>(tile) + steps_of<Int8>(dim) * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) {
        int32_t sum = 0;
        const int8_t* query = static_cast<const int8_t*>(queries) + lane * dim;
        for (int64_t k = 0; lane < rows && k < dim; ++k) sum += query[k];
        start[lane] = -128 * sum;
    }
}

constexpr Kernel kInt8 = lanes_kernel<Int8>(pack_int8);

}  // namespace

const Kernel* kernel_avx512(QueryKind queries, Dtype documents) {
    return lanes_kernel_for<Float>(queries, documents, kInt8);
}

}  // namespace lateint::dense
