#include "text/engine.hpp"

#include <algorithm>
#include <numeric>

#include "platform/threads.hpp"

namespace lateint::text {

template <class Scoring>
void Engine<Scoring>::score(const Query& query, const int64_t* positions, int64_t n, float* scores) const {
    score(this->weigh(query), positions, n, scores);
}

template <class Scoring>
void Engine<Scoring>::score(const std::vector<Wanted>& wanted, const int64_t* positions, int64_t n,
                            float* scores) const {
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return positions[i] < positions[j]; });
    std::vector<double> sums(n, 0);
    for (const Wanted& term : wanted) {
        check_interrupt();
        size_t s = 0;
        int64_t i = 0;
        while (i < n) {
            while (this->first_position[s + 1] <= positions[order[i]]) ++s;
            const int64_t end = this->first_position[s + 1], number = term.numbers[s];
            if (number < 0) {
                while (i < n && positions[order[i]] < end) ++i;
                continue;
            }
            const typename Scoring::Segment& segment = this->segments[s];
            Run run = segment.run(number);
            for (; i < n && positions[order[i]] < end; ++i) {
                const auto document = static_cast<uint32_t>(positions[order[i]] - this->first_position[s]);
                run.first = segment.seek(run, document);
                if (run.size() == 0 || segment.posting_documents[run.first] != document) continue;
                sums[order[i]] += term.weight * this->worth(segment, run.first);
            }
        }
    }
    std::transform(sums.begin(), sums.end(), scores, [](double sum) { return static_cast<float>(sum); });
}

template <class Scoring>
std::vector<Hit> Engine<Scoring>::search(const Query& query, int64_t k, const uint8_t* allowed) const {
    const std::vector<Wanted> wanted = this->weigh(query);
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

template class Engine<Bm25>;
template class Engine<Impacts>;

}  // namespace lateint::text
