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
constexpr int64_t kDocumentsPerTask = 8;
constexpr int64_t kPairsPerTask = 256;   // of documents and query tokens, about, to share out long queries evenly
constexpr int64_t kDocumentsAhead = 2;   // documents between the prefetch of codes and their use
constexpr int64_t kCentroidsAhead = 24;  // tokens of the next block whose centroids are fetched before it

int64_t documents_per_task(const Query& query, int threads) {
    if (threads_for(threads) == 1) return kDocumentsPerTask;
    return std::clamp<int64_t>(kPairsPerTask / std::max<int64_t>(query.length, 1), 1, kDocumentsPerTask);
}

}  // namespace

const Segment& Engine::segment_of(int64_t position, int64_t* local) const {
    size_t s = 0;
    if (segments.size() > 1)
        s = std::upper_bound(first_position_.begin(), first_position_.end(), position) - first_position_.begin() - 1;
    *local = position - first_position_[s];
    return segments[s];
}

Run Engine::tokens_of(const Segment& segment, int64_t local) const {
    const Run span = {segment.offsets[local], segment.offsets[local + 1]};
    if (span.first < 0 || span.end < span.first || span.end > segment.tokens.count) {
        damaged("offsets of document " + std::to_string(local) + " of a segment are " + std::to_string(span.first) +
                ".." + std::to_string(span.end) + " of " + std::to_string(segment.tokens.count) + " tokens");
    }
    return span;
}

void Engine::check_centroids(const CodedTokens& tokens, Run span) const {
    uint32_t largest = 0;
    if (tokens.centroid_high != nullptr) {
        for (int64_t i = span.first; i < span.end; ++i) largest = std::max(largest, tokens.centroid(i));
    } else if (centroids.count <= std::numeric_limits<uint16_t>::max()) {
        uint16_t low = 0;
        for (int64_t i = span.first; i < span.end; ++i) low = std::max(low, tokens.centroid_ids[i]);
        largest = low;
    }
    if (largest >= centroids.count) {
        damaged("centroid_ids hold " + std::to_string(largest) + ", but there are " + std::to_string(centroids.count) +
                " centroids");
    }
}

// From the disk into memory.
void Engine::read_ahead(int64_t position) const {
    int64_t local;
    const Segment& segment = segment_of(position, &local);
    const Run span = tokens_of(segment, local);
    const CodedTokens& tokens = segment.tokens;
    const int64_t bytes = codec.code_bytes();
    lateint::read_ahead(tokens.codes + span.first * bytes, span.size() * bytes);
    lateint::read_ahead(tokens.centroid_ids + span.first, span.size() * int64_t{sizeof(uint16_t)});
    if (tokens.centroid_high) lateint::read_ahead(tokens.centroid_high + span.first, span.size());
    if (tokens.scales) lateint::read_ahead(tokens.scales + span.first, span.size());
}

// From memory into the cache.
void Engine::prefetch(int64_t position) const {
    int64_t local;
    const Segment& segment = segment_of(position, &local);
    const Run span = tokens_of(segment, local);
    const int64_t first = span.first, last = std::min(span.end, first + 128);
    const int64_t bytes = codec.code_bytes();
    for (int64_t b = first * bytes; b < last * bytes; b += 64) __builtin_prefetch(segment.tokens.codes + b);
    for (int64_t i = first; i < last; i += 32) __builtin_prefetch(segment.tokens.centroid_ids + i);
    if (segment.tokens.scales) __builtin_prefetch(segment.tokens.scales + first);
}

// The first few centroids that decoding will need; further ones it fetches itself, a few tokens ahead.
void Engine::prefetch_centroids(const Segment& segment, Run span) const {
    if (codec.nbits == 8) return;  // codes are whole
    for (int64_t i = span.first; i < std::min(span.end, span.first + kCentroidsAhead); ++i) {
        const uint8_t* row = codec.centroids + segment.tokens.centroid(i) * codec.depth;
        for (int64_t k = 0; k < codec.depth; k += 64) __builtin_prefetch(row + k);
    }
}

void Engine::prefetch_document_centroids(int64_t position) const {
    int64_t local;
    const Segment& segment = segment_of(position, &local);
    prefetch_centroids(segment, tokens_of(segment, local));
}

void Engine::maxima_block(const Query& query, const int64_t* positions, int64_t n, int32_t* best) const {
    const Session session(int8_kernels());
    const ResidualKernels& residual = residual_kernels();
    const int64_t depth = codec.depth;
    std::vector<uint8_t> storage(kDecodeRows * depth + 64);
    uint8_t* rows = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    const int64_t room = query.room();
    std::fill_n(best, n * room, kNoMaximum);
    for (int64_t d = 0; d < std::min(kDocumentsAhead, n); ++d) prefetch(positions[d]);
    for (int64_t d = 0; d < n; ++d, best += room) {
        if (d + kDocumentsAhead < n) prefetch(positions[d + kDocumentsAhead]);
        int64_t local;
        const Segment& segment = segment_of(positions[d], &local);
        const Run span = tokens_of(segment, local);
        if (query.length == 0 && span.first < span.end) best[0] = 0;
        for (int64_t first = span.first; first < span.end; first += kDecodeRows) {
            const int64_t count = std::min(kDecodeRows, span.end - first), padded = round_up(count, kRowStep);
            if (codec.nbits < 8) check_centroids(segment.tokens, {first, first + count});
            if (first + count < span.end)
                prefetch_centroids(segment, {first + count, span.end});
            else if (d + 1 < n)
                prefetch_document_centroids(positions[d + 1]);
            residual.decode(codec, segment.tokens, first, count, rows);
            // The last token once more in the rows that may be read: a maximum does not mind.
            for (int64_t r = count; r < padded; ++r) std::memcpy(rows + r * depth, rows + (count - 1) * depth, depth);
            session.kernels.dot_max(rows, count, depth, query.tiles.data(), static_cast<int>(query.length), best);
        }
    }
}

void Engine::maxima(const Query& query, const int64_t* positions, int64_t n, int threads, int32_t* best) const {
    parallel_for_chunks(n, documents_per_task(query, threads), threads, [&](int64_t first, int64_t count) {
        maxima_block(query, positions + first, count, best + first * query.room());
    });
}

void Engine::score(const Query& query, const int64_t* positions, int64_t n, int threads, float* scores) const {
    parallel_for_chunks(n, documents_per_task(query, threads), threads, [&](int64_t first, int64_t count) {
        std::vector<int32_t> best(count * query.room());
        maxima_block(query, positions + first, count, best.data());
        for (int64_t d = 0; d < count; ++d) scores[first + d] = total(query, best.data() + d * query.room());
    });
}

}  // namespace lateint::codes
