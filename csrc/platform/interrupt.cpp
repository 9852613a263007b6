#include "platform/interrupt.hpp"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

namespace lateint {
namespace {

thread_local Interruptible* innermost = nullptr;

}  // namespace

Interruptible::Interruptible(bool (*stop)())
    : stop_(stop), outer_(innermost), next_(std::chrono::steady_clock::now() + kInterval) {
    innermost = this;
}

Interruptible::~Interruptible() { innermost = outer_; }

void Interruptible::poll() {
    Interruptible* const self = innermost;
    if (self == nullptr || std::chrono::steady_clock::now() < self->next_) return;
    const bool stop = self->stop_();
    self->next_ = std::chrono::steady_clock::now() + kInterval;
    if (stop) throw Interrupted();
}

bool on_main_thread() {
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
    return pthread_main_np() != 0;
#else
    return false;
#endif
}

}  // namespace lateint
