// The first stage of a search: coarse scores from inverted lists, added up on a scoreboard.
#include <algorithm>
#include <functional>
#include <limits>

#include "codes/engine.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int64_t kRange = 1 << 16;       // documents on the scoreboard at a time: half a megabyte
constexpr size_t kListsAhead = 4;         // lists between the prefetch of their documents and their use
constexpr size_t kProbesAhead = 8;        // likewise for where lists begin
constexpr int64_t kImputedRank = 2;       // times nprobe: the centroid whose score stands in for what was not found
constexpr double kCoarseRange = 1 << 30;  // the largest coarse sum a query can reach

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

// The centroids that the query looks into, by token, best first, and what a document gains there.
void Engine::choose_lists(const Query& query, Scratch& scratch) const {
    const Prober& prober = scratch.prober;
    double range = 0;
    for (int i = 0; i < query.length; ++i)
        if (prober.size(i) > 0) range += query.scales[i] * (double(prober.of(i)[0].score) - prober.least(i));
    const double unit = kCoarseRange / std::max(range, 1e-30);
    scratch.unit = unit;
    scratch.wanted.clear();
    for (int i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(i);
        const int32_t imputed = prober.least(i);
        for (int64_t p = 0; p < prober.size(i); ++p) {
            const auto gain = static_cast<int32_t>(query.scales[i] * (double(probes[p].score) - imputed) * unit);
            scratch.wanted.push_back({probes[p].centroid, gain, static_cast<uint32_t>(i)});
        }
    }
    scratch.lists.resize(scratch.wanted.size());
}

// The inverted lists that the query reads in a run of documents, but for empty ones. Returns their postings.
int64_t Engine::open_lists(const InvertedLists& inverted, Scratch& scratch) const {
    const std::vector<Wanted>& wanted = scratch.wanted;
    const uint32_t* documents = inverted.documents();
    List* const lists = scratch.lists.data();
    size_t count = 0;
    int64_t postings = 0;
    for (size_t w = 0; w < wanted.size(); ++w) {
        if (w + kProbesAhead < wanted.size()) inverted.prefetch(wanted[w + kProbesAhead].centroid);
        const Run list = inverted.of(wanted[w].centroid);
        lists[count] = {documents + list.first, documents + list.end, wanted[w].gain, wanted[w].token};
        count += list.size() > 0;
        postings += list.size();
    }
    scratch.open = count;
    return postings;
}

// Adds up the coarse scores of documents [first, first + size) of a run; returns how many were touched. The range
// is small enough for its scoreboard to stay in the second-level cache.
int64_t Engine::score_range(const Query& query, int64_t first, int64_t size, Scratch& scratch) const {
    Entry* board = scratch.board.data();
    uint32_t* touched = scratch.touched.data();
    int64_t count = 0;
    if (scratch.next_tag > std::numeric_limits<uint32_t>::max() - static_cast<uint32_t>(query.length)) {
        std::fill(scratch.board.begin(), scratch.board.end(), Entry{0, 0});
        scratch.next_tag = 1;
    }
    const uint32_t first_tag = scratch.next_tag, range = static_cast<uint32_t>(size);
    for (size_t l = 0; l < scratch.open; ++l) {
        List& list = scratch.lists[l];
        const uint32_t tag = first_tag + list.token;
        if (l + kListsAhead < scratch.open) {
            const List& ahead = scratch.lists[l + kListsAhead];
            for (const uint32_t* line = ahead.next; line < std::min(ahead.end, ahead.next + 128); line += 16)
                __builtin_prefetch(line);
        }
        const uint32_t* at = list.next;
        for (; at < list.end; ++at) {
            const uint32_t local = *at - static_cast<uint32_t>(first);
            if (local >= range) break;  // of a later range; or of none, which find_candidates notices
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
    scratch.chosen.clear();
    scratch.keys.clear();
    if (query.length == 0) return;
    const int64_t nprobe = std::clamp<int64_t>(limits.nprobe, 1, centroids.count);
    const int64_t candidates = std::clamp<int64_t>(limits.candidates, 0, documents());
    scratch.prober.run(centroids, query.tiles.data(), static_cast<int>(query.length), kImputedRank * nprobe, nprobe,
                       limits.cells, threads);
    choose_lists(query, scratch);
    const auto room = static_cast<size_t>(std::min(kRange, documents()));
    if (scratch.board.size() < room) scratch.board.resize(room, Entry{0, 0});
    if (scratch.touched.size() < room + 1)
        scratch.touched.resize(room + 1);  // one is written before it is known to be new
    const auto most = static_cast<size_t>(std::max<int64_t>(4 * candidates, 4096));
    std::vector<uint64_t>& keys = scratch.keys;
    keys.clear();
    uint64_t least = 0;
    int64_t before = 0;  // documents of earlier runs
    for (const ListedRun& run : lists_.runs()) {
        const int64_t postings = open_lists(*run.lists, scratch);
        if (counts) counts->postings += postings;
        for (int64_t first = 0; first < run.documents; first += kRange) {
            check_interrupt();
            const int64_t touched = score_range(query, first, std::min(kRange, run.documents - first), scratch);
            if (counts) counts->touched += touched;
            for (int64_t t = 0; t < touched; ++t) {
                const uint32_t local = scratch.touched[t];
                const int64_t position = before + first + local;
                const uint64_t key = key_of(scratch.board[local].sum, position);
                if (key < least || (allowed && !allowed[position])) continue;
                keys.push_back(key);
                if (keys.size() < most) continue;
                keep_best(keys, candidates);
                least = *std::min_element(keys.begin(), keys.end());
            }
        }
        for (size_t l = 0; l < scratch.open; ++l) {
            const List& list = scratch.lists[l];
            if (list.next < list.end) {
                damaged("list_documents holds " + std::to_string(*list.next) + " out of order, or beyond the " +
                        std::to_string(run.documents) + " documents of its segment");
            }
        }
        before += run.documents;
    }
    lists_.opened(static_cast<int64_t>(scratch.wanted.size()));
    keep_best(keys, candidates);
    std::sort(keys.begin(), keys.end(), std::greater<uint64_t>());
    for (uint64_t key : keys)
        scratch.chosen.push_back({static_cast<float>(key >> 32), int64_t(~static_cast<uint32_t>(key))});
}

}  // namespace lateint::codes
