// MaxSim of int8 tokens on ARM, four numbers a step. Dot has dot(sum, token, query).
#pragma once

#include <arm_neon.h>

#include <cstddef>

#include "dense/lanes.hpp"

namespace lateint::dense {
namespace {

// Rows of whole steps, filled up with zeros.
inline void fill_up(const char* from, int64_t rows, int64_t dim, int64_t whole, char* to) {
    for (int64_t row = 0; row < rows; ++row, from += dim, to += whole) {
        __builtin_memcpy(to, from, static_cast<size_t>(dim));
        __builtin_memset(to + dim, 0, static_cast<size_t>(whole - dim));
    }
}

inline int8_t same(int8_t x) { return x; }

template <class Dot>
struct Bytes {
    using Reg = int32x4_t;
    static constexpr int kRegs = 4, kTiles = 1, kRows = 4, kSlice = 0, kNumbers = 4;
    static constexpr int64_t kItem = 1;
    static constexpr bool kOffset = false;
    static bool direct(int64_t dim) { return dim % kNumbers == 0; }
    static void prepare(const char* from, int64_t rows, int64_t dim, char* to) {
        fill_up(from, rows, dim, (dim + kNumbers - 1) / kNumbers * kNumbers, to);
    }
    static Reg zero() { return vdupq_n_s32(0); }
    static Reg lowest() { return vdupq_n_s32(INT32_MIN); }
    static Reg load(const char* from) { return vld1q_s32(reinterpret_cast<const int32_t*>(from)); }
    static void store(char* to, Reg x) { vst1q_s32(reinterpret_cast<int32_t*>(to), x); }
    static Reg broadcast(const char* from) { return vdupq_n_s32(step_bits(from)); }
    static Reg dot(Reg sum, Reg token, Reg query) {
        return Dot::dot(sum, vreinterpretq_s8_s32(token), vreinterpretq_s8_s32(query));
    }
    static Reg add(Reg a, Reg b) { return vaddq_s32(a, b); }
    static Reg max(Reg a, Reg b) { return vmaxq_s32(a, b); }

    static void pack(const void* queries, int rows, int64_t dim, void* tile) {
        pack_steps<Bytes, int8_t, int8_t>(queries, rows, dim, tile, same);
    }
};

}  // namespace
}  // namespace lateint::dense
