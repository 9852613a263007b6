#include "codes/residual.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "platform/threads.hpp"

namespace lateint::codes {

Codec::Codec(int nbits, int64_t width, int64_t depth, const uint8_t* centroids)
    : nbits(nbits), width(width), depth(depth), centroids(centroids) {
    if (nbits > 4) return;
    places.reset(new uint8_t[depth]);
    shifts.reset(new uint8_t[depth]);
    for (int64_t k = 0; k < depth; ++k) {
        places[k] = static_cast<uint8_t>(k % code_bytes() % 64);
        shifts[k] = static_cast<uint8_t>(k % 8 * 8 + k / code_bytes() * nbits % 8);
    }
    const int unit = scale_unit(nbits), top = (1 << nbits) - 1;
    for (int scale = 0; scale < 256; ++scale)
        for (int code = 0; code < 16; ++code) {
            const int twice = 2 * (code & top) - top;
            const int magnitude = ((twice < 0 ? -twice : twice) * scale + unit) / (2 * unit);
            levels[scale][code] = static_cast<int8_t>(twice < 0 ? -magnitude : magnitude);
        }
}

void encode(const Codec& codec, const float* scaled, const uint32_t* centroid_ids, int64_t n, int threads,
            uint8_t* codes, uint8_t* scales) {
    constexpr int64_t kAhead = 8;  // tokens between the prefetch of a centroid and its use
    const ResidualKernels& kernels = residual_kernels();
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        for (int64_t i = first; i < first + count; ++i) {
            if (i + kAhead < first + count) {
                const uint8_t* const row = codec.centroids + int64_t{centroid_ids[i + kAhead]} * codec.depth;
                for (int64_t k = 0; k < codec.depth; k += 64) __builtin_prefetch(row + k);
            }
            const uint8_t* const centroid = codec.centroids + int64_t{centroid_ids[i]} * codec.depth;
            scales[i] = kernels.encode(codec, scaled + i * codec.width, centroid, codes + i * codec.code_bytes());
        }
    });
}

void decode(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n, uint8_t* bytes) {
    std::vector<uint8_t> rows(n * codec.depth);
    residual_kernels().decode(codec, tokens, first, n, rows.data());
    for (int64_t i = 0; i < n; ++i) std::copy_n(rows.data() + i * codec.depth, codec.width, bytes + i * codec.width);
}

void to_bytes(const float* scaled, int64_t n, int64_t width, int64_t depth, int threads, uint8_t* bytes) {
    const ResidualKernels& kernels = residual_kernels();
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        for (int64_t i = first; i < first + count; ++i) {
            kernels.to_bytes(scaled + i * width, width, bytes + i * depth);
            std::fill(bytes + i * depth + width, bytes + (i + 1) * depth, uint8_t{128});
        }
    });
}

void peaks(const uint8_t* bytes, int64_t depth, const float* scaled, int64_t width, int64_t n, int threads,
           float* out) {
    parallel_for_chunks(n, kTokensPerTask, threads, [&](int64_t first, int64_t count) {
        for (int64_t i = first; i < first + count; ++i) {
            const uint8_t* const row = bytes + i * depth;
            uint8_t least = 255, most = 0;
            for (int64_t k = 0; k < depth; ++k) {
                least = row[k] < least ? row[k] : least;
                most = row[k] > most ? row[k] : most;
            }
            out[i] = 0;
            if (least > 0 && most < 255) continue;
            for (int64_t k = 0; k < width; ++k) out[i] = std::max(out[i], std::fabs(scaled[i * width + k]));
        }
    });
}

const ResidualKernels& residual_kernels() {
#if defined(__x86_64__) || defined(_M_X64)
    if (active_isa() >= Isa::avx512) return kResidualAvx512;
    if (active_isa() == Isa::avx2) return kResidualAvx2;
#elif defined(__aarch64__)
    if (active_isa() >= Isa::neon) return kResidualNeon;
#endif
    return kResidualScalar;
}

}  // namespace lateint::codes
