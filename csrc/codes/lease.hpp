#pragma once

#include <atomic>
#include <exception>
#include <memory>

#include "codes/engine.hpp"

namespace lateint::codes {

// Scratch space is borrowed for the time of a call, so that callers on many threads do not meet.
class Engine::Lease {
public:
    explicit Lease(const Engine& engine) : engine_(engine) {
        for (auto& slot : engine.idle_) {
            if (slot.load(std::memory_order_relaxed) == nullptr) continue;
            scratch_.reset(slot.exchange(nullptr, std::memory_order_acquire));
            if (scratch_ != nullptr) return;
        }
        scratch_ = std::make_unique<Scratch>();
    }
    ~Lease() {
        if (std::uncaught_exceptions() > exceptions_) return;  // what a failed call leaves is not to be relied on
        for (auto& slot : engine_.idle_) {
            Scratch* none = nullptr;
            if (!slot.compare_exchange_strong(none, scratch_.get(), std::memory_order_release)) continue;
            scratch_.release();
            return;
        }
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Scratch& operator*() { return *scratch_; }

private:
    const Engine& engine_;
    const int exceptions_ = std::uncaught_exceptions();
    std::unique_ptr<Scratch> scratch_;
};

}  // namespace lateint::codes
