// Tokens of a problem as the kernels take them.
#pragma once

#include <cstdint>
#include <vector>

#include "platform/buffer.hpp"
#include "train/kernel.hpp"
#include "train/problem.hpp"

namespace lateint::train {

// Query tokens that are present, packed as tiles; `most` of them, some multiple of 16, are a panel.
class QueryPanels {
public:
    QueryPanels(const Problem& problem, const ForwardKernel& kernel, int64_t most, int threads);
    int64_t panels() const { return (static_cast<int64_t>(rows_.size()) + most_ - 1) / most_; }
    int64_t count(int64_t panel) const {
        const int64_t left = static_cast<int64_t>(rows_.size()) - panel * most_;
        return left < most_ ? left : most_;
    }
    const int64_t* rows(int64_t panel) const { return &rows_[panel * most_]; }
    const char* tiles(int64_t panel) const { return tiles_.data() + panel * (most_ / kLanes) * tile_bytes_; }

private:
    const int64_t most_, tile_bytes_;
    std::vector<int64_t> rows_;
    Buffer tiles_;
};

// A document's present tokens, some at a time in the form that a kernel multiplies.
class DocumentTokens {
public:
    // Of another document; false: none of its tokens is present.
    bool open(const Problem& problem, const ForwardKernel& kernel, int64_t document);
    int64_t size() const { return size_; }
    // Where in the document the token is that is number i of those present.
    int64_t position(int64_t i) const { return whole_ ? i : present_[static_cast<size_t>(i)]; }
    // The tokens first .. first + count, until the next call.
    const void* rows(int64_t first, int64_t count);
    // The factors of these, nullptr if they are 1.
    const float* scales(int64_t first) const { return scaled_ ? scales_data_ + first : nullptr; }

private:
    const Problem* problem_ = nullptr;
    const ForwardKernel* kernel_ = nullptr;
    const char* tokens_ = nullptr;
    int64_t size_ = 0;
    bool whole_ = false, scaled_ = false;
    float* scales_data_ = nullptr;
    std::vector<int32_t> present_;  // positions, when some are absent
    Buffer rows_, scales_;
};

// Products of a query token by their definition, for what a kernel does not vouch for.
class ExactProducts {
public:
    void open(const Problem& problem, int64_t row);  // of another query token
    float with(int64_t token) const;                 // times the document token's factor
    // The largest one with a document's present tokens and where, the first NaN if there is one.
    void largest(int64_t document, float& best, float& position) const;

private:
    const Problem* problem_ = nullptr;
    Buffer query_;
};

// Puts the exact ones where products [count][stride] are not finite; those of query tokens rows[0..lanes) with tokens
// first .. first + count of a document. True: there were any.
bool repair(const Problem& problem, int64_t document, const DocumentTokens& tokens, int64_t first, int64_t count,
            const int64_t* rows, int64_t lanes, int64_t stride, float* products);

// A norm of at most 1e-12 is taken as 1e-12, whatever the numbers: nothing to project on.
inline float squared_if_normal(float inverse_norm) {
    return inverse_norm < 0.999e12f ? inverse_norm * inverse_norm : 0;
}

}  // namespace lateint::train
