#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "platform/buffer.hpp"
#include "platform/threads.hpp"
#include "train/kernel.hpp"
#include "train/problem.hpp"
#include "train/tokens.hpp"

namespace lateint::train {
namespace {

constexpr int64_t kGroupBytes = 32 << 20;   // packed queries held at a time
constexpr int64_t kChunkBytes = 256 << 10;  // document tokens that go over all tiles together: in the second cache
constexpr int64_t kPanelRows = 64;          // query tokens that a task has at least
constexpr int64_t kPanelBytes = 768 << 10;  // packed queries of a task, unless one alone has more: in the second cache

struct Worker {
    DocumentTokens tokens;
    ExactProducts exact;
    Buffer scratch, best, position, tiles;
    std::vector<int64_t> query_rows;
    std::vector<float> factors;
    int64_t query = -1;  // whose tiles those are, for pairs
};

// Queries whose present tokens lie one after the other in tiles.
struct Panel {
    int64_t first, last;  // queries
    int64_t row, rows;    // of the packed ones
    int64_t tile;         // where they are packed
};

// Sum of factors[i] * best[i] in an order that depends on the count alone.
float weighted_sum(const float* factors, const float* best, int64_t count) {
    double sums[4] = {};
    for (int64_t i = 0; i < count; ++i) sums[i % 4] += double{factors[i]} * double{best[i]};
    return static_cast<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

class Forward {
public:
    Forward(const Problem& problem, float* scores, Positions positions)
        : problem_(problem),
          scores_(scores),
          positions_(positions),
          kernel_(forward_kernel(problem.dtype)),
          tile_bytes_(kernel_.tile_bytes(problem.dim)),
          chunk_rows_(std::max<int64_t>(32, kChunkBytes / kernel_.row_bytes(problem.dim) / 32 * 32)) {}

    void grid(int threads);
    void pairs(int threads);

private:
    // Tokens of query i that are present, and their factors.
    void list_rows(int64_t query, std::vector<int64_t>& rows, std::vector<float>& factors) const {
        for (int64_t s = problem_.query_offsets[query]; s < problem_.query_offsets[query + 1]; ++s) {
            if (!problem_.query_present(s)) continue;
            rows.push_back(s);
            factors.push_back(problem_.query_factor(s));
        }
    }
    void pack_tile(const int64_t* rows, int64_t count, int64_t tile, char* tiles) const {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - tile * kLanes));
        kernel_.pack_queries(problem_.queries, rows + tile * kLanes, lanes, problem_.dim, tiles + tile * tile_bytes_);
    }
    std::vector<Panel> cut(int64_t first, int64_t last, int64_t tasks, std::vector<int64_t>& rows,
                           std::vector<float>& factors) const;
    bool best(const char* tiles, const int64_t* rows, int64_t count, int64_t document, Worker& worker) const;
    void write_positions(int64_t at, int64_t start, int64_t size, const int64_t* rows, int64_t count,
                         const float* from) const;

    const Problem& problem_;
    float* const scores_;
    const Positions positions_;
    const ForwardKernel& kernel_;
    const int64_t tile_bytes_, chunk_rows_;
};

// worker.best and worker.position of one document for the packed query tokens rows[0..count); false: no token is there.
bool Forward::best(const char* tiles, const int64_t* rows, int64_t count, int64_t document, Worker& worker) const {
    DocumentTokens& tokens = worker.tokens;
    if (!tokens.open(problem_, kernel_, document)) return false;
    if (count == 0) return true;
    const int64_t size = tokens.size(), lanes = tiles_for(count) * kLanes;
    float* const best = worker.best.floats(lanes);
    float* const position = worker.position.floats(lanes);
    std::fill_n(best, lanes, -std::numeric_limits<float>::infinity());
    std::fill_n(position, lanes, 0.0f);
    char* const scratch = worker.scratch.get(kernel_.scratch_bytes(problem_.dim));
    for (int64_t first = 0; first < size; first += chunk_rows_) {
        const int64_t chunk = std::min(chunk_rows_, size - first);
        kernel_.best(tiles, tiles_for(count), tokens.rows(first, chunk), chunk, problem_.dim, tokens.scales(first),
                     first, scratch, best, position);
    }
    for (int64_t i = 0; i < count; ++i) {
        position[i] = static_cast<float>(tokens.position(static_cast<int64_t>(position[i])));
        if (!std::isnan(best[i])) continue;  // else the kernel does not vouch for it
        worker.exact.open(problem_, rows[i]);
        worker.exact.largest(document, best[i], position[i]);
    }
    return true;
}

template <class T>
void write(T* to, int64_t start, int64_t size, const int64_t* rows, int64_t count, const float* from) {
    if (count == size) {  // all tokens are present
        for (int64_t i = 0; i < size; ++i) to[i] = static_cast<T>(static_cast<int32_t>(from[i]));
        return;
    }
    std::fill_n(to, size, T{0});
    for (int64_t i = 0; i < count; ++i) to[rows[i] - start] = static_cast<T>(static_cast<int32_t>(from[i]));
}

// Positions of the query tokens start .. start + size, of which `rows` are present, at place `at`.
void Forward::write_positions(int64_t at, int64_t start, int64_t size, const int64_t* rows, int64_t count,
                              const float* from) const {
    if (positions_.bytes == 1) write(static_cast<uint8_t*>(positions_.data) + at, start, size, rows, count, from);
    if (positions_.bytes == 2) write(static_cast<int16_t*>(positions_.data) + at, start, size, rows, count, from);
    if (positions_.bytes == 4) write(static_cast<int32_t*>(positions_.data) + at, start, size, rows, count, from);
}

// Panels of whole queries, for about `tasks` tasks, but none so small that its document is read for nothing.
std::vector<Panel> Forward::cut(int64_t first, int64_t last, int64_t tasks, std::vector<int64_t>& rows,
                                std::vector<float>& factors) const {
    const int64_t tokens = problem_.query_offsets[last] - problem_.query_offsets[first];
    const int64_t most = std::max(kPanelRows, kPanelBytes / tile_bytes_ * kLanes);
    const int64_t least = std::clamp((tokens + tasks - 1) / tasks, kPanelRows, most);
    std::vector<Panel> panels;
    int64_t tile = 0;
    while (first < last) {
        Panel panel{first, first, static_cast<int64_t>(rows.size()), 0, tile};
        while (panel.last < last && panel.rows < least) {
            list_rows(panel.last++, rows, factors);
            panel.rows = static_cast<int64_t>(rows.size()) - panel.row;
        }
        first = panel.last;
        tile += tiles_for(panel.rows);
        panels.push_back(panel);
    }
    return panels;
}

void Forward::grid(int threads) {
    const int64_t queries = problem_.query_count, documents = problem_.document_count;
    const int64_t most = std::max<int64_t>(1, kGroupBytes / tile_bytes_) * kLanes;  // tokens
    std::vector<Worker> workers(threads);
    Buffer packed;
    for (int64_t first = 0, last; first < queries; first = last) {
        last = first + 1;
        while (last < queries && problem_.query_offsets[last + 1] - problem_.query_offsets[first] <= most) ++last;
        std::vector<int64_t> rows;
        std::vector<float> factors;
        const int64_t tasks = (4 * int64_t{threads} + documents - 1) / std::max<int64_t>(1, documents);
        const std::vector<Panel> panels = cut(first, last, tasks, rows, factors);
        const int64_t count = static_cast<int64_t>(panels.size());
        char* const tiles = packed.get((panels.back().tile + tiles_for(panels.back().rows)) * tile_bytes_);
        for (const Panel& panel : panels) {
            parallel_for(tiles_for(panel.rows), threads, [&](int64_t tile, int) {
                pack_tile(&rows[panel.row], panel.rows, tile, tiles + panel.tile * tile_bytes_);
            });
        }
        parallel_for(documents * count, threads, [&](int64_t task, int id) {
            const Panel& panel = panels[task / documents];
            const int64_t document = task % documents, start = problem_.query_offsets[panel.first];
            Worker& worker = workers[id];
            const int64_t* const mine = rows.data() + panel.row;
            bool any;
            {
                const Session session(kernel_);
                any = best(tiles + panel.tile * tile_bytes_, mine, panel.rows, document, worker);
            }
            if (positions_.data != nullptr) {
                write_positions(document * problem_.query_rows() + start, start,
                                problem_.query_offsets[panel.last] - start, mine, any ? panel.rows : 0,
                                reinterpret_cast<const float*>(worker.position.data()));
            }
            const float* const best = reinterpret_cast<const float*>(worker.best.data());
            for (int64_t query = panel.first, at = 0; query < panel.last; ++query) {
                int64_t size = 0;
                while (at + size < panel.rows && mine[at + size] < problem_.query_offsets[query + 1]) ++size;
                scores_[query * documents + document] = any ? weighted_sum(&factors[panel.row + at], best + at, size)
                                                            : -std::numeric_limits<float>::infinity();
                at += size;
            }
        });
    }
}

void Forward::pairs(int threads) {
    const int64_t pairs = problem_.pairs, width = problem_.max_query_length;
    const int64_t chunk = std::clamp<int64_t>(pairs / (8 * int64_t{threads}), 1, 256);
    std::vector<Worker> workers(threads);
    parallel_for((pairs + chunk - 1) / chunk, threads, [&](int64_t task, int id) {
        Worker& worker = workers[id];
        const Session session(kernel_);
        for (int64_t pair = task * chunk; pair < std::min(pairs, (task + 1) * chunk); ++pair) {
            const int64_t query = problem_.query_index[pair], start = problem_.query_offsets[query];
            if (query != worker.query) {
                worker.query_rows.clear();
                worker.factors.clear();
                list_rows(query, worker.query_rows, worker.factors);
                const int64_t rows = static_cast<int64_t>(worker.query_rows.size());
                char* const tiles = worker.tiles.get(tiles_for(rows) * tile_bytes_);
                for (int64_t tile = 0; tile < tiles_for(rows); ++tile) {
                    pack_tile(worker.query_rows.data(), rows, tile, tiles);
                }
                worker.query = query;
            }
            const int64_t rows = static_cast<int64_t>(worker.query_rows.size());
            const bool any =
                best(worker.tiles.data(), worker.query_rows.data(), rows, problem_.document_index[pair], worker);
            scores_[pair] =
                any ? weighted_sum(worker.factors.data(), reinterpret_cast<const float*>(worker.best.data()), rows)
                    : -std::numeric_limits<float>::infinity();
            if (positions_.data == nullptr) continue;
            write_positions(pair * width, start, width, worker.query_rows.data(), any ? rows : 0,
                            reinterpret_cast<const float*>(worker.position.data()));
        }
    });
}

}  // namespace

void forward(const Problem& problem, float* scores, Positions positions, int threads) {
    threads = threads_for(threads);
    Forward run(problem, scores, positions);
    problem.grid() ? run.grid(threads) : run.pairs(threads);
}

}  // namespace lateint::train
