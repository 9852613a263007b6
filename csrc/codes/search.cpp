#include "codes/search.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "codes/int8.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kDecodeRows = 64;  // tokens decoded at a time; they stay in the first-level cache
constexpr int64_t kDocumentsPerTask = 16;
constexpr int64_t kDocumentsAhead = 2;    // documents between the prefetch of codes and their use
constexpr int64_t kCentroidsAhead = 24;   // tokens of the next block whose centroids are fetched before it
constexpr int64_t kRange = 1 << 16;       // documents on the scoreboard at a time: half a megabyte
constexpr int64_t kRound = 32;            // candidates scored between two looks at whether they still change anything
constexpr int64_t kImputedRank = 2;       // times nprobe: the centroid whose score stands in for what was not found
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

InvertedLists::InvertedLists(const int64_t* offsets, const uint32_t* documents, int64_t entries,
                             const uint32_t* centroids, int64_t lists, int64_t count)
    : offsets_(offsets), documents_(documents), entries_(entries) {
    if (!centroids) return;
    filled_.resize(count / 64 + 1);
    before_.resize(filled_.size());
    // In strictly ascending order only, for else there would be fewer bits than lists.
    int64_t last = -1;
    for (int64_t l = 0; l < lists && int64_t(centroids[l]) > last && centroids[l] < count; ++l) {
        last = centroids[l];
        filled_[last / 64] |= uint64_t{1} << last % 64;
    }
    for (size_t w = 1; w < filled_.size(); ++w)
        before_[w] = before_[w - 1] + static_cast<uint32_t>(__builtin_popcountll(filled_[w - 1]));
}

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
    codec.fill_tables();
    first_position.assign(1, 0);
    for (const Segment& segment : segments) first_position.push_back(first_position.back() + segment.documents);
}

Query Engine::prepare(const float* tokens, int64_t length) const {
    const int64_t width = codec.width, depth = codec.depth;
    Query query;
    query.length = length;
    query.ntiles = static_cast<int>(tiles_for(length));
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
            const float scale = largest > 1e-30f ? largest / 127.0f : 1.0f;  // what is smaller counts as zero
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
    const Run run = segment.tokens_of(local);
    const int64_t first = run.first, last = std::min(run.end, first + 128);
    const int64_t bytes = codec.code_bytes();
    for (int64_t b = first * bytes; b < last * bytes; b += 64) __builtin_prefetch(segment.tokens.codes + b);
    for (int64_t i = first; i < last; i += 32) __builtin_prefetch(segment.tokens.centroid_ids + i);
    if (segment.tokens.scales) __builtin_prefetch(segment.tokens.scales + first);
}

// The first few centroids that decoding will need; further ones it fetches itself, a few tokens ahead.
void Engine::prefetch_centroids(const Segment& segment, int64_t first, int64_t end) const {
    if (!segment.tokens.scales) return;  // 8 bits: codes are whole
    for (int64_t i = first; i < std::min(end, first + kCentroidsAhead); ++i) {
        const uint8_t* row = codec.centroids + segment.tokens.centroid(i) * codec.depth;
        for (int64_t k = 0; k < codec.depth; k += 64) __builtin_prefetch(row + k);
    }
}

void Engine::prefetch_document_centroids(int64_t position) const {
    int64_t local;
    const Segment& segment = segment_of(position, &local);
    const Run run = segment.tokens_of(local);
    prefetch_centroids(segment, run.first, run.end);
}

void Engine::score_block(const Query& query, const int64_t* positions, int64_t n, float* scores) const {
    const Session session(int8_kernels());
    const ResidualKernels& residual = residual_kernels();
    const int64_t depth = codec.depth;
    std::vector<uint8_t> storage(kDecodeRows * depth + 64);
    uint8_t* rows = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    std::vector<int32_t> best(query.ntiles * kLanes);
    for (int64_t d = 0; d < std::min(kDocumentsAhead, n); ++d) prefetch(positions[d]);
    for (int64_t d = 0; d < n; ++d) {
        if (d + kDocumentsAhead < n) prefetch(positions[d + kDocumentsAhead]);
        int64_t local;
        const Segment& segment = segment_of(positions[d], &local);
        std::fill(best.begin(), best.end(), std::numeric_limits<int32_t>::min());
        const auto [begin, end] = segment.tokens_of(local);
        for (int64_t first = begin; first < end; first += kDecodeRows) {
            const int64_t count = std::min(kDecodeRows, end - first), padded = round_up(count, kRowStep);
            if (first + count < end)
                prefetch_centroids(segment, first + count, end);
            else if (d + 1 < n)
                prefetch_document_centroids(positions[d + 1]);
            residual.decode(codec, segment.tokens, first, count, rows);
            // The last token once more in the rows that are left: a maximum does not mind.
            for (int64_t r = count; r < padded; ++r) std::memcpy(rows + r * depth, rows + (count - 1) * depth, depth);
            session.kernels.dot_max(rows, padded, depth, query.tiles.data(), query.ntiles, best.data());
        }
        double score = query.constant;
        for (int64_t i = 0; i < query.length; ++i) score += query.scales[i] * (best[i] - query.offsets[i]);
        scores[d] = begin < end ? static_cast<float>(score) : -std::numeric_limits<float>::infinity();
    }
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

namespace {

// A key orders by coarse sum first and by lower position among equal sums.
uint64_t key_of(int32_t sum, int64_t position) {
    return uint64_t(static_cast<uint32_t>(sum)) << 32 | (~static_cast<uint32_t>(position) & 0xFFFFFFFFu);
}

void keep_best(std::vector<uint64_t>& keys, int64_t count) {
    if (static_cast<int64_t>(keys.size()) <= count) return;
    std::nth_element(keys.begin(), keys.begin() + count, keys.end(), std::greater<uint64_t>());
    keys.resize(count);
}

}  // namespace

// The inverted lists that the query reads in a segment. Returns their postings.
int64_t Engine::open_lists(const Query& query, const SearchLimits& limits, const Segment& segment, double unit,
                           Scratch& scratch) const {
    const Prober& prober = scratch.prober;
    int64_t postings = 0;
    const uint32_t* documents = segment.lists.documents();
    scratch.lists.clear();
    for (int64_t i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(static_cast<int>(i));
        const int64_t known = prober.size(static_cast<int>(i));
        const int32_t imputed = probes[known - 1].score;
        for (int64_t p = 0; p < std::min(limits.nprobe, known); ++p) {
            const Run list = segment.lists.of(probes[p].centroid);
            if (list.size() == 0) continue;
            const auto gain = static_cast<int32_t>(query.scales[i] * (double(probes[p].score) - imputed) * unit);
            scratch.lists.push_back({documents + list.first, documents + list.end, gain, static_cast<uint32_t>(i)});
            postings += list.size();
        }
    }
    return postings;
}

// Adds up the coarse scores of documents [first, first + size) of a segment; returns how many were touched. The range
// is small enough for its scoreboard to stay in the second-level cache.
int64_t Engine::score_range(const Query& query, int64_t first, int64_t size, Scratch& scratch) const {
    Entry* board = scratch.board.data();
    uint32_t* touched = scratch.touched.data();
    int64_t count = 0;
    if (scratch.next_tag > std::numeric_limits<uint32_t>::max() - static_cast<uint32_t>(query.length)) {
        std::fill(scratch.board.begin(), scratch.board.end(), Entry{0, 0});
        scratch.next_tag = 1;
    }
    const uint32_t first_tag = scratch.next_tag, begin = static_cast<uint32_t>(first);
    for (size_t l = 0; l < scratch.lists.size(); ++l) {
        List& list = scratch.lists[l];
        const uint32_t tag = first_tag + list.token;
        if (l + 2 < scratch.lists.size())
            for (int line = 0; line < 8; ++line) __builtin_prefetch(scratch.lists[l + 2].next + line * 16);
        const uint32_t* at = list.next;
        for (; at < list.end; ++at) {
            const uint32_t local = *at - begin;
            if (local >= size) break;  // of a later range
            // Masks, not branches: whether a document is new is as good as random.
            const Entry entry = board[local];
            const int32_t known = -static_cast<int32_t>(entry.tag >= first_tag);
            const int32_t unseen = -static_cast<int32_t>(entry.tag != tag);
            board[local] = {tag, (entry.sum & known) + (list.gain & unseen)};
            touched[count] = local;
            count += 1 + known;
        }
        list.next = at;
    }
    scratch.next_tag += static_cast<uint32_t>(query.length);
    return count;
}

// score(d) ~ sum_i m_i + sum over the query tokens that probe a centroid of d of (best such centroid's score - m_i):
// where no probed centroid holds a token of d, the score m_i of the 2 nprobe-th best centroid stands in (imputation as
// in XTR and WARP; docs/design.md has the ranks tried). Lists are visited best first, so the first touch of a document
// by a query token is its maximum; tags tell first touches apart and never need clearing. The best limits.candidates go
// to scratch.chosen, best first.
void Engine::find_candidates(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                             Scratch& scratch, SearchCounts* counts) const {
    scratch.prober.run(centroids, query.tiles.data(), static_cast<int>(query.length), kImputedRank * limits.nprobe,
                       limits.cells, threads);
    const Prober& prober = scratch.prober;
    double range = 0;
    for (int64_t i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(static_cast<int>(i));
        range += query.scales[i] * (double(probes[0].score) - probes[prober.size(static_cast<int>(i)) - 1].score);
    }
    const double unit = kCoarseRange / std::max(range, 1e-30);
    const auto room = static_cast<size_t>(std::min(kRange, documents()));
    if (scratch.board.size() < room) scratch.board.resize(room, Entry{0, 0});
    if (scratch.touched.size() < room + 1)
        scratch.touched.resize(room + 1);  // one is written before it is known to be new
    const auto most = static_cast<size_t>(std::max<int64_t>(4 * limits.candidates, 4096));
    std::vector<uint64_t>& keys = scratch.keys;
    keys.clear();
    uint64_t least = 0;
    for (size_t s = 0; s < segments.size(); ++s) {
        const int64_t postings = open_lists(query, limits, segments[s], unit, scratch);
        if (counts) counts->postings += postings;
        for (int64_t first = 0; first < segments[s].documents; first += kRange) {
            const int64_t touched = score_range(query, first, std::min(kRange, segments[s].documents - first), scratch);
            if (counts) counts->touched += touched;
            for (int64_t t = 0; t < touched; ++t) {
                const uint32_t local = scratch.touched[t];
                const int64_t position = first_position[s] + first + local;
                const uint64_t key = key_of(scratch.board[local].sum, position);
                if (key < least || (allowed && !allowed[position])) continue;
                keys.push_back(key);
                if (keys.size() < most) continue;
                keep_best(keys, limits.candidates);
                least = *std::min_element(keys.begin(), keys.end());
            }
        }
    }
    keep_best(keys, limits.candidates);
    std::sort(keys.begin(), keys.end(), std::greater<uint64_t>());
    scratch.chosen.clear();
    for (uint64_t key : keys)
        scratch.chosen.push_back({static_cast<float>(key >> 32), int64_t(~static_cast<uint32_t>(key))});
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
