#include "codes/engine.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>

#include "codes/stopping.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kRound = 32;  // candidates scored between two looks at whether they still change anything

bool better(const Hit& a, const Hit& b) { return a.score != b.score ? a.score > b.score : a.position < b.position; }

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

std::vector<ListedRun> runs_of(const std::vector<Segment>& segments) {
    std::vector<ListedRun> runs;
    for (const Segment& segment : segments) runs.push_back({segment.documents, &segment.lists, nullptr});
    return runs;
}

}  // namespace

// Scratch space is borrowed for the time of a call, so that callers on many threads do not meet.
class Engine::Lease {
public:
    explicit Lease(const Engine& engine) : engine_(engine) {
        for (auto& slot : engine.idle_) {
            if (slot.load(std::memory_order_relaxed) == nullptr) continue;
            scratch_.reset(slot.exchange(nullptr, std::memory_order_acquire));
            if (scratch_ != nullptr) return;
        }
        scratch_ = std::make_unique<Scratch>();
    }
    ~Lease() {
        if (std::uncaught_exceptions() > exceptions_) return;  // what a failed call leaves is not to be relied on
        for (auto& slot : engine_.idle_) {
            Scratch* none = nullptr;
            if (!slot.compare_exchange_strong(none, scratch_.get(), std::memory_order_release)) continue;
            scratch_.release();
            return;
        }
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Scratch& operator*() { return *scratch_; }

private:
    const Engine& engine_;
    const int exceptions_ = std::uncaught_exceptions();
    std::unique_ptr<Scratch> scratch_;
};

Engine::Engine(const Codec& codec, const Centroids& centroids, const Rotation& rotation, float step,
               std::vector<Segment> segments, const Engine* before)
    : codec(codec),
      centroids(centroids),
      rotation(rotation),
      step(step),
      segments(std::move(segments)),
      first_position_{0},
      lists_(runs_of(this->segments), centroids.count, before ? &before->lists_ : nullptr) {
    for (const Segment& segment : this->segments) first_position_.push_back(first_position_.back() + segment.documents);
    if (documents() > int64_t{std::numeric_limits<uint32_t>::max()}) damaged("it has more than 4294967295 documents");
    if (!(step > 0 && std::isfinite(step))) damaged("step must be a positive number");
    if (!std::all_of(rotation.mean, rotation.mean + rotation.dim, [](float x) { return std::isfinite(x); })) {
        damaged("mean must be finite");
    }
    const auto inside = [&](int32_t from) { return from >= 0 && from < rotation.width; };
    if (!std::all_of(rotation.permutation, rotation.permutation + rotation.width, inside)) {
        damaged("permutation must be numbers from 0 to " + std::to_string(rotation.width - 1));
    }
    const int64_t* const cells = centroids.cell_offsets;
    if (cells[0] != 0 || cells[centroids.cell_count] != centroids.count ||
        !std::is_sorted(cells, cells + centroids.cell_count + 1)) {
        damaged("cell_offsets must rise from 0 to " + std::to_string(centroids.count));
    }
}

Engine::~Engine() {
    for (auto& slot : idle_) delete slot.load();
}

void Engine::decode(int64_t segment, int64_t first, int64_t n, uint8_t* bytes) const {
    if (codec.nbits < 8) check_centroids(segments[segment].tokens, {first, first + n});
    codes::decode(codec, segments[segment].tokens, first, n, bytes);
}

std::vector<Hit> Engine::exhaustive(const Query& query, int64_t k, const uint8_t* allowed, int threads) const {
    std::vector<int64_t> positions;
    positions.reserve(documents());
    for (int64_t p = 0; p < documents(); ++p)
        if (!allowed || allowed[p]) positions.push_back(p);
    std::vector<float> scores(positions.size());
    score(query, positions.data(), static_cast<int64_t>(positions.size()), threads, scores.data());
    TopK top(k);
    for (size_t i = 0; i < positions.size(); ++i) top.offer({scores[i], positions[i]});
    return top.sorted();
}

void Engine::probe(const Query& query, int64_t count, int64_t cells, Probe* out, int64_t* known, int threads) const {
    Lease lease(*this);
    Prober& prober = (*lease).prober;
    prober.run(centroids, query.tiles.data(), static_cast<int>(query.length), count, count, cells, threads);
    for (int64_t i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(static_cast<int>(i));
        known[i] = prober.size(static_cast<int>(i));
        for (int64_t p = 0; p < known[i]; ++p)
            out[i * count + p] = {probes[p].score - query.offsets[i], probes[p].centroid};
    }
}

std::vector<Hit> Engine::gather(const Query& query, const SearchLimits& limits, const uint8_t* allowed,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    find_candidates(query, limits, allowed, 1, scratch, counts);
    return scratch.chosen;
}

std::vector<Hit> Engine::search(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    find_candidates(query, limits, allowed, threads, scratch, counts);
    const int64_t watched = limits.watched > 0 ? std::min(limits.watched, limits.k) : limits.k;
    TopK all(limits.k), few(watched);
    TopK& top = watched < limits.k ? few : all;  // that decide when to stop
    Line line(scratch.unit);
    const auto size = static_cast<int64_t>(scratch.chosen.size());
    const auto coarse = [&](int64_t i) { return static_cast<uint32_t>(scratch.keys[i] >> 32); };
    int64_t idle = 0;  // candidates since the watched ones last changed
    int64_t positions[kRound];
    float scores[kRound];
    for (int64_t first = 0; first < size; first += kRound) {
        if (limits.patience > 0 && idle >= limits.patience) break;
        if (limits.deviations > 0 && top.full() && line.below(coarse(first), limits.deviations, top.least())) break;
        const int64_t count = std::min(kRound, size - first);
        for (int64_t i = 0; i < count; ++i) positions[i] = scratch.chosen[first + i].position;
        score(query, positions, count, threads, scores);
        bool changed = false;
        for (int64_t i = 0; i < count; ++i) {
            changed |= top.offer({scores[i], positions[i]});
            if (watched < limits.k) all.offer({scores[i], positions[i]});
            line.add(coarse(first + i), scores[i]);
        }
        idle = changed ? 0 : idle + count;
        if (counts) counts->scored += count;
    }
    return all.sorted();
}

}  // namespace lateint::codes
