// Candidates of a search: the best documents by their coarse sums, and the order in which they are scored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "codes/int8.hpp"

namespace lateint::codes {

// The best documents of those that are offered: by sum, then by lower position.
class BestDocuments {
public:
    // The best `count` of at most `offered`.
    void start(int64_t count, int64_t offered) {
        count_ = count;
        most_ = std::clamp<int64_t>(offered, 1, std::max<int64_t>(4 * count, kMost));
        size_ = 0;
        bound_ = 0;
        const auto room = static_cast<size_t>(most_);
        if (sums_.size() < room) sums_.resize(room), positions_.resize(room);
    }
    // Less is not worth an offer, where positions rise from one offer to the next.
    int32_t bound() const { return bound_; }
    void offer(int32_t sum, uint32_t position, const Int8Kernels& kernels) {
        sums_[size_] = sum;
        positions_[size_] = position;
        if (++size_ == most_) keep(kernels);
    }
    void offer(const BestDocuments& others, const Int8Kernels& kernels) {
        for (int64_t i = 0; i < others.size_; ++i) offer(others.sums_[i], others.positions_[i], kernels);
    }
    // Those that remain are the best, in any order.
    void keep(const Int8Kernels& kernels) {
        if (size_ <= count_) return;
        bound_ = kernels.keep_best(sums_.data(), positions_.data(), size_, count_) + 1;
        size_ = count_;
    }
    int64_t size() const { return size_; }
    int32_t sum(int64_t i) const { return sums_[i]; }
    uint32_t position(int64_t i) const { return positions_[i]; }

private:
    static constexpr int64_t kMost = 4096;

    int64_t count_ = 0, most_ = 0, size_ = 0;  // wanted, held before it is looked which are the best, held
    int32_t bound_ = 0;
    std::vector<int32_t> sums_;
    std::vector<uint32_t> positions_;
};

// What a stage of a search hands on to the next, best first.
struct Candidate {
    int64_t estimate;  // of its score, on a scale of the stage, below 2^31; more is better
    int64_t position;
};

// Candidates, best first, and by position among equals. They are sorted as they are read: most are not.
class Chosen {
public:
    void take(const BestDocuments& best) {
        keys_.clear();
        for (int64_t i = 0; i < best.size(); ++i) keys_.push_back(key_of(best.sum(i), best.position(i)));
        sorted_ = 0;
    }
    void clear() { keys_.clear(), sorted_ = 0; }
    // Another one, which comes after those there.
    void append(const Candidate& candidate) {
        keys_.push_back(key_of(candidate.estimate, static_cast<uint32_t>(candidate.position)));
        sorted_ = size();
    }
    int64_t size() const { return static_cast<int64_t>(keys_.size()); }
    Candidate operator[](int64_t i) {
        if (i >= sorted_) sort(std::min(size(), i + kStep));
        return {static_cast<int64_t>(keys_[i] >> 32), int64_t(~static_cast<uint32_t>(keys_[i]))};
    }

private:
    static constexpr int64_t kStep = 160;  // that are sorted at a time: many a search reads no more

    static uint64_t key_of(int64_t estimate, uint32_t position) {
        return static_cast<uint64_t>(estimate) << 32 | static_cast<uint32_t>(~position);
    }
    void sort(int64_t end) {
        const auto first = keys_.begin() + sorted_, last = keys_.begin() + end;
        if (last != keys_.end()) std::nth_element(first, last, keys_.end(), std::greater<uint64_t>());
        std::sort(first, last, std::greater<uint64_t>());
        sorted_ = end;
    }

    std::vector<uint64_t> keys_;
    int64_t sorted_ = 0;
};

}  // namespace lateint::codes
