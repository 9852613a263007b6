// Tiles: sixteen vectors side by side, against which rows are multiplied.
#pragma once

#include <cstdint>

namespace lateint {

constexpr int kLanes = 16;  // vectors in a tile

constexpr int64_t tiles_for(int64_t vectors) { return (vectors + kLanes - 1) / kLanes; }

// The thread's state for a table of kernels (the tile registers of AMX), also undone when a task throws.
template <class Kernels>
class Session {
public:
    const Kernels& kernels;
    explicit Session(const Kernels& chosen) : kernels(chosen) { kernels.begin(); }
    ~Session() { kernels.end(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
};

}  // namespace lateint
