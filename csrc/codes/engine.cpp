#include "codes/engine.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>

#include "codes/lease.hpp"
#include "codes/top_k.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

std::vector<ListedRun> runs_of(const std::vector<Segment>& segments) {
    std::vector<ListedRun> runs;
    for (const Segment& segment : segments) runs.push_back({segment.documents, &segment.lists, nullptr});
    return runs;
}

}  // namespace
Engine::Engine(const Codec& codec, const Centroids& centroids, const Rotation& rotation, float step,
               std::vector<Segment> segments, const Engine* before)
    : codec(codec),
      centroids(centroids),
      rotation(rotation),
      step(step),
      segments(std::move(segments)),
      first_position_{0},
      lists_(runs_of(this->segments), centroids.count, before ? &before->lists_ : nullptr),
      reads_(before ? before->reads_.load() : true) {
    for (const Segment& segment : this->segments) {
        first_position_.push_back(first_position_.back() + segment.documents);
        postings_ += segment.lists.postings();
    }
    if (documents() > int64_t{std::numeric_limits<uint32_t>::max()}) damaged("it has more than 4294967295 documents");
    if (!(step > 0 && std::isfinite(step))) damaged("step must be a positive number");
    if (!std::all_of(rotation.mean, rotation.mean + rotation.dim, [](float x) { return std::isfinite(x); })) {
        damaged("mean must be finite");
    }
    if (rotation.dim > rotation.width) damaged("mean must have at most " + std::to_string(rotation.width) + " numbers");
    const auto inside = [&](int32_t from) { return from >= 0 && from < rotation.width; };
    if (!std::all_of(rotation.permutation, rotation.permutation + rotation.width, inside)) {
        damaged("permutation must be numbers from 0 to " + std::to_string(rotation.width - 1));
    }
    const int64_t* const cells = centroids.cell_offsets;
    if (cells[0] != 0 || cells[centroids.cell_count] != centroids.count ||
        !std::is_sorted(cells, cells + centroids.cell_count + 1)) {
        damaged("cell_offsets must rise from 0 to " + std::to_string(centroids.count));
    }
    const bool known = before != nullptr && before->turned_->are_of(centroids);
    turned_ = known ? before->turned_ : std::make_shared<TurnedCells>(centroids);
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
    prober.run(centroids, *turned_, query.tiles.data(), static_cast<int>(query.length), count, count, true, cells,
               threads);
    for (int64_t i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(static_cast<int>(i));
        known[i] = prober.size(static_cast<int>(i));
        for (int64_t p = 0; p < known[i]; ++p)
            out[i * count + p] = {probes[p].score - query.offsets[i], probes[p].centroid};
    }
}

std::vector<Hit> Engine::gather(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    Reading reading(reads_);
    find_candidates(query, limits, allowed, threads, scratch, reading, counts);
    std::vector<Hit> hits;
    for (int64_t i = 0; i < scratch.chosen.size(); ++i) {
        const Candidate candidate = scratch.chosen[i];
        hits.push_back({static_cast<float>(candidate.estimate), candidate.position});
    }
    return hits;
}

}  // namespace lateint::codes
