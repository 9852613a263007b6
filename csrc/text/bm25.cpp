#include "text/bm25.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "platform/damaged.hpp"

namespace lateint::text {
namespace {

// The natural logarithm of x > 0 by basic operations alone: mathematical libraries differ in the last bit.
double logarithm(double x) {
    int exponent;
    double mantissa = std::frexp(x, &exponent);
    if (mantissa < 0.70710678118654752) {
        mantissa *= 2;
        --exponent;
    }
    const double s = (mantissa - 1) / (mantissa + 1), square = s * s;
    double sum = 0;
    for (int odd = 25; odd > 0; odd -= 2) sum = sum * square + 1.0 / odd;
    return exponent * 0.69314718055994531 + 2 * s * sum;
}

// What a document gains by having a term `count` times: the same operations for one posting as for many.
inline int32_t gain_of(float weight, float count, float base, float slope, int32_t length) {
    return static_cast<int32_t>(weight * (count / (count + (base + slope * static_cast<float>(length))))) + 1;
}

}  // namespace

Bm25::Bm25(Parameters parameters, std::vector<TextSegment> all, const uint8_t* live)
    : Collection(std::move(all), live), frequencies_(segments.size()) {
    for (size_t s = 0; s < segments.size(); ++s) {
        const TextSegment& segment = segments[s];
        const uint8_t* const here = live ? live + first_position[s] : nullptr;
        bool deleted = false;
        for (int64_t d = 0; d < segment.documents; ++d) {
            if (here && !here[d]) {
                deleted = true;
                continue;
            }
            texts_ += segment.lengths[d] > 0;
            length_ += segment.length(d);
        }
        if (deleted) {
            frequencies_[s] = std::make_unique<std::atomic<int64_t>[]>(segment.terms);
            for (int64_t t = 0; t < segment.terms; ++t) frequencies_[s][t].store(-1, std::memory_order_relaxed);
        }
    }
    base_ = parameters.k1 * (1 - parameters.b);
    slope_ =
        length_ > 0 ? parameters.k1 * parameters.b * static_cast<double>(texts_) / static_cast<double>(length_) : 0;
}

int64_t Bm25::frequency(size_t s, int64_t number) const {
    const TextSegment& segment = segments[s];
    const Run run = segment.run(number);
    if (!frequencies_[s]) return run.size();
    std::atomic<int64_t>& known = frequencies_[s][number];
    int64_t count = known.load(std::memory_order_relaxed);
    if (count >= 0) return count;
    const uint8_t* const here = live + first_position[s];
    count = 0;
    for (int64_t p = run.first; p < run.end; ++p) {
        const uint32_t document = segment.posting_documents[p];
        if (document >= segment.documents) damaged("posting_documents hold " + std::to_string(document));
        count += here[document] != 0;
    }
    known.store(count, std::memory_order_relaxed);
    return count;
}

std::vector<Wanted> Bm25::weigh(const Query& query) const {
    std::vector<Wanted> wanted;
    for (const Term& term : query) {
        Wanted one = {0, 1.0F, {}};
        int64_t frequency = 0;
        for (size_t s = 0; s < segments.size(); ++s) {
            one.numbers.push_back(segments[s].find(term.bytes));
            if (one.numbers.back() >= 0) frequency += this->frequency(s, one.numbers.back());
        }
        if (frequency == 0) continue;
        const double others = std::max<double>(0, static_cast<double>(texts_ - frequency));
        one.weight = term.count * logarithm(1 + (others + 0.5) / (static_cast<double>(frequency) + 0.5));
        wanted.push_back(std::move(one));
    }
    return wanted;
}

void Bm25::gains(const TextSegment& segment, Share share, int64_t posting, int64_t n, int32_t* gains) const {
    const uint32_t* const documents = segment.posting_documents + posting;
    const uint8_t* const counts = segment.posting_counts + posting;
    const auto base = static_cast<float>(base_), slope = static_cast<float>(slope_);
    std::array<int32_t, kChunk> lengths;
    uint32_t large = 0;
    for (int64_t i = 0; i < n; ++i) large |= static_cast<uint32_t>(counts[i] == kLarge);
    for (int64_t i = 0; i < n; ++i) lengths[i] = segment.length(documents[i]);
    for (int64_t i = 0; i < n; ++i) {
        const float count = counts[i] > 0 ? static_cast<float>(counts[i]) : 1.0F;
        gains[i] = gain_of(share.weight, count, base, slope, lengths[i]);
    }
    for (int64_t i = 0; large && i < n; ++i)
        if (counts[i] == kLarge) {
            gains[i] = gain_of(share.weight, static_cast<float>(segment.value(posting + i)), base, slope, lengths[i]);
        }
}

int32_t Bm25::gain(const TextSegment& segment, Share share, int64_t posting) const {
    const auto count = static_cast<float>(std::max<uint32_t>(segment.value(posting), 1));
    return gain_of(share.weight, count, static_cast<float>(base_), static_cast<float>(slope_),
                   segment.length(segment.posting_documents[posting]));
}

double Bm25::worth(const TextSegment& segment, int64_t posting) const {
    const double count = std::max<uint32_t>(segment.value(posting), 1);
    return count / (count + (base_ + slope_ * segment.length(segment.posting_documents[posting])));
}

void Bm25::statistics(const Query& query, int64_t* texts, int64_t* length, int64_t* frequencies) const {
    *texts = texts_;
    *length = length_;
    for (size_t q = 0; q < query.size(); ++q) {
        frequencies[q] = 0;
        for (size_t s = 0; s < segments.size(); ++s) {
            const int64_t number = segments[s].find(query[q].bytes);
            if (number >= 0) frequencies[q] += frequency(s, number);
        }
    }
}

}  // namespace lateint::text
