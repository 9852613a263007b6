#include "codes/residual.hpp"

namespace lateint::codes {

void Codec::fill_tables() {
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

const ResidualKernels& residual_kernels() {
#if defined(__x86_64__) || defined(_M_X64)
    if (active_isa() >= Isa::avx512) return kResidualAvx512;
    if (active_isa() == Isa::avx2) return kResidualAvx2;
#endif
    return kResidualScalar;
}

}  // namespace lateint::codes
