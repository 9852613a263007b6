// What a term of a sparse vector is worth: its weight there. S(q, d) = sum over terms t: q_t * d_t.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "text/collection.hpp"

namespace lateint::text {

class Impacts : public Collection<SparseSegment> {
public:
    Impacts(std::vector<SparseSegment>, const uint8_t* live);

    std::vector<Wanted> weigh(const Query&) const;
    // As those of Bm25.
    void gains(const SparseSegment&, Share, int64_t posting, int64_t n, int32_t* gains) const;
    int32_t gain(const SparseSegment&, Share, int64_t posting) const;
    double worth(const SparseSegment&, int64_t posting) const;

private:
    float largest(size_t segment, int64_t number) const;

    // The largest weight of each term in each segment, once somebody asked; 0 before.
    std::vector<std::unique_ptr<std::atomic<float>[]>> largest_;
};

}  // namespace lateint::text
