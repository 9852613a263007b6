// On which core a thread is. Some kernels wake a thread on the core of the one that wakes it, though others are idle:
// the two then take turns. Does nothing where the system is not Linux.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

namespace lateint {

#if defined(__linux__)

inline int this_core() { return sched_getcpu(); }

// Keeps this thread away from a core, if it may use others.
class Aside {
public:
    explicit Aside(int core) {
        if (core < 0 || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
        if (CPU_COUNT(&before_) < 2 || !CPU_ISSET(core, &before_)) return;
        others_ = before_;
        CPU_CLR(core, &others_);
        set_ = sched_setaffinity(0, sizeof others_, &others_) == 0;
    }
    ~Aside() {
        cpu_set_t now;
        // Unless somebody has set another mask meanwhile.
        if (set_ && sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, &others_))
            sched_setaffinity(0, sizeof before_, &before_);
    }
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;

private:
    cpu_set_t before_, others_;
    bool set_ = false;
};

#else

inline int this_core() { return -1; }

struct Aside {
    explicit Aside(int) {}
    ~Aside() {}
};

#endif

// Moves this thread to another core if it is on this one.
inline void leave(int core) {
    if (core >= 0 && this_core() == core) const Aside moved(core);
}

}  // namespace lateint
