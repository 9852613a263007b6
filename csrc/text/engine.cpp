#include "text/engine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "platform/damaged.hpp"
#include "platform/threads.hpp"

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

}  // namespace

Engine::Engine(Parameters parameters, std::vector<Segment> segments, const uint8_t* live)
    : parameters(parameters),
      segments(std::move(segments)),
      live_(live),
      first_position_{0},
      frequencies_(this->segments.size()) {
    for (size_t s = 0; s < this->segments.size(); ++s) {
        const Segment& segment = this->segments[s];
        const uint8_t* const here = live ? live + first_position_.back() : nullptr;
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
        first_position_.push_back(first_position_.back() + segment.documents);
    }
    if (documents() > int64_t{std::numeric_limits<uint32_t>::max()}) damaged("it has more than 4294967295 documents");
}

int64_t Engine::frequency(size_t s, int64_t number) const {
    const Segment& segment = segments[s];
    const Run run = segment.run(number);
    if (!frequencies_[s]) return run.size();
    std::atomic<int64_t>& known = frequencies_[s][number];
    int64_t count = known.load(std::memory_order_relaxed);
    if (count >= 0) return count;
    const uint8_t* const here = live_ + first_position_[s];
    count = 0;
    for (int64_t p = run.first; p < run.end; ++p) {
        const uint32_t document = segment.posting_documents[p];
        if (document >= segment.documents) damaged("posting_documents hold " + std::to_string(document));
        count += here[document] != 0;
    }
    known.store(count, std::memory_order_relaxed);
    return count;
}

std::vector<Engine::Wanted> Engine::weigh(const Query& query) const {
    std::vector<Wanted> wanted;
    for (const Term& term : query) {
        Wanted one = {0, {}};
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

void Engine::statistics(const Query& query, int64_t* texts, int64_t* length, int64_t* frequencies) const {
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

void Engine::score(const Query& query, const int64_t* positions, int64_t n, float* scores) const {
    score(weigh(query), positions, n, scores);
}

void Engine::score(const std::vector<Wanted>& wanted, const int64_t* positions, int64_t n, float* scores) const {
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return positions[i] < positions[j]; });
    const double base = norm_base(), slope = norm_slope();
    std::vector<double> sums(n, 0);
    for (const Wanted& term : wanted) {
        check_interrupt();
        size_t s = 0;
        int64_t i = 0;
        while (i < n) {
            while (first_position_[s + 1] <= positions[order[i]]) ++s;
            const int64_t end = first_position_[s + 1], number = term.numbers[s];
            if (number < 0) {
                while (i < n && positions[order[i]] < end) ++i;
                continue;
            }
            const Segment& segment = segments[s];
            Run run = segment.run(number);
            for (; i < n && positions[order[i]] < end; ++i) {
                const auto document = static_cast<uint32_t>(positions[order[i]] - first_position_[s]);
                run.first = segment.seek(run, document);
                if (run.size() == 0 || segment.posting_documents[run.first] != document) continue;
                const double count = std::max<uint32_t>(segment.count(run.first), 1);
                sums[order[i]] += term.weight * (count / (count + (base + slope * segment.length(document))));
            }
        }
    }
    std::transform(sums.begin(), sums.end(), scores, [](double sum) { return static_cast<float>(sum); });
}

std::vector<Hit> Engine::search(const Query& query, int64_t k, const uint8_t* allowed) const {
    const std::vector<Wanted> wanted = weigh(query);
    const std::vector<int64_t> positions = candidates(wanted, k, allowed);
    const auto n = static_cast<int64_t>(positions.size());
    std::vector<float> scores(n);
    score(wanted, positions.data(), n, scores.data());
    std::vector<Hit> hits(n);
    for (int64_t i = 0; i < n; ++i) hits[i] = {scores[i], positions[i]};
    const auto best = hits.begin() + std::min(k, n);
    std::partial_sort(hits.begin(), best, hits.end(), [](const Hit& a, const Hit& b) {
        return a.score != b.score ? a.score > b.score : a.position < b.position;
    });
    hits.erase(best, hits.end());
    return hits;
}

}  // namespace lateint::text
