// The best hits of those that are offered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "codes/engine.hpp"

namespace lateint::codes {

inline bool better(const Hit& a, const Hit& b) {
    return a.score != b.score ? a.score > b.score : a.position < b.position;
}

// Keeps the k best of what is offered.
class TopK {
public:
    explicit TopK(int64_t k) : k_(k) {}
    // Whether the hit is among the best k so far.
    bool offer(const Hit& hit) {
        if (hit.score == -std::numeric_limits<float>::infinity()) return false;  // a document without tokens
        if (full()) {
            if (!better(hit, heap_.front())) return false;
            std::pop_heap(heap_.begin(), heap_.end(), better);
            heap_.pop_back();
        }
        heap_.push_back(hit);
        std::push_heap(heap_.begin(), heap_.end(), better);
        return true;
    }
    bool full() const { return static_cast<int64_t>(heap_.size()) == k_; }
    float least() const { return heap_.front().score; }
    std::vector<Hit> sorted() {
        std::sort(heap_.begin(), heap_.end(), better);
        return std::move(heap_);
    }

private:
    int64_t k_;
    std::vector<Hit> heap_;
};

}  // namespace lateint::codes
