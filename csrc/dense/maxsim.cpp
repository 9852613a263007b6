#include "dense/maxsim.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "dense/kernel.hpp"
#include "platform/buffer.hpp"
#include "platform/floats.hpp"
#include "platform/isa.hpp"
#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

constexpr int64_t kPanelBytes = 256 << 10;  // tiles that go over a document together: they stay in the second cache
constexpr int64_t kGroupBytes = 32 << 20;   // packed queries held at a time
constexpr int64_t kChunkBytes = 512 << 10;  // documents of a task, when several panels read them
constexpr int64_t kTaskProducts = 4 << 20;  // of tokens, in a task: between two of them a call can be interrupted

thread_local Buffer worker_scratch;

const Kernel& choose(QueryKind queries, Dtype documents) {
    using Offer = const Kernel* (*)(QueryKind, Dtype);
    constexpr Offer kOffers[] = {
        // by level; the first one offers all
        kernel_scalar,
#if defined(__x86_64__) || defined(__i386__)
        kernel_avx2,   kernel_avx512, kernel_avx512bf16, kernel_amx,
#elif defined(__aarch64__)
        kernel_neon,
        kernel_dotprod,
        kernel_i8mm,
#endif
    };
    const Kernel* kernel = nullptr;
    for (int level = static_cast<int>(active_isa()); kernel == nullptr; --level) {
        kernel = kOffers[level](queries, documents);
    }
    return *kernel;
}

// nullptr: the documents have no sketch, or nothing here is faster with it.
const Kernel* choose_sketch(const Matrices& documents) {
#if defined(__x86_64__) || defined(__i386__)
    if (documents.codes != nullptr && active_isa() == Isa::amx) return sketch_kernel_amx();
#endif
    return nullptr;
}

class Scorer {
public:
    Scorer(const Matrices& queries, const Matrices& documents, int64_t dim)
        : queries_(queries),
          documents_(documents),
          dim_(dim),
          integer_(queries.dtype == Dtype::int8),
          sketch_(choose_sketch(documents)),
          kernel_(sketch_ != nullptr ? *sketch_
                                     : choose(integer_                           ? QueryKind::int8
                                              : queries.dtype == Dtype::bfloat16 ? QueryKind::bfloat16
                                                                                 : QueryKind::any_float,
                                              documents.dtype)),
          tile_bytes_(kernel_.tile_bytes(dim)),
          panel_tiles_(std::max<int64_t>(2, kPanelBytes / tile_bytes_ / 2 * 2)) {}

    // Query tokens from row `first`, as consecutive tiles; the last one may be part empty.
    void pack(int64_t first, int64_t rows, char* tiles) const {
        std::vector<float> converted(integer_ ? 0 : static_cast<size_t>(kLanes * dim_));
        for (int64_t row = 0; row < rows; row += kLanes, tiles += tile_bytes_) {
            const int count = static_cast<int>(std::min<int64_t>(kLanes, rows - row));
            const int64_t start = (first + row) * dim_, numbers = count * dim_;
            const void* source = static_cast<const char*>(queries_.data) + start * itemsize(queries_.dtype);
            if (queries_.dtype == Dtype::float16 || queries_.dtype == Dtype::bfloat16) {
                const uint16_t* halves = static_cast<const uint16_t*>(source);
                const auto convert = queries_.dtype == Dtype::float16 ? float16_to_float : bfloat16_to_float;
                for (int64_t i = 0; i < numbers; ++i) converted[i] = convert(halves[i]);
                source = converted.data();
            }
            kernel_.pack(source, count, dim_, tiles);
        }
    }

    // best [16 * tiles], of the kernel's type, for one document.
    void best(const char* tiles, int64_t count, int64_t document, char* scratch, void* best) const {
        const int64_t start = documents_.offsets[document], rows = documents_.offsets[document + 1] - start;
        const void* tokens = static_cast<const char*>(documents_.data) + start * token_bytes();
        if (sketch_ != nullptr) {
            const SketchedTokens sketched = {static_cast<const float*>(tokens), documents_.codes + start * dim_,
                                             documents_.scales + start};
            kernel_.best(tiles, count, &sketched, rows, dim_, scratch, best);
        } else {
            kernel_.best(tiles, count, tokens, rows, dim_, scratch, best);
        }
    }

    // Sums in double and in the query's own order, so that a score does not know which lanes its query sat in.
    float sum(const void* best, int64_t rows) const {
        double total = 0;
        if (integer_) {
            for (int64_t i = 0; i < rows; ++i) total += static_cast<const int32_t*>(best)[i];
        } else {
            for (int64_t i = 0; i < rows; ++i) total += static_cast<const float*>(best)[i];
        }
        return static_cast<float>(total);
    }

    // Scratch for `best` with its result, of `tiles` tiles, at the front.
    char* scratch(int64_t tiles) const {
        return worker_scratch.get(result_bytes(tiles) + kernel_.scratch_bytes(dim_, tiles));
    }
    static int64_t result_bytes(int64_t tiles) { return tiles * kLanes * 4; }
    int64_t token_bytes() const { return dim_ * itemsize(documents_.dtype); }
    int64_t tile_bytes() const { return tile_bytes_; }
    int64_t panel_tiles() const { return panel_tiles_; }
    const Kernel& kernel() const { return kernel_; }

private:
    const Matrices &queries_, &documents_;
    const int64_t dim_;
    const bool integer_;
    const Kernel* const sketch_;
    const Kernel& kernel_;
    const int64_t tile_bytes_, panel_tiles_;
};

// Whole queries whose tokens lie one after the other in tiles; a query longer than a panel has one of its own.
struct Panel {
    int64_t first, last;  // queries
    int64_t tile, tiles;  // where in the packed buffer
};

// The end of the task that starts at document `first`: as many documents as fit into `bytes`, at least one.
std::vector<int64_t> cut(const Matrices& documents, int64_t token_bytes, int64_t bytes) {
    std::vector<int64_t> bounds{0};
    while (bounds.back() < documents.count) {
        const int64_t* offsets = documents.offsets;
        const int64_t limit = offsets[bounds.back()] + std::max<int64_t>(1, bytes / token_bytes);
        const int64_t next = std::upper_bound(offsets, offsets + documents.count + 1, limit) - offsets - 1;
        bounds.push_back(std::max(next, bounds.back() + 1));
    }
    return bounds;
}

}  // namespace

void maxsim(const Matrices& queries, const Matrices& documents, int64_t dim, int threads, float* out) {
    const Scorer scorer(queries, documents, dim);
    threads = threads_for(threads);
    const int64_t group_tiles = std::max(scorer.panel_tiles(), kGroupBytes / scorer.tile_bytes());
    for (int64_t query = 0; query < queries.count;) {
        std::vector<Panel> panels;
        int64_t tiles = 0;
        while (query < queries.count && (panels.empty() || tiles < group_tiles)) {
            const int64_t first = query, start = queries.offsets[first];
            do {
                ++query;
            } while (query < queries.count && tiles_for(queries.offsets[query + 1] - start) <= scorer.panel_tiles());
            const int64_t count = tiles_for(queries.offsets[query] - start);
            panels.push_back({first, query, tiles, count});
            tiles += count;
        }

        Buffer packed;
        char* const buffer = packed.get(tiles * scorer.tile_bytes());
        parallel_for(static_cast<int64_t>(panels.size()), threads, [&](int64_t task, int) {
            const Panel& panel = panels[task];
            const int64_t start = queries.offsets[panel.first];
            scorer.pack(start, queries.offsets[panel.last] - start, buffer + panel.tile * scorer.tile_bytes());
        });

        const int64_t total = documents.offsets[documents.count] * scorer.token_bytes();
        const int64_t even = total / (8 * int64_t{threads}) + 1;  // eight tasks a thread even out their speeds
        const int64_t most = panels.size() > 1 ? kChunkBytes : 8 * kChunkBytes;
        int64_t widest = 1;
        for (const Panel& panel : panels) widest = std::max(widest, panel.tiles * kLanes);
        const int64_t short_enough = kTaskProducts / widest * scorer.token_bytes();
        const std::vector<int64_t> bounds = cut(documents, scorer.token_bytes(), std::min({even, most, short_enough}));
        const int64_t chunks = static_cast<int64_t>(bounds.size()) - 1, n_panels = static_cast<int64_t>(panels.size());
        parallel_for(chunks * n_panels, threads, [&](int64_t task, int) {
            const Panel& panel = panels[task % n_panels];
            char* const result = scorer.scratch(panel.tiles);
            const Session session(scorer.kernel());
            for (int64_t document = bounds[task / n_panels]; document < bounds[task / n_panels + 1]; ++document) {
                scorer.best(buffer + panel.tile * scorer.tile_bytes(), panel.tiles, document,
                            result + Scorer::result_bytes(panel.tiles), result);
                for (int64_t q = panel.first; q < panel.last; ++q) {
                    const int64_t row = queries.offsets[q] - queries.offsets[panel.first];
                    out[q * documents.count + document] =
                        scorer.sum(result + row * 4, queries.offsets[q + 1] - queries.offsets[q]);
                }
            }
        });
    }
}

void maxsim_pairs(const Matrices& queries, const Matrices& documents, int64_t dim, const int64_t* query_index,
                  const int64_t* document_index, int64_t pairs, int threads, float* out) {
    const Scorer scorer(queries, documents, dim);
    threads = threads_for(threads);
    std::vector<int64_t> order(static_cast<size_t>(pairs));  // by query, so that each is packed once a task
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return query_index[a] < query_index[b]; });
    const int64_t chunk = std::clamp<int64_t>(pairs / (8 * int64_t{threads}), 1, 256);
    parallel_for((pairs + chunk - 1) / chunk, threads, [&](int64_t task, int) {
        const int64_t end = std::min(pairs, (task + 1) * chunk);
        int64_t most = 0;
        for (int64_t i = task * chunk; i < end; ++i) {
            const int64_t query = query_index[order[i]];
            most = std::max(most, tiles_for(queries.offsets[query + 1] - queries.offsets[query]));
        }
        Buffer packed;
        char* const tiles = packed.get(most * scorer.tile_bytes());
        char* const result = scorer.scratch(most);
        const Session session(scorer.kernel());
        for (int64_t i = task * chunk, previous = -1; i < end; ++i) {
            const int64_t query = query_index[order[i]], start = queries.offsets[query];
            const int64_t rows = queries.offsets[query + 1] - start;
            if (query != previous) scorer.pack(start, rows, tiles);
            previous = query;
            scorer.best(tiles, tiles_for(rows), document_index[order[i]], result + Scorer::result_bytes(most), result);
            out[order[i]] = scorer.sum(result, rows);
        }
    });
}

}  // namespace lateint::dense
