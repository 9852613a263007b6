// The tile registers of AMX: eight of sixteen rows of 64 bytes. Included by sources compiled for AMX only.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lateint {
namespace {

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Static: GCC does not know that the instruction reads all of it, and would not write a local one.
constexpr TileConfig kTileConfig;

// What a table of kernels calls begin() and end().
void configure_tiles() { _tile_loadconfig(&kTileConfig); }
void release_tiles() { _tile_release(); }

// GCC's intrinsics do not tell the compiler what memory the tile instructions read.
inline void memory_barrier() { __asm__ volatile("" ::: "memory"); }

constexpr int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace
}  // namespace lateint
