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

}  // namespace

// The best k of candidates, which are scored until the limits say that the rest cannot matter.
std::vector<Hit> Engine::rank(const Query& query, int64_t k, int64_t watched, const SearchLimits& limits,
                              const Scratch& scratch, int threads, Reading& reading, SearchCounts* counts) const {
    TopK all(k), few(watched);
    TopK& top = watched < k ? few : all;  // that decide when to stop
    Line line(scratch.unit);
    const std::vector<Candidate>& candidates = scratch.chosen;
    const auto size = static_cast<int64_t>(candidates.size());
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
            score(query, positions, count, threads, scores);
            known += count;
        }
        const int64_t count = std::min(kRound, size - first);
        const float* const found = scores + first % together;
        bool changed = false;
        for (int64_t i = 0; i < count; ++i) {
            const Candidate& candidate = candidates[first + i];
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
        scratch.chosen.push_back({Line::estimate(hit.score, hits.front().score, scratch.unit), hit.position});
    scratch.unit *= share;
}

std::vector<Hit> Engine::search(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    Reading reading(reads_);
    const int64_t watched = limits.watched > 0 ? std::min(limits.watched, limits.k) : limits.k;
    if (limits.sampled <= 0 || 2 * query.length <= 3 * limits.sampled) {
        find_candidates(query, limits, allowed, threads, scratch, reading, counts);
        return rank(query, limits.k, watched, limits, scratch, threads, reading, counts);
    }
    // Tokens of a long query say much the same: some of them find candidates, and the order to score these in.
    const Query few = sample(query, codec.depth, limits.sampled);
    find_candidates(few, limits, allowed, threads, scratch, reading, counts);
    const auto size = std::max<int64_t>(1, static_cast<int64_t>(scratch.chosen.size()));
    const int64_t likely = std::min(kSafety * std::min(watched, size), size);
    const std::vector<Hit> hits = rank(few, size, likely, limits, scratch, threads, reading, nullptr);
    choose_again(hits, double(few.length) / double(query.length), scratch);
    return rank(query, limits.k, watched, limits, scratch, threads, reading, counts);
}

}  // namespace lateint::codes
