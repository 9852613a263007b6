// Whether searches read from the disk.
#pragma once

#include <atomic>

#include "platform/paging.hpp"

namespace lateint::codes {

// What one search sees of it. `reads` belongs to the engine: once a search has read from the disk, the system is told
// beforehand what will be read, until a search finds all in memory. Telling it takes time even then.
class Reading {
public:
    explicit Reading(std::atomic<bool>& reads) : reads_(reads), before_(disk_reads()) {}
    ~Reading() {
        expected();
        reads_.store(read_, std::memory_order_relaxed);
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

    // Whether it is worth while to have the system read ahead.
    bool expected() {
        read_ = read_ || disk_reads() != before_;
        return read_ || reads_.load(std::memory_order_relaxed);
    }

private:
    std::atomic<bool>& reads_;
    const int64_t before_;
    bool read_ = false;
};

}  // namespace lateint::codes
