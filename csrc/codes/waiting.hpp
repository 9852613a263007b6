// Whether searches read from the disk.
#pragma once

#include <atomic>

#include "platform/paging.hpp"

namespace lateint::codes {

// What one search sees of it. `reading` belongs to the engine: once a search has read from the disk, the system is told
// beforehand what will be read, until a search finds all in memory. Telling it takes time even then.
class Waiting {
public:
    explicit Waiting(std::atomic<bool>& reading) : reading_(reading), before_(disk_reads()) {}
    ~Waiting() {
        expected();
        reading_.store(read_, std::memory_order_relaxed);
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

    // Whether it is worth while to have the system read ahead.
    bool expected() {
        read_ = read_ || disk_reads() != before_;
        return read_ || reading_.load(std::memory_order_relaxed);
    }

private:
    std::atomic<bool>& reading_;
    const int64_t before_;
    bool read_ = false;
};

}  // namespace lateint::codes
