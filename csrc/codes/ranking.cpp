// How a search goes from candidates to hits: in stages, each of which scores what the one before thinks best.
#include <algorithm>
#include <cmath>
#include <limits>

#include "codes/engine.hpp"
#include "codes/lease.hpp"
#include "codes/stopping.hpp"
#include "codes/top_k.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kRound = 32;       // candidates scored between two looks at whether they still change anything
constexpr int64_t kRoundsAhead = 4;  // at most so many are scored together, some of them for nothing
constexpr int64_t kReadAhead = 128;  // candidates that the disk is asked for before they are scored
constexpr int64_t kShare = 4;        // threads that a round is enough for
constexpr int64_t kSafety = 3;       // times the watched hits: those of a part of the query that must not change

// The maxima of documents for some tokens of a query, so that they are computed once.
class Maxima {
public:
    explicit Maxima(const Query& some) : length_(some.length), room_(some.room()) {}

    // Room for those of n more documents.
    int32_t* add(const int64_t* positions, int64_t n) {
        positions_.insert(positions_.end(), positions, positions + n);
        best_.resize(positions_.size() * room_);
        return best_.data() + best_.size() - n * room_;
    }
    // Those of a document that was added, at the numbers that the tokens have in the whole query.
    void put(int64_t position, const std::vector<int64_t>& tokens, int32_t* whole) const {
        const auto at = std::find(positions_.begin(), positions_.end(), position) - positions_.begin();
        for (int64_t i = 0; i < length_; ++i) whole[tokens[i]] = best_[at * room_ + i];
    }

private:
    int64_t length_, room_;
    std::vector<int64_t> positions_;
    std::vector<int32_t> best_;  // [documents][room]
};

}  // namespace

// The best k of candidates, which are scored until the limits say that the rest cannot matter.
std::vector<Hit> Engine::rank(const Scorer& scored, int64_t k, int64_t watched, const SearchLimits& limits,
                              Scratch& scratch, int threads, Reading& reading, SearchCounts* counts) const {
    TopK all(k), few(watched);
    TopK& top = watched < k ? few : all;  // that decide when to stop
    Line line(scratch.unit);
    Chosen& candidates = scratch.chosen;
    const int64_t size = candidates.size();
    const int64_t together = kRound * std::clamp<int64_t>(threads_for(threads) / kShare, 1, kRoundsAhead);
    int64_t idle = 0, known = 0;  // candidates since the watched ones last changed; that are scored
    int64_t asked = 0;            // that the disk was asked for
    int64_t positions[kRound * kRoundsAhead];
    float scores[kRound * kRoundsAhead];
    for (int64_t first = 0; first < size; first += kRound) {
        if (limits.patience > 0 && idle >= limits.patience) break;
        if (limits.deviations > 0 && top.full() &&
            line.below(candidates[first].estimate, limits.deviations, top.least()))
            break;
        if (first == known) {
            const int64_t count = std::min(together, size - first);
            if (reading.expected())
                for (asked = std::max(asked, first); asked < std::min(size, first + count + kReadAhead); ++asked)
                    read_ahead(candidates[asked].position);
            for (int64_t i = 0; i < count; ++i) positions[i] = candidates[first + i].position;
            scored(positions, count, scores);
            known += count;
        }
        const int64_t count = std::min(kRound, size - first);
        const float* const found = scores + first % together;
        bool changed = false;
        for (int64_t i = 0; i < count; ++i) {
            const Candidate candidate = candidates[first + i];
            const Hit hit = {found[i], candidate.position};
            changed |= top.offer(hit);
            if (watched < k) all.offer(hit);
            line.add(candidate.estimate, hit.score);
        }
        idle = changed ? 0 : idle + count;
        if (counts) counts->scored += count;
    }
    return all.sorted();
}

// Hits as candidates of a stage whose scores are larger, all in all by 1 / share.
void Engine::choose_again(const std::vector<Hit>& hits, double share, Scratch& scratch) const {
    scratch.chosen.clear();
    for (const Hit& hit : hits)
        scratch.chosen.append({Line::estimate(hit.score, hits.front().score, scratch.unit), hit.position});
    scratch.unit *= share;
}

// Tokens of a long query say much the same: `sampled` of them find candidates, and the order to score these in.
std::vector<Hit> Engine::search_by_sample(const Query& query, int64_t watched, const SearchLimits& limits,
                                          const uint8_t* allowed, int threads, Scratch& scratch, Reading& reading,
                                          SearchCounts* counts) const {
    const std::vector<int64_t> sampled = evenly_spread(query.length, limits.sampled);
    const std::vector<int64_t> left = others(query.length, sampled);
    const Query few = part_of(query, codec.depth, sampled), rest = part_of(query, codec.depth, left);
    find_candidates(few, limits, allowed, threads, scratch, reading, counts);
    const auto size = std::max<int64_t>(1, scratch.chosen.size());
    const int64_t likely = std::min(kSafety * std::min(watched, size), size);
    Maxima known(few);
    const auto by_few = [&](const int64_t* positions, int64_t n, float* scores) {
        int32_t* const best = known.add(positions, n);
        maxima(few, positions, n, threads, best);
        for (int64_t d = 0; d < n; ++d) scores[d] = total(few, best + d * few.room());
    };
    const std::vector<Hit> hits = rank(by_few, size, likely, limits, scratch, threads, reading, nullptr);
    choose_again(hits, double(few.length) / double(query.length), scratch);
    std::vector<int32_t> best, whole(query.room());
    const auto by_all = [&](const int64_t* positions, int64_t n, float* scores) {
        best.resize(n * rest.room());
        maxima(rest, positions, n, threads, best.data());
        for (int64_t d = 0; d < n; ++d) {
            known.put(positions[d], sampled, whole.data());
            for (int64_t i = 0; i < rest.length; ++i) whole[left[i]] = best[d * rest.room() + i];
            scores[d] = total(query, whole.data());
        }
    };
    return rank(by_all, limits.k, watched, limits, scratch, threads, reading, counts);
}

std::vector<Hit> Engine::search(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    Reading reading(reads_);
    const int64_t watched = limits.watched > 0 ? std::min(limits.watched, limits.k) : limits.k;
    if (limits.sampled > 0 && 2 * query.length > 3 * limits.sampled)
        return search_by_sample(query, watched, limits, allowed, threads, scratch, reading, counts);
    find_candidates(query, limits, allowed, threads, scratch, reading, counts);
    const auto by_all = [&](const int64_t* positions, int64_t n, float* scores) {
        score(query, positions, n, threads, scores);
    };
    return rank(by_all, limits.k, watched, limits, scratch, threads, reading, counts);
}

}  // namespace lateint::codes
