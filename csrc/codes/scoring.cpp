// The second stage of a search: MaxSim of the query with the decoded tokens of a document.
#include <algorithm>
#include <cstring>
#include <limits>

#include "codes/engine.hpp"
#include "codes/int8.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kDecodeRows = 64;  // tokens decoded at a time; they stay in the first-level cache
constexpr int64_t kDocumentsPerTask = 16;
constexpr int64_t kDocumentsAhead = 2;   // documents between the prefetch of codes and their use
constexpr int64_t kCentroidsAhead = 24;  // tokens of the next block whose centroids are fetched before it

}  // namespace

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

}  // namespace lateint::codes
