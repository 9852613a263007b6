#include <immintrin.h>

#include "dense/lanes.hpp"

namespace lateint::dense {
namespace {

// Eight numbers of a document as floats.
template <Dtype dtype>
inline __m256 widen(const char* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (dtype == Dtype::float16) return _mm256_cvtph_ps(bits);
    if constexpr (dtype == Dtype::bfloat16) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bits));
}

template <Dtype dtype>
struct Float {
    using Reg = __m256;
    static constexpr int kRegs = 2, kTiles = 1, kRows = 6, kSlice = 256, kNumbers = 1;
    static constexpr int64_t kItem = itemsize(dtype);
    static constexpr bool kOffset = false;
    static bool direct(int64_t) { return dtype == Dtype::float32; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        float* target = reinterpret_cast<float*>(to);
        const int64_t numbers = rows * dim;
        int64_t i = 0;
        for (; i + 16 <= numbers; i += 8) _mm256_storeu_ps(target + i, widen<dtype>(from + i * kItem));
        for (; i < numbers; i += 8) {  // widen() reads 16 bytes, which must all be the document's
            alignas(16) char last[16] = {};
            const int64_t left = numbers - i < 8 ? numbers - i : 8;
            for (int64_t byte = 0; byte < left * kItem; ++byte) last[byte] = from[i * kItem + byte];
            _mm256_storeu_ps(target + i, widen<dtype>(last));
        }
    }
    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg lowest() { return _mm256_set1_ps(-__builtin_inff()); }
    static Reg load(const char* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
    static void store(char* to, Reg x) { _mm256_storeu_ps(reinterpret_cast<float*>(to), x); }
    static Reg broadcast(const char* from) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(from)); }
    static Reg dot(Reg sum, Reg token, Reg query) { return _mm256_fmadd_ps(token, query, sum); }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
};

// int8 as pairs of int16: vpmaddwd never saturates on them, unlike vpmaddubsw on bytes.
struct Int8 {
    using Reg = __m256i;
    static constexpr int kRegs = 2, kTiles = 1, kRows = 4, kSlice = 0, kNumbers = 2;
    static constexpr int64_t kItem = 1;
    static constexpr bool kOffset = false;
    static bool direct(int64_t) { return false; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        int16_t* target = reinterpret_cast<int16_t*>(to);
        for (int64_t row = 0; row < rows; ++row, target += (dim + 1) / 2 * 2) {
            const int8_t* source = reinterpret_cast<const int8_t*>(from) + row * dim;
            int64_t k = 0;
            for (; k + 16 <= dim; k += 16) {
                const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + k));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + k), _mm256_cvtepi8_epi16(bytes));
            }
            for (; k < dim; ++k) target[k] = source[k];
            if (dim % 2 != 0) target[dim] = 0;
        }
    }
    static Reg zero() { return _mm256_setzero_si256(); }
    static Reg lowest() { return _mm256_set1_epi32(INT32_MIN); }
    static Reg load(const char* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
    static void store(char* to, Reg x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
    static Reg broadcast(const char* from) {
        return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(from)));
    }
    static Reg dot(Reg sum, Reg token, Reg query) { return _mm256_add_epi32(sum, _mm256_madd_epi16(token, query)); }
    static Reg add(Reg a, Reg b) { return _mm256_add_epi32(a, b); }
    static Reg max(Reg a, Reg b) { return _mm256_max_epi32(a, b); }
};

void pack_int8(const void* queries, int rows, int64_t dim, void* tile) {
    pack_steps<Int8, int8_t, int16_t>(queries, rows, dim, tile, [](int8_t x) -> int16_t { return x; });
}

constexpr Kernel kInt8 = lanes_kernel<Int8>(pack_int8);

}  // namespace

const Kernel* kernel_avx2(QueryKind queries, Dtype documents) {
    return lanes_kernel_for<Float>(queries, documents, kInt8);
}

}  // namespace lateint::dense
