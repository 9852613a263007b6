#include "codes/engine.hpp"

#include <algorithm>
#include <limits>

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
        if (static_cast<int64_t>(heap_.size()) == k_) {
            if (!better(hit, heap_.front())) return false;
            std::pop_heap(heap_.begin(), heap_.end(), better);
            heap_.pop_back();
        }
        heap_.push_back(hit);
        std::push_heap(heap_.begin(), heap_.end(), better);
        return true;
    }
    std::vector<Hit> sorted() {
        std::sort(heap_.begin(), heap_.end(), better);
        return std::move(heap_);
    }

private:
    int64_t k_;
    std::vector<Hit> heap_;
};

}  // namespace

// Scratch space is borrowed for the time of a call, so that callers on many threads do not meet.
class Engine::Lease {
public:
    explicit Lease(const Engine& engine) : engine_(engine) {
        std::lock_guard<std::mutex> lock(engine.mutex_);
        if (!engine.idle_.empty()) {
            scratch_ = std::move(engine.idle_.back());
            engine.idle_.pop_back();
        } else {
            scratch_ = std::make_unique<Scratch>();
        }
    }
    ~Lease() {
        std::lock_guard<std::mutex> lock(engine_.mutex_);
        engine_.idle_.push_back(std::move(scratch_));
    }
    Scratch& operator*() { return *scratch_; }

private:
    const Engine& engine_;
    std::unique_ptr<Scratch> scratch_;
};

Engine::Engine(const Codec& codec, const Centroids& centroids, const Rotation& rotation, float step,
               std::vector<Segment> segments)
    : codec(codec),
      centroids(centroids),
      rotation(rotation),
      step(step),
      segments(std::move(segments)),
      first_position_{0} {
    for (const Segment& segment : this->segments) first_position_.push_back(first_position_.back() + segment.documents);
}

const Segment& Engine::segment_of(int64_t position, int64_t* local) const {
    size_t s = 0;
    if (segments.size() > 1)
        s = std::upper_bound(first_position_.begin(), first_position_.end(), position) - first_position_.begin() - 1;
    *local = position - first_position_[s];
    return segments[s];
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
    prober.run(centroids, query.tiles.data(), static_cast<int>(query.length), count, cells, threads);
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
    TopK top(limits.k);
    const auto size = static_cast<int64_t>(scratch.chosen.size());
    int64_t idle = 0;  // candidates since the best k last changed
    int64_t positions[kRound];
    float scores[kRound];
    for (int64_t first = 0; first < size && (limits.patience <= 0 || idle < limits.patience); first += kRound) {
        const int64_t count = std::min(kRound, size - first);
        for (int64_t i = 0; i < count; ++i) positions[i] = scratch.chosen[first + i].position;
        score(query, positions, count, threads, scores);
        bool changed = false;
        for (int64_t i = 0; i < count; ++i) changed |= top.offer({scores[i], positions[i]});
        idle = changed ? 0 : idle + count;
        if (counts) counts->scored += count;
    }
    return top.sorted();
}

}  // namespace lateint::codes
