// Search over segments of residual codes: probe centroids, gather and score candidates, MaxSim on the codes, top k.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "codes/centroids.hpp"
#include "codes/residual.hpp"

namespace lateint::codes {

// A half-open range.
struct Run {
    int64_t first, end;
    int64_t size() const { return end - first; }
};

// The run that offsets[i] and offsets[i + 1] bound, inside [0, most) whatever a damaged file says.
inline Run run_of(const int64_t* offsets, int64_t i, int64_t most) {
    const int64_t first = std::clamp<int64_t>(offsets[i], 0, most);
    return {first, std::clamp(offsets[i + 1], first, most)};
}

// Inverted lists: for each centroid the distinct documents with a token at it, ascending. Small segments store only the
// lists that are not empty, and which ones these are; a bit for each centroid then finds them.
class InvertedLists {
public:
    // offsets [lists + 1], documents [entries]; centroids [lists] ascending, or null where all `count` have a list.
    InvertedLists(const int64_t* offsets, const uint32_t* documents, int64_t entries, const uint32_t* centroids,
                  int64_t lists, int64_t count);
    const uint32_t* documents() const { return documents_; }
    // Entries of the list of a centroid.
    Run of(uint32_t centroid) const {
        if (filled_.empty()) return run_of(offsets_, centroid, entries_);
        const uint64_t word = filled_[centroid / 64], bit = uint64_t{1} << centroid % 64;
        if (!(word & bit)) return {0, 0};
        return run_of(offsets_, before_[centroid / 64] + __builtin_popcountll(word & (bit - 1)), entries_);
    }

private:
    const int64_t* offsets_;
    const uint32_t* documents_;
    int64_t entries_;
    std::vector<uint64_t> filled_;  // bit c: centroid c has a list; empty where all have
    std::vector<uint32_t> before_;  // lists before each word of it
};

// An immutable run of documents. Positions of documents in an index are counted over its segments in order.
struct Segment {
    int64_t documents;
    const int64_t* offsets;  // [documents + 1]
    int64_t token_count;
    CodedTokens tokens;
    InvertedLists lists;

    Run tokens_of(int64_t document) const { return run_of(offsets, document, token_count); }
};

struct Hit {
    float score;
    int64_t position;
};

// A query ready for integer arithmetic: q_i ~ scale_i * byte vector.
struct Query {
    int64_t length = 0;
    int ntiles = 0;
    std::vector<int8_t> tiles;     // [ntiles][depth / 4][16][4]
    std::vector<double> scales;    // [length], the step of the documents included
    std::vector<int32_t> offsets;  // [length]: 128 * sum of the bytes, what unsigned rows add to a product
    double constant = 0;           // sum_i <q_i, mean>
};

struct SearchLimits {
    int64_t k;
    int64_t nprobe;      // centroids probed for each query token
    int64_t candidates;  // documents scored on their codes
    int64_t patience;    // stop when so many candidates in a row, best first, changed nothing; <= 0: score them all
    int64_t cells;       // cells looked into for centroids; <= 0: all centroids are scored
};

// What happened in a search, for tuning and tests.
struct SearchCounts {
    int64_t postings = 0, touched = 0, scored = 0;
};

class Engine {
public:
    Codec codec;
    Centroids centroids;
    float step = 0;
    int64_t dim = 0;                       // components of a query as it comes
    int64_t block = 0;                     // of the rotation
    const float* mean = nullptr;           // [dim]
    const float* rotation = nullptr;       // [width / block][block][block]
    const int32_t* permutation = nullptr;  // [width]: component i of the rotation's input is permutation[i]
    std::vector<Segment> segments;
    std::vector<int64_t> first_position;  // of each segment, and the number of documents

    void finish();  // after the fields above are set
    int64_t documents() const { return first_position.back(); }

    // queries [length, dim] float32.
    Query prepare(const float* tokens, int64_t length) const;
    // `allowed`: one byte a position, null for all. Hits by score descending, then position; at most limits.k.
    std::vector<Hit> search(const Query&, const SearchLimits&, const uint8_t* allowed, int threads,
                            SearchCounts* counts = nullptr) const;
    std::vector<Hit> exhaustive(const Query&, int64_t k, const uint8_t* allowed, int threads) const;
    // The centroids that a search looks at: out[i * count + p] is the p-th best one of query token i, its score a
    // product of signed bytes, for p < known[i]; the rest is left as it is.
    void probe(const Query&, int64_t count, int64_t cells, Probe* out, int64_t* known, int threads) const;
    // MaxSim of the query with the decoded tokens of each document.
    void score(const Query&, const int64_t* positions, int64_t n, int threads, float* scores) const;
    // Candidates with their coarse scores (larger is better), best first; for tests and measurements.
    std::vector<Hit> gather(const Query&, const SearchLimits&, const uint8_t* allowed,
                            SearchCounts* counts = nullptr) const;

private:
    struct Entry {  // of the scoreboard, one a document of the range at hand
        uint32_t tag;
        int32_t sum;
    };
    struct List {  // what is left of an inverted list that a query token reads
        const uint32_t *next, *end;
        int32_t gain;
        uint32_t token;
    };
    struct Scratch {
        std::vector<Entry> board;
        uint32_t next_tag = 1;
        std::vector<uint32_t> touched;
        std::vector<List> lists;  // those that are not empty, by token, best first
        std::vector<uint64_t> keys;
        std::vector<Hit> chosen;
        Prober prober;
    };
    class Lease;

    void find_candidates(const Query&, const SearchLimits&, const uint8_t* allowed, int threads, Scratch&,
                         SearchCounts*) const;
    int64_t open_lists(const Query&, const SearchLimits&, const Segment&, double unit, Scratch&) const;
    int64_t score_range(const Query&, int64_t first, int64_t size, Scratch&) const;
    void score_block(const Query&, const int64_t* positions, int64_t n, float* scores) const;
    const Segment& segment_of(int64_t position, int64_t* local) const;
    void prefetch(int64_t position) const;
    void prefetch_centroids(const Segment&, int64_t first, int64_t end) const;
    void prefetch_document_centroids(int64_t position) const;

    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace lateint::codes
