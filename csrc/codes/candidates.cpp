// The first stage of a search: coarse scores from inverted lists, added up on a scoreboard.
#include <algorithm>
#include <functional>
#include <limits>

#include "codes/engine.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int kTagBits = 11;                     // of an entry of the scoreboard
constexpr uint32_t kTags = (1 << kTagBits) - 1;  // these bits; all set: a token of an earlier turn
constexpr uint32_t kTurn = kTags - 1;            // query tokens that have tags of their own
constexpr int64_t kRange = 1 << 18;              // documents on the scoreboard at a time: one megabyte ...
constexpr int64_t kManyRanges = 8;               // ... or two: where there are so many, of a list each has little
constexpr int64_t kDocumentsAhead = 12;          // in a list, between the prefetch of their entries and their use
constexpr int64_t kScanned = 1 << 12;            // entries that are looked through at a time
constexpr size_t kListsAhead = 4;                // lists between the prefetch of their documents and their use
constexpr size_t kProbesAhead = 8;               // likewise for where lists begin
constexpr int64_t kPostingsAPart = 8192;         // that are worth a thread
constexpr int64_t kNeighbours = 4096;            // postings between lists that are read from the disk at once
constexpr int64_t kImputedRank = 2;              // times nprobe: its score stands in for what was not found
constexpr double kCoarseRange = 1 << 20;         // the largest coarse sum a query can reach; a power of two

// A key orders by coarse sum first and by lower position among equal sums.
uint64_t key_of(int32_t sum, int64_t position) {
    return uint64_t(static_cast<uint32_t>(sum)) << 32 | (~static_cast<uint32_t>(position) & 0xFFFFFFFFu);
}

// Adds to an entry, unless the token was here before. A mask, not a branch: that is as good as random.
void touch(uint32_t& entry, uint32_t added, uint32_t tag) {
    const uint32_t last = entry & kTags;
    entry += (added - last) & -static_cast<uint32_t>(last != tag);
}

void keep_best(std::vector<uint64_t>& keys, int64_t count) {
    if (static_cast<int64_t>(keys.size()) <= count) return;
    std::nth_element(keys.begin(), keys.begin() + count, keys.end(), std::greater<uint64_t>());
    keys.resize(count);
}

int32_t best_score(const Prober& prober, int token) {
    const Probe* const probes = prober.of(token);
    int32_t best = probes[0].score;
    for (int64_t p = 1; p < prober.size(token); ++p) best = std::max(best, probes[p].score);
    return best;
}

[[noreturn]] void out_of_order(uint32_t document, const ListedRun& run) {
    damaged("list_documents holds " + std::to_string(document) + " out of order, or beyond the " +
            std::to_string(run.documents) + " documents of its segment");
}

}  // namespace

// The centroids that the query looks into, by token, best first, and what a document gains there. With `most` > 0 only
// so many, those of all tokens that gain most, and what gains as much as the last of them.
void Engine::choose_lists(const Query& query, int64_t most, Scratch& scratch) const {
    const Prober& prober = scratch.prober;
    double range = 0;
    for (int i = 0; i < query.length; ++i)
        if (prober.size(i) > 0) range += query.scales[i] * (double(best_score(prober, i)) - prober.least(i));
    const double unit = kCoarseRange / std::max(range, 1e-30);
    scratch.unit = unit;
    std::vector<Wanted>& wanted = scratch.wanted;
    wanted.clear();
    for (int i = 0; i < query.length; ++i) {
        const Probe* probes = prober.of(i);
        const int32_t imputed = prober.least(i);
        for (int64_t p = 0; p < prober.size(i); ++p) {
            const auto gain = static_cast<int32_t>(query.scales[i] * (double(probes[p].score) - imputed) * unit);
            wanted.push_back({probes[p].centroid, gain, static_cast<uint32_t>(i)});
        }
    }
    if (most > 0 && most < static_cast<int64_t>(wanted.size())) keep_gainful(most, scratch);
    // Only what is left is sorted. Lists that gain the same may come in any order.
    for (auto begin = wanted.begin(), end = begin; begin != wanted.end(); begin = end) {
        while (end != wanted.end() && end->token == begin->token) ++end;
        std::sort(begin, end, [](const Wanted& a, const Wanted& b) { return a.gain > b.gain; });
    }
}

void Engine::keep_gainful(int64_t most, Scratch& scratch) {
    std::vector<int32_t>& gains = scratch.gains;
    gains.clear();
    for (const Wanted& one : scratch.wanted) gains.push_back(one.gain);
    const auto last = gains.begin() + (most - 1);
    std::nth_element(gains.begin(), last, gains.end(), std::greater<int32_t>());
    const auto gains_less = [least = *last](const Wanted& one) { return one.gain < least; };
    scratch.wanted.erase(std::remove_if(scratch.wanted.begin(), scratch.wanted.end(), gains_less),
                         scratch.wanted.end());
}

// Lists from the disk into memory; what lies between neighbours comes with them.
void Engine::read_ahead(const ListedRun& run, const std::vector<Wanted>& wanted) const {
    std::vector<Run> lists;
    for (const Wanted& one : wanted) lists.push_back(run.lists->of(one.centroid));
    std::sort(lists.begin(), lists.end(), [](const Run& a, const Run& b) { return a.first < b.first; });
    for (size_t l = 0; l < lists.size();) {
        Run together = lists[l++];
        for (; l < lists.size() && lists[l].first <= together.end + kNeighbours; ++l)
            together.end = std::max(together.end, lists[l].end);
        lateint::read_ahead(run.lists->documents() + together.first, together.size() * int64_t{sizeof(uint32_t)});
    }
}

// The inverted lists that the query reads in a run, but for empty ones: what they have of some documents. Returns their
// postings.
int64_t Engine::open_lists(const ListedRun& run, const std::vector<Wanted>& wanted, Run documents, Part& part) const {
    const uint32_t* const all = run.lists->documents();
    List* const lists = part.lists.data();
    size_t count = 0;
    int64_t postings = 0;
    for (size_t w = 0; w < wanted.size(); ++w) {
        if (w + kProbesAhead < wanted.size()) run.lists->prefetch(wanted[w + kProbesAhead].centroid);
        const Run list = run.lists->of(wanted[w].centroid);
        const uint32_t *first = all + list.first, *end = all + list.end;
        // Both from the whole list, so that the parts make up the list even if it is damaged and does not rise.
        const uint32_t* const from = documents.first > 0 ? std::lower_bound(first, end, documents.first) : first;
        const uint32_t* const to = documents.end < run.documents ? std::lower_bound(first, end, documents.end) : end;
        if (to < from) out_of_order(*from, run);
        lists[count] = {from, to, wanted[w].gain, wanted[w].token};
        count += from < to;
        postings += to - from;
    }
    part.open = count;
    return postings;
}

// Adds up the coarse scores of documents [first, first + size) of a run on part.board. The range is small enough for
// the board to stay in the last-level cache, and so large that a list has many documents in it.
void Engine::score_range(int64_t first, int64_t size, Part& part) const {
    Entry* const board = part.board.data();
    std::fill_n(board, size, Entry{0});
    const auto start = static_cast<uint32_t>(first), range = static_cast<uint32_t>(size);
    uint32_t turn = 0;
    for (size_t l = 0; l < part.open; ++l) {
        List& list = part.lists[l];
        if (l + kListsAhead < part.open) {
            const List& ahead = part.lists[l + kListsAhead];
            for (const uint32_t* line = ahead.next; line < std::min(ahead.end, ahead.next + 128); line += 16)
                __builtin_prefetch(line);
        }
        if (list.token / kTurn != turn) {
            turn = list.token / kTurn;
            for (int64_t d = 0; d < size; ++d) board[d] |= (board[d] & kTags) != 0 ? kTags : 0;
        }
        const Entry tag = list.token % kTurn + 1, added = (static_cast<Entry>(list.gain) << kTagBits) + tag;
        const uint32_t* at = list.next;
        // A document that is none of the range is of a later one; or of none, which gather_part notices.
        const uint32_t* const last = list.end - std::min(list.end - at, kDocumentsAhead);
        for (; at < last && *at - start < range; ++at) {
            __builtin_prefetch(board + std::min(at[kDocumentsAhead] - start, range - 1));
            touch(board[*at - start], added, tag);
        }
        for (; at < list.end && *at - start < range; ++at) touch(board[*at - start], added, tag);
        list.next = at;
    }
}

// The documents of the range at hand that may be among the best `candidates` go to part.keys; `position` is that of the
// first one.
void Engine::take_best(int64_t position, int64_t size, int64_t candidates, const uint8_t* allowed, Part& part) const {
    const Int8Kernels& kernels = int8_kernels();
    const auto most = static_cast<size_t>(std::max<int64_t>(4 * candidates, 4096));
    std::vector<uint64_t>& keys = part.keys;
    uint32_t places[kScanned];
    for (int64_t from = 0; from < size; from += kScanned) {
        const Entry* const board = part.board.data() + from;
        const Entry bound = std::max<Entry>(static_cast<Entry>(part.least >> 32) << kTagBits, 1);
        const int64_t found = kernels.reaching(board, std::min(kScanned, size - from), bound, places);
        for (int64_t f = 0; f < found; ++f) {
            const int64_t at = position + from + places[f];
            const uint64_t key = key_of(static_cast<int32_t>(board[places[f]] >> kTagBits), at);
            if (key < part.least || (allowed && !allowed[at])) continue;
            keys.push_back(key);
            if (keys.size() < most) continue;
            keep_best(keys, candidates);
            part.least = *std::min_element(keys.begin(), keys.end());
        }
    }
}

// Coarse scores of the documents of one of `parts` shares of each run; the best `candidates` are in part.keys.
void Engine::gather_part(int64_t candidates, const uint8_t* allowed, const std::vector<ListedRun>& runs,
                         const std::vector<Wanted>& wanted, int64_t number, int64_t parts, Part& part) const {
    const int64_t range = documents() < kManyRanges * kRange ? kRange : 2 * kRange;
    const auto room = static_cast<size_t>(std::min(range, documents()));
    if (part.board.size() < room) part.board.resize(room);
    part.lists.resize(wanted.size());
    part.keys.clear();
    part.least = 0;
    part.counts = {};
    int64_t before = 0;  // documents of earlier runs
    for (const ListedRun& run : runs) {
        const Run share = {run.documents * number / parts, run.documents * (number + 1) / parts};
        part.counts.postings += open_lists(run, wanted, share, part);
        for (int64_t first = share.first; first < share.end; first += range) {
            check_interrupt();
            const int64_t size = std::min(range, share.end - first);
            score_range(first, size, part);
            take_best(before + first, size, candidates, allowed, part);
            if (part.counted)
                part.counts.touched += size - std::count(part.board.begin(), part.board.begin() + size, 0);
        }
        for (size_t l = 0; l < part.open; ++l)
            if (part.lists[l].next < part.lists[l].end) out_of_order(*part.lists[l].next, run);
        before += run.documents;
    }
    keep_best(part.keys, candidates);
}

// score(d) ~ sum_i m_i + sum over the query tokens that probe a centroid of d of (best such centroid's score - m_i):
// where no probed centroid holds a token of d, the score m_i of the 2 nprobe-th best centroid stands in (imputation as
// in XTR and WARP; docs/design.md has the ranks tried). Lists are visited best first, so the first touch of a document
// by a query token is its maximum; tags tell first touches apart and never need clearing. The best limits.candidates go
// to scratch.chosen, best first.
void Engine::find_candidates(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                             Scratch& scratch, Reading& reading, SearchCounts* counts) const {
    scratch.chosen.clear();
    if (query.length == 0) return;
    const int64_t nprobe = std::clamp<int64_t>(limits.nprobe, 1, centroids.count);
    const int64_t candidates = std::clamp<int64_t>(limits.candidates, 0, documents());
    scratch.prober.run(centroids, *turned_, query.tiles.data(), static_cast<int>(query.length), kImputedRank * nprobe,
                       nprobe, limits.cells, threads);
    choose_lists(query, std::clamp<int64_t>(limits.lists, 0, nprobe) * query.length, scratch);
    const int64_t postings = postings_ / centroids.count * static_cast<int64_t>(scratch.wanted.size());
    const int64_t parts = std::clamp<int64_t>(postings / kPostingsAPart, 1, threads_for(threads));
    if (static_cast<int64_t>(scratch.parts.size()) < parts) scratch.parts.resize(parts);
    const std::vector<ListedRun>& runs = lists_.runs();  // the same for all parts
    if (reading.expected())
        for (const ListedRun& run : runs) read_ahead(run, scratch.wanted);
    parallel_for(parts, threads, [&](int64_t part, int) {
        scratch.parts[part].counted = counts != nullptr;
        gather_part(candidates, allowed, runs, scratch.wanted, part, parts, scratch.parts[part]);
    });
    lists_.opened(static_cast<int64_t>(scratch.wanted.size()));
    std::vector<uint64_t>& keys = scratch.parts[0].keys;
    for (int64_t part = 0; part < parts; ++part) {
        const Part& one = scratch.parts[part];
        if (part > 0) keys.insert(keys.end(), one.keys.begin(), one.keys.end());
        if (counts) counts->postings += one.counts.postings, counts->touched += one.counts.touched;
    }
    keep_best(keys, candidates);
    std::sort(keys.begin(), keys.end(), std::greater<uint64_t>());
    for (uint64_t key : keys)
        scratch.chosen.push_back({static_cast<int64_t>(key >> 32), int64_t(~static_cast<uint32_t>(key))});
}

}  // namespace lateint::codes
