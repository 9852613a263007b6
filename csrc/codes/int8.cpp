#include "codes/int8.hpp"

#include <cstring>

namespace lateint::codes {

const Int8Kernels& int8_kernels() {
#if defined(__x86_64__) || defined(_M_X64)
    switch (active_isa()) {
        case Isa::amx:
            return kInt8Amx;
        case Isa::avx512bf16:
        case Isa::avx512:
            return kInt8Avx512;
        case Isa::avx2:
            return kInt8Avx2;
        default:
            break;
    }
#elif defined(__aarch64__)
    switch (active_isa()) {
        case Isa::i8mm:
            return kInt8I8mm;
        case Isa::dotprod:
            return kInt8Dotprod;
        case Isa::neon:
            return kInt8Neon;
        default:
            break;
    }
#endif
    return kInt8Scalar;
}

void pack_tile(const int8_t* vectors, int count, int64_t stride, int64_t depth, int8_t* tile) {
    if (count < kLanes) std::memset(tile, 0, depth * kLanes);
    for (int j = 0; j < count; ++j)
        for (int64_t k = 0; k < depth; k += 4) std::memcpy(tile + k * kLanes + j * 4, vectors + j * stride + k, 4);
}

}  // namespace lateint::codes
