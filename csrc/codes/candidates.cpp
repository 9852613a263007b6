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
constexpr int64_t kProbesAhead = 8;              // likewise for where lists begin
constexpr int64_t kPostingsAPart = 8192;         // that are worth a thread
constexpr int64_t kNeighbours = 4096;            // postings between lists that are read from the disk at once
constexpr int64_t kImputedRank = 2;              // times nprobe: its score stands in for what was not found
constexpr double kCoarseRange = 1 << 20;         // the largest coarse sum a query can reach; a power of two

// Adds to an entry, unless the token was here before. A mask, not a branch: that is as good as random.
void touch(uint32_t& entry, uint32_t added, uint32_t tag) {
    const uint32_t last = entry & kTags;
    entry += (added - last) & -static_cast<uint32_t>(last != tag);
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
    if (most == 0) return;  // the prober has sorted them
    if (most < static_cast<int64_t>(wanted.size())) keep_gainful(most, scratch);
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

// The inverted lists of some centroids in a run, but for empty ones: what they have of some documents. Returns their
// postings.
int64_t Engine::open_lists(const ListedRun& run, const Wanted* wanted, int64_t count, Run documents, Part& part) const {
    const uint32_t* const all = run.lists->documents();
    part.lists.resize(count);
    List* const lists = part.lists.data();
    size_t open = 0;
    int64_t postings = 0;
    for (int64_t w = 0; w < count; ++w) {
        if (w + kProbesAhead < count) run.lists->prefetch(wanted[w + kProbesAhead].centroid);
        const Run list = run.lists->of(wanted[w].centroid);
        const uint32_t *first = all + list.first, *end = all + list.end;
        // Both from the whole list, so that the parts make up the list even if it is damaged and does not rise.
        const uint32_t* const from = documents.first > 0 ? std::lower_bound(first, end, documents.first) : first;
        const uint32_t* const to = documents.end < run.documents ? std::lower_bound(first, end, documents.end) : end;
        if (to < from) out_of_order(*from, run);
        lists[open] = {from, to, wanted[w].gain, wanted[w].token};
        open += from < to;
        postings += to - from;
    }
    part.open = open;
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
        // A document that is none of the range is of a later one; or of none, which check_ended notices.
        const uint32_t* const last = list.end - std::min(list.end - at, kDocumentsAhead);
        for (; at < last && *at - start < range; ++at) {
            __builtin_prefetch(board + std::min(at[kDocumentsAhead] - start, range - 1));
            touch(board[*at - start], added, tag);
        }
        for (; at < list.end && *at - start < range; ++at) touch(board[*at - start], added, tag);
        list.next = at;
    }
}

// Offers documents with these sums to part.best; `position` is that of the first one.
void Engine::take_best(const Entry* sums, int64_t position, int64_t size, const uint8_t* allowed, Part& part) const {
    const Int8Kernels& kernels = int8_kernels();
    uint32_t places[kScanned];
    for (int64_t from = 0; from < size; from += kScanned) {
        const Entry* const board = sums + from;
        const Entry bound = std::max<Entry>(static_cast<Entry>(part.best.bound()) << kTagBits, 1);
        const int64_t found = kernels.reaching(board, std::min(kScanned, size - from), bound, places);
        for (int64_t f = 0; f < found; ++f) {
            const int64_t at = position + from + places[f];
            if (allowed && !allowed[at]) continue;
            part.best.offer(static_cast<int32_t>(board[places[f]] >> kTagBits), static_cast<uint32_t>(at), kernels);
        }
    }
    if (part.counted) part.counts.touched += size - std::count(sums, sums + size, 0);
}

// What was added for the documents of the range at hand must be all that their lists have of them.
void Engine::check_ended(const ListedRun& run, const Part& part) const {
    for (size_t l = 0; l < part.open; ++l)
        if (part.lists[l].next < part.lists[l].end) out_of_order(*part.lists[l].next, run);
}

// Coarse scores of the documents of one of `parts` shares of each run; the best are in part.best.
void Engine::gather_documents(const uint8_t* allowed, const std::vector<ListedRun>& runs,
                              const std::vector<Wanted>& wanted, int64_t number, int64_t parts, Part& part) const {
    const int64_t range = documents() < kManyRanges * kRange ? kRange : 2 * kRange;
    part.make_room(std::min(range, documents()));
    int64_t before = 0;  // documents of earlier runs
    for (const ListedRun& run : runs) {
        const Run share = {run.documents * number / parts, run.documents * (number + 1) / parts};
        part.counts.postings += open_lists(run, wanted.data(), static_cast<int64_t>(wanted.size()), share, part);
        for (int64_t first = share.first; first < share.end; first += range) {
            check_interrupt();
            const int64_t size = std::min(range, share.end - first);
            score_range(first, size, part);
            take_best(part.board.data(), before + first, size, allowed, part);
        }
        check_ended(run, part);
        before += run.documents;
    }
    part.best.keep(int8_kernels());
}

// The same with a share of the query's tokens for each part, whose sums are added up in the end: for few documents,
// where that takes less time than to find them in each list.
void Engine::gather_tokens(const uint8_t* allowed, const std::vector<ListedRun>& runs, int threads, int64_t parts,
                           Scratch& scratch) const {
    const std::vector<Wanted>& wanted = scratch.wanted;
    std::vector<int64_t> begins;  // of the parts, in `wanted`
    for (int64_t number = 0; number <= parts; ++number) {
        auto at = static_cast<size_t>(static_cast<int64_t>(wanted.size()) * number / parts);
        while (at > 0 && at < wanted.size() && wanted[at].token == wanted[at - 1].token) ++at;
        begins.push_back(static_cast<int64_t>(at));
    }
    int64_t before = 0;
    for (const ListedRun& run : runs) {
        parallel_for(parts, threads, [&](int64_t number, int) {
            Part& part = scratch.parts[number];
            part.make_room(run.documents);
            const int64_t first = begins[number], count = begins[number + 1] - first;
            part.counts.postings += open_lists(run, wanted.data() + first, count, {0, run.documents}, part);
            score_range(0, run.documents, part);
            check_ended(run, part);
        });
        parallel_for(parts, threads, [&](int64_t number, int) {
            const int64_t first = run.documents * number / parts, end = run.documents * (number + 1) / parts;
            Entry* const sums = scratch.parts[0].board.data();
            for (int64_t other = 1; other < parts; ++other) {
                const Entry* const board = scratch.parts[other].board.data();
                // That a document was found is known by its tags.
                for (int64_t d = first; d < end; ++d) sums[d] = (sums[d] | (board[d] & kTags)) + (board[d] & ~kTags);
            }
            Part& part = scratch.parts[number];
            take_best(sums + first, before + first, end - first, allowed, part);
            part.best.keep(int8_kernels());
        });
        before += run.documents;
    }
}

// score(d) ~ sum_i m_i + sum over the query tokens that probe a centroid of d of (best such centroid's score - m_i):
// where no probed centroid holds a token of d, the score m_i of the 2 nprobe-th best centroid stands in (imputation as
// in XTR and WARP; docs/design.md has the ranks tried). Lists are visited best first, so the first touch of a document
// by a query token is its maximum; tags tell first touches apart and never need clearing. The best limits.candidates go
// to scratch.chosen.
void Engine::find_candidates(const Query& query, const SearchLimits& limits, const uint8_t* allowed, int threads,
                             Scratch& scratch, Reading& reading, SearchCounts* counts) const {
    scratch.chosen.clear();
    const int64_t candidates = std::clamp<int64_t>(limits.candidates, 0, documents());
    if (query.length == 0 || candidates == 0) return;
    const int64_t nprobe = std::clamp<int64_t>(limits.nprobe, 1, centroids.count);
    const int64_t lists = std::clamp<int64_t>(limits.lists, 0, nprobe);
    scratch.prober.run(centroids, *turned_, query.tiles.data(), static_cast<int>(query.length), kImputedRank * nprobe,
                       nprobe, lists == 0, limits.cells, threads);
    choose_lists(query, lists * query.length, scratch);
    const int64_t postings = postings_ / centroids.count * static_cast<int64_t>(scratch.wanted.size());
    const int64_t parts = std::clamp<int64_t>(postings / kPostingsAPart, 1, threads_for(threads));
    if (static_cast<int64_t>(scratch.parts.size()) < parts) scratch.parts.resize(parts);
    const std::vector<ListedRun>& runs = lists_.runs();  // the same for all parts
    if (reading.expected())
        for (const ListedRun& run : runs) read_ahead(run, scratch.wanted);
    for (int64_t part = 0; part < parts; ++part) scratch.parts[part].start(candidates, documents(), counts != nullptr);
    if (parts > 1 && documents() <= kRange && documents() * parts <= postings) {
        gather_tokens(allowed, runs, threads, parts, scratch);
    } else {
        parallel_for(parts, threads, [&](int64_t part, int) {
            gather_documents(allowed, runs, scratch.wanted, part, parts, scratch.parts[part]);
        });
    }
    lists_.opened(static_cast<int64_t>(scratch.wanted.size()));
    BestDocuments& best = scratch.parts[0].best;
    for (int64_t part = 0; part < parts; ++part) {
        const Part& one = scratch.parts[part];
        if (part > 0) best.offer(one.best, int8_kernels());
        if (counts) counts->postings += one.counts.postings, counts->touched += one.counts.touched;
    }
    best.keep(int8_kernels());
    scratch.chosen.take(best);
}

}  // namespace lateint::codes
