// Search over segments of residual codes: probe centroids, gather and score candidates, MaxSim on the codes, top k.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "codes/centroids.hpp"
#include "codes/chosen.hpp"
#include "codes/joined.hpp"
#include "codes/lists.hpp"
#include "codes/prober.hpp"
#include "codes/query.hpp"
#include "codes/reading.hpp"
#include "codes/residual.hpp"
#include "codes/rotation.hpp"
#include "codes/turned.hpp"
#include "platform/paging.hpp"

namespace lateint::codes {

// An immutable run of documents. Positions of documents in an index are counted over its segments in order. Arrays may
// be memory-mapped files that somebody else made: what is read from them is checked before it is used as a place.
struct Segment {
    int64_t documents;
    const int64_t* offsets;  // [documents + 1]
    CodedTokens tokens;
    InvertedLists lists;
};

struct Hit {
    float score;
    int64_t position;
};

struct SearchLimits {
    int64_t k;
    int64_t nprobe;      // centroids probed for each query token
    int64_t candidates;  // documents scored on their codes
    int64_t patience;    // stop when so many candidates in a row, best first, changed nothing; <= 0: score them all
    int64_t cells;       // cells looked into for centroids; <= 0: all centroids are scored
    double deviations;  // stop when the next candidate is so many deviations too low (`Line`); <= 0: it does not matter
    int64_t watched;    // how many of the best candidates must not change; <= 0: k
    int64_t sampled;    // so many tokens of a query that is much longer find candidates; <= 0: all do
    int64_t lists;      // of the probed centroids, the lists of so many a token are read; <= 0: of all
};

// What happened in a search, for tuning and tests.
struct SearchCounts {
    int64_t postings = 0, touched = 0, scored = 0;
};

class Engine {
public:
    // Throws std::runtime_error if something other than segments is damaged; their contents are looked at when they
    // are read, by all other functions, which throw the same. `before`: an engine of the same codec, perhaps with some
    // of the same segments, or null; it is not needed afterwards.
    Engine(const Codec& codec, const Centroids& centroids, const Rotation& rotation, float step,
           std::vector<Segment> segments, const Engine* before = nullptr);
    ~Engine();

    const Codec codec;
    const Centroids centroids;
    const Rotation rotation;
    const float step;
    const std::vector<Segment> segments;

    int64_t documents() const { return first_position_.back(); }

    // tokens [length, dim] float32.
    Query prepare(const float* tokens, int64_t length) const {
        return codes::prepare(rotation, step, codec.depth, tokens, length);
    }
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
    std::vector<Hit> gather(const Query&, const SearchLimits&, const uint8_t* allowed, int threads,
                            SearchCounts* counts = nullptr) const;

    // Runs of documents that have lists of their own for searches: segments, and neighbours joined; for tests.
    int64_t runs() const { return static_cast<int64_t>(lists_.runs().size()); }

    // Tokens [first, first + n) of a segment as bytes [n, width].
    void decode(int64_t segment, int64_t first, int64_t n, uint8_t* bytes) const;

private:
    // Of the scoreboard, one a document of the range at hand: the sum in the upper 21 bits; in the lower 11 the token
    // that added to it last, see `score_range`. 0: none did.
    using Entry = uint32_t;
    struct Wanted {  // a centroid that a query token looks into, and what a document there gains
        uint32_t centroid;
        int32_t gain;
        uint32_t token;
    };
    struct List {  // what is left of an inverted list that a query token reads
        const uint32_t *next, *end;
        int32_t gain;
        uint32_t token;
    };
    struct Part {  // of the documents, or of the query's tokens, for a thread
        std::vector<Entry, Paged<Entry>> board;
        std::vector<List> lists;  // by token, best first
        size_t open = 0;          // of them: those of a run that are not empty
        BestDocuments best;       // by coarse sums
        bool counted = false;     // documents that lists hold, too
        SearchCounts counts;

        void start(int64_t candidates, int64_t documents, bool all_counted) {
            best.start(candidates, documents);
            counted = all_counted;
            counts = {};
        }
        void make_room(int64_t documents) {
            if (static_cast<int64_t>(board.size()) < documents) board.resize(documents);
        }
    };
    struct Scratch {
        Prober prober;
        std::vector<Wanted> wanted;
        std::vector<int32_t> gains;  // of these
        std::vector<Part> parts;
        Chosen chosen;
        double unit = 0;  // estimates per unit of score
    };
    class Lease;

    void find_candidates(const Query&, const SearchLimits&, const uint8_t* allowed, int threads, Scratch&, Reading&,
                         SearchCounts*) const;
    void choose_lists(const Query&, int64_t most, Scratch&) const;
    static void keep_gainful(int64_t most, Scratch&);
    int64_t open_lists(const ListedRun&, const Wanted*, int64_t count, Run documents, Part&) const;
    void score_range(int64_t first, int64_t size, Part&) const;
    void check_ended(const ListedRun&, const Part&) const;
    void take_best(const Entry* sums, int64_t position, int64_t size, const uint8_t* allowed, Part&) const;
    void gather_documents(const uint8_t* allowed, const std::vector<ListedRun>&, const std::vector<Wanted>&,
                          int64_t part, int64_t parts, Part&) const;
    void gather_tokens(const uint8_t* allowed, const std::vector<ListedRun>&, int threads, int64_t parts,
                       Scratch&) const;
    using Scorer = std::function<void(const int64_t* positions, int64_t n, float* scores)>;
    std::vector<Hit> rank(const Scorer&, int64_t k, int64_t watched, const SearchLimits&, Scratch&, int threads,
                          Reading&, SearchCounts*) const;
    void choose_again(const std::vector<Hit>&, double share, Scratch&) const;
    std::vector<Hit> search_by_sample(const Query&, int64_t watched, const SearchLimits&, const uint8_t* allowed,
                                      int threads, Scratch&, Reading&, SearchCounts*) const;
    // best [n][query.room()]: the largest product of each document with each query token.
    void maxima(const Query&, const int64_t* positions, int64_t n, int threads, int32_t* best) const;
    void maxima_block(const Query&, const int64_t* positions, int64_t n, int32_t* best) const;
    const Segment& segment_of(int64_t position, int64_t* local) const;
    Run tokens_of(const Segment&, int64_t local) const;
    void check_centroids(const CodedTokens&, Run) const;
    void read_ahead(const ListedRun&, const std::vector<Wanted>&) const;
    void read_ahead(int64_t position) const;
    void prefetch(int64_t position) const;
    void prefetch_centroids(const Segment&, Run) const;
    void prefetch_document_centroids(int64_t position) const;

    std::vector<int64_t> first_position_;  // of each segment, and the number of documents
    int64_t postings_ = 0;                 // in all lists
    mutable ReadLists lists_;
    mutable std::atomic<bool> reads_;      // from the disk: whether the last search did, or may have
    std::shared_ptr<TurnedCells> turned_;  // shared with engines before and after
    // Scratch space of past calls for calls to come. No lock: whoever forks in the middle of a call leaves none behind.
    mutable std::array<std::atomic<Scratch*>, 64> idle_{};
};

}  // namespace lateint::codes
