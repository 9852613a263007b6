// Floats by their bits, in portable C++, for the sources that are compiled without instruction-set flags.
#pragma once

#include <cstdint>
#include <cstring>

namespace lateint {

inline float float_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float bfloat16_to_float(uint16_t number) { return float_from_bits(uint32_t{number} << 16); }

inline float float16_to_float(uint16_t number) {
    const uint32_t sign = uint32_t{number & 0x8000u} << 16, magnitude = number & 0x7fffu;
    if (magnitude < 0x400) {  // subnormal: a multiple of 2^-24
        const float value = static_cast<float>(magnitude) * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    if (magnitude >= 0x7c00) return float_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    return float_from_bits(sign | ((magnitude << 13) + (112u << 23)));
}

// The largest magnitude; a NaN counts as larger than any number.
inline float largest_magnitude(const float* numbers, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, numbers + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return float_from_bits(largest);
}

}  // namespace lateint
