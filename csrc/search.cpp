#include "search.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "int8.hpp"
#include "threads.hpp"

namespace lateint {
namespace {

constexpr int64_t kDecodeRows = 64;      // tokens decoded at a time; they stay in the first-level cache
constexpr int64_t kDocumentsPerTask = 16;
constexpr int64_t kRound = 32;  // candidates scored between two looks at whether they still change anything
constexpr double kCoarseRange = 1 << 30;  // the largest coarse sum a query can reach

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

void Engine::finish() {
    codec.centroids = centroids.rows;
    codec.fill_levels();
    first_position.assign(1, 0);
    for (const Segment& segment : segments) first_position.push_back(first_position.back() + segment.documents);
}

Query Engine::prepare(const float* tokens, int64_t length) const {
    const int64_t width = codec.width, depth = codec.depth;
    Query query;
    query.length = length;
    query.ntiles = static_cast<int>((length + kLanes - 1) / kLanes);
    query.tiles.resize(query.ntiles * kLanes * depth);
    query.scales.resize(length);
    query.offsets.resize(length);
    std::vector<float> shuffled(length * width, 0.0f), rotated(length * width);
    for (int64_t i = 0; i < length; ++i) {
        const float* token = tokens + i * dim;
        for (int64_t k = 0; k < width; ++k)
            if (permutation[k] < dim) shuffled[i * width + k] = token[permutation[k]];
        for (int64_t k = 0; k < dim; ++k) query.constant += double(token[k]) * double(mean[k]);
    }
    residual_kernels().rotate(shuffled.data(), length, width, block, rotation, rotated.data());
    std::vector<int8_t> bytes(kLanes * depth);
    for (int64_t t = 0; t < query.ntiles; ++t) {
        std::fill(bytes.begin(), bytes.end(), 0);
        const int count = static_cast<int>(std::min<int64_t>(kLanes, length - t * kLanes));
        for (int j = 0; j < count; ++j) {
            const int64_t i = t * kLanes + j;
            const float* q = rotated.data() + i * width;
            float largest = 0;
            for (int64_t k = 0; k < width; ++k) largest = std::max(largest, std::fabs(q[k]));
            const float scale = largest > 0 ? largest / 127.0f : 1.0f;
            int32_t sum = 0;
            for (int64_t k = 0; k < width; ++k) {
                const int value = static_cast<int>(std::nearbyint(q[k] / scale));
                bytes[j * depth + k] = static_cast<int8_t>(value);
                sum += value;
            }
            query.scales[i] = double(scale) * double(step);
            query.offsets[i] = 128 * sum;
        }
        pack_tile(bytes.data(), count, depth, depth, query.tiles.data() + t * depth * kLanes);
    }
    return query;
}

const Segment& Engine::segment_of(int64_t position, int64_t* local) const {
    size_t s = 0;
    if (segments.size() > 1)
        s = std::upper_bound(first_position.begin(), first_position.end(), position) - first_position.begin() - 1;
    *local = position - first_position[s];
    return segments[s];
}

void Engine::prefetch(int64_t position) const {
    int64_t local;
    const Segment& segment = segment_of(position, &local);
    const int64_t first = segment.offsets[local], last = std::min(segment.offsets[local + 1], first + 128);
    const int64_t bytes = codec.code_bytes();
    for (int64_t b = first * bytes; b < last * bytes; b += 64) __builtin_prefetch(segment.tokens.codes + b);
    for (int64_t i = first; i < last; i += 32) __builtin_prefetch(segment.tokens.centroid_ids + i);
    if (segment.tokens.scales) __builtin_prefetch(segment.tokens.scales + first);
}

void Engine::score_block(const Query& query, const int64_t* positions, int64_t n, float* scores) const {
    const Int8Kernels& kernels = int8_kernels();
    const ResidualKernels& residual = residual_kernels();
    const int64_t depth = codec.depth;
    std::vector<uint8_t> storage(kDecodeRows * depth + 64);
    uint8_t* rows = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    std::vector<int32_t> best(query.ntiles * kLanes);
    kernels.enter();
    for (int64_t d = 0; d < n; ++d) {
        if (d + 1 < n) prefetch(positions[d + 1]);
        int64_t local;
        const Segment& segment = segment_of(positions[d], &local);
        std::fill(best.begin(), best.end(), std::numeric_limits<int32_t>::min());
        const int64_t end = segment.offsets[local + 1];
        for (int64_t first = segment.offsets[local]; first < end; first += kDecodeRows) {
            const int64_t count = std::min(kDecodeRows, end - first), padded = round_up(count, kRowStep);
            residual.decode(codec, segment.tokens, first, count, rows);
            // The last token once more in the rows that are left: a maximum does not mind.
            for (int64_t r = count; r < padded; ++r) std::memcpy(rows + r * depth, rows + (count - 1) * depth, depth);
            kernels.dot_max(rows, padded, depth, query.tiles.data(), query.ntiles, best.data());
        }
        double score = query.constant;
        for (int64_t i = 0; i < query.length; ++i) score += query.scales[i] * (best[i] - query.offsets[i]);
        scores[d] = segment.offsets[local] < end ? static_cast<float>(score) : -std::numeric_limits<float>::infinity();
    }
    kernels.leave();
}

void Engine::score(const Query& query, const int64_t* positions, int64_t n, int threads, float* scores) const {
    parallel_for((n + kDocumentsPerTask - 1) / kDocumentsPerTask, threads, [&](int64_t task, int) {
        const int64_t first = task * kDocumentsPerTask;
        score_block(query, positions + first, std::min(kDocumentsPerTask, n - first), scores + first);
    });
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

// score(d) ~ sum_i m_i + sum over the query tokens that probe a centroid of d of (best such centroid's score - m_i):
// where no probed centroid holds a token of d, the score of the best centroid not probed, m_i, stands in (imputation
// as in XTR and WARP). Lists are visited best first, so the first touch of a document by a query token is its maximum;
// tags tell first touches apart and never need clearing.
void Engine::accumulate_postings(const Query& query, const SearchLimits& limits, Scratch& scratch,
                                 SearchCounts* counts) const {
    const Prober& prober = scratch.prober;
    const int64_t width = prober.width(), used = std::min(limits.nprobe, width);
    double range = 0;
    for (int64_t i = 0; i < query.length; ++i)
        range += query.scales[i] * (double(prober.of(i)[0].score) - prober.of(i)[width - 1].score);
    const double unit = kCoarseRange / std::max(range, 1e-30);
    const uint32_t tags = static_cast<uint32_t>(query.length) + 1;
    if (scratch.board.size() != static_cast<size_t>(documents()) ||
        scratch.next_tag > std::numeric_limits<uint32_t>::max() - tags) {
        scratch.board.assign(documents(), Entry{0, 0});
        scratch.next_tag = 1;
    }
    const uint32_t first_tag = scratch.next_tag;
    scratch.next_tag += tags;
    scratch.touched.resize(documents() + 1);  // one to spare: it is written before it is known to be new
    uint32_t* touched = scratch.touched.data();
    Entry* board = scratch.board.data();
    int64_t touched_count = 0;
    for (int64_t i = 0; i < query.length; ++i) {
        const uint32_t tag = first_tag + static_cast<uint32_t>(i);
        const Probe* probes = prober.of(i);
        const int32_t imputed = probes[width - 1].score;
        for (int64_t p = 0; p < used; ++p) {
            const int32_t gain = static_cast<int32_t>(query.scales[i] * (double(probes[p].score) - imputed) * unit);
            for (size_t s = 0; s < segments.size(); ++s) {
                const Segment& segment = segments[s];
                const uint32_t c = probes[p].centroid;
                const uint32_t* list = segment.list_documents + segment.list_offsets[c];
                const int64_t size = segment.list_offsets[c + 1] - segment.list_offsets[c];
                const int64_t base = first_position[s];
                if (p + 1 < used) __builtin_prefetch(segment.list_documents + segment.list_offsets[probes[p + 1].centroid]);
                if (counts) counts->postings += size;
                for (int64_t e = 0; e < size; ++e) {
                    constexpr int64_t kAhead = 16;
                    if (e + kAhead < size) __builtin_prefetch(board + base + list[e + kAhead], 1);
                    // Without branches: whether a document is new is as good as random.
                    Entry& entry = board[base + list[e]];
                    const bool fresh = entry.tag < first_tag;
                    const int32_t sum = fresh ? 0 : entry.sum;
                    entry.sum = sum + (entry.tag == tag ? 0 : gain);
                    entry.tag = tag;
                    touched[touched_count] = static_cast<uint32_t>(base + list[e]);
                    touched_count += fresh;
                }
            }
        }
    }
    scratch.touched_count = touched_count;
    if (counts) counts->touched += touched_count;
}

// The `candidates` best of the touched documents into scratch.chosen: best first, ties by position. A histogram of the
// sums finds the bin in which the border lies; only what is above it is sorted.
void Engine::select(int64_t candidates, const uint8_t* allowed, Scratch& scratch) const {
    constexpr int kShift = 19;
    constexpr int kBins = (int64_t(1) << 31 >> kShift) + 1;
    int64_t histogram[kBins] = {};
    scratch.sums.resize(scratch.touched_count);
    for (int64_t t = 0; t < scratch.touched_count; ++t) {
        const uint32_t position = scratch.touched[t];
        const int32_t sum = allowed && !allowed[position] ? -1 : scratch.board[position].sum;
        scratch.sums[t] = sum;
        if (sum >= 0) ++histogram[sum >> kShift];
    }
    int64_t above = 0;
    int bin = kBins;
    while (bin > 0 && above < candidates) above += histogram[--bin];
    scratch.chosen.clear();
    const int64_t least = int64_t(bin) << kShift;
    for (int64_t t = 0; t < scratch.touched_count; ++t)
        if (scratch.sums[t] >= least && scratch.sums[t] >= 0)
            scratch.chosen.push_back({static_cast<float>(scratch.sums[t]), int64_t(scratch.touched[t])});
    const auto size = static_cast<int64_t>(scratch.chosen.size());
    if (size > candidates) {
        std::nth_element(scratch.chosen.begin(), scratch.chosen.begin() + candidates, scratch.chosen.end(), better);
        scratch.chosen.resize(candidates);
    }
}

std::vector<Hit> Engine::gather(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    scratch.prober.run(centroids, query.tiles.data(), query.ntiles, static_cast<int>(query.length), limits.nprobe + 1,
                       limits.cells, threads);
    accumulate_postings(query, limits, scratch, counts);
    select(limits.candidates, allowed, scratch);
    std::sort(scratch.chosen.begin(), scratch.chosen.end(), better);
    return scratch.chosen;
}

std::vector<Hit> Engine::search(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                                SearchCounts* counts) const {
    Lease lease(*this);
    Scratch& scratch = *lease;
    scratch.prober.run(centroids, query.tiles.data(), query.ntiles, static_cast<int>(query.length), limits.nprobe + 1,
                       limits.cells, threads);
    accumulate_postings(query, limits, scratch, counts);
    select(limits.candidates, allowed, scratch);
    std::sort(scratch.chosen.begin(), scratch.chosen.end(), better);
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

}  // namespace lateint
