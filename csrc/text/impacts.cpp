#include "text/impacts.hpp"

#include <algorithm>
#include <utility>

#include "platform/damaged.hpp"
#include "platform/floats.hpp"

namespace lateint::text {
namespace {

// Of a float16 above 0 and finite.
inline float number_of(uint16_t bits) { return float_from_bits(uint32_t{bits} << 13) * 0x1p112F; }

// The file may have changed since the largest weight was looked for.
inline int32_t gain_of(Share share, uint16_t bits) {
    return static_cast<int32_t>(share.weight * std::min(number_of(bits & 0x7FFF), share.largest)) + 1;
}

[[noreturn]] void refuse() { damaged("posting_weights must be above 0 and finite"); }

}  // namespace

Impacts::Impacts(std::vector<SparseSegment> all, const uint8_t* live) : Collection(std::move(all), live) {
    for (const SparseSegment& segment : segments) {
        largest_.push_back(std::make_unique<std::atomic<float>[]>(segment.terms));
        for (int64_t t = 0; t < segment.terms; ++t) largest_.back()[t].store(0, std::memory_order_relaxed);
    }
}

float Impacts::largest(size_t s, int64_t number) const {
    std::atomic<float>& known = largest_[s][number];
    if (const float value = known.load(std::memory_order_relaxed); value > 0) return value;
    const Run run = segments[s].run(number);
    uint16_t most = 0;
    uint32_t wrong = 0;
    for (int64_t p = run.first; p < run.end; ++p) {
        const uint16_t bits = segments[s].posting_weights[p];
        wrong |= static_cast<uint32_t>(!is_weight(bits));
        most = std::max(most, bits);
    }
    if (wrong) refuse();
    known.store(number_of(most), std::memory_order_relaxed);
    return number_of(most);
}

std::vector<Wanted> Impacts::weigh(const Query& query) const {
    std::vector<Wanted> wanted;
    for (const Term& term : query) {
        Wanted one = {term.count, 0, {}};
        for (size_t s = 0; s < segments.size(); ++s) {
            one.numbers.push_back(segments[s].find(term.bytes));
            if (one.numbers.back() >= 0) one.largest = std::max(one.largest, largest(s, one.numbers.back()));
        }
        if (one.weight * one.largest > 0) wanted.push_back(std::move(one));
    }
    return wanted;
}

void Impacts::gains(const SparseSegment& segment, Share share, int64_t posting, int64_t n, int32_t* gains) const {
    const uint16_t* const weights = segment.posting_weights + posting;
    for (int64_t i = 0; i < n; ++i) gains[i] = gain_of(share, weights[i]);
}

int32_t Impacts::gain(const SparseSegment& segment, Share share, int64_t posting) const {
    return gain_of(share, segment.posting_weights[posting]);
}

double Impacts::worth(const SparseSegment& segment, int64_t posting) const {
    const uint16_t bits = segment.posting_weights[posting];
    if (!is_weight(bits)) refuse();
    return number_of(bits);
}

}  // namespace lateint::text
