// Long calls that can be stopped: from time to time they ask whoever made them.
#pragma once

#include <chrono>

namespace lateint {

// Thrown through a call that is to stop.
struct Interrupted {};

// While one lives, the thread that made it asks `stop` ten times a second at most.
class Interruptible {
public:
    explicit Interruptible(bool (*stop)());
    ~Interruptible();
    Interruptible(const Interruptible&) = delete;
    Interruptible& operator=(const Interruptible&) = delete;

    static constexpr std::chrono::milliseconds kInterval{100};
    static void poll();  // throws Interrupted; asks only if this thread made one, and if it is time

private:
    bool (*const stop_)();
    Interruptible* const outer_;
    std::chrono::steady_clock::time_point next_;
};

// Whether this is the thread that the process began with, to which an interpreter gives its signals. After a fork it is
// the thread that forked.
bool on_main_thread();

}  // namespace lateint
