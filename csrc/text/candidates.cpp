// Which documents may be among the best: integer scores, added up on a scoreboard.
#include <algorithm>
#include <array>
#include <functional>

#include "platform/damaged.hpp"
#include "platform/threads.hpp"
#include "text/engine.hpp"

namespace lateint::text {
namespace {

constexpr int64_t kRange = 1 << 13;   // documents on the scoreboard at a time
constexpr int64_t kMany = 4;          // postings a document, from which documents are not listed as they come
constexpr double kLargest = 1 << 30;  // what the weights of a query sum up to, as integers
// An integer score is off by at most a part in 2^21, from up to eight operations in float32, and one for each term. Two
// documents may be off in opposite directions, and be equal once they are rounded to float32.
constexpr int64_t kDoubt = 2 * (1 << 9) + (1 << 7);

struct List {  // what is left of the postings of a term in the segment at hand
    Run left;
    int64_t begin;  // of all of them
    Share share;
    int64_t end;  // of those in the range at hand
};

// Keys order by score first and by lower position among equal ones.
uint64_t key_of(int32_t score, int64_t position) {
    return uint64_t(static_cast<uint32_t>(score)) << 32 | (~static_cast<uint32_t>(position) & 0xFFFFFFFFu);
}

int64_t score_of(uint64_t key) { return static_cast<int64_t>(key >> 32); }

// The documents of one range.
template <class Scoring>
class Board {
public:
    using Segment = typename Scoring::Segment;

    explicit Board(const Scoring& scoring) : scoring_(scoring) { scores_.fill(0); }

    // Adds the postings of lists in documents [first, first + kRange). Throws if they do not ascend.
    void add(const Segment& segment, List* lists, size_t n, int64_t first) {
        const int64_t documents = std::min(kRange, segment.documents - first);
        int64_t postings = 0;
        for (List* list = lists; list < lists + n; ++list) {
            list->end = segment.seek(list->left, static_cast<uint32_t>(first + documents));
            postings += list->end - list->left.first;
        }
        // Where there are many, documents are looked through afterwards instead.
        const bool listed = postings < kMany * documents;
        for (List* list = lists; list < lists + n; ++list) {
            for (; list->left.first < list->end; list->left.first += kChunk) {
                const int64_t left = std::min(kChunk, list->end - list->left.first);
                listed ? add_chunk<true>(segment, *list, list->left.first, left, first)
                       : add_chunk<false>(segment, *list, list->left.first, left, first);
            }
            list->left.first = list->end;
        }
        for (int64_t d = 0; !listed && d < documents; ++d) {
            touched_[count_] = static_cast<uint32_t>(d);
            count_ += scores_[d] != 0;
        }
    }

    int64_t touched() const { return count_; }
    uint32_t document(int64_t i) const { return touched_[i]; }
    int32_t score(int64_t i) const { return scores_[touched_[i]]; }

    // Leaves those that keep(document, score) likes.
    template <class Keep>
    void filter(const Keep& keep) {
        int64_t kept = 0;
        for (int64_t i = 0; i < count_; ++i) {
            const uint32_t document = touched_[i];
            touched_[kept] = document;
            if (keep(document, scores_[document]))
                ++kept;
            else
                scores_[document] = 0;
        }
        count_ = kept;
    }
    void sort() { std::sort(touched_.begin(), touched_.begin() + count_); }
    // Adds a list to those that are there alone, which ascend.
    void look_up(const Segment& segment, List& list, int64_t first) {
        for (int64_t i = 0; i < count_; ++i) {
            const uint32_t local = touched_[i];
            const auto document = static_cast<uint32_t>(first) + local;
            list.left.first = segment.seek(list.left, document);
            if (list.left.size() == 0) return;
            if (segment.posting_documents[list.left.first] != document) continue;
            scores_[local] += scoring_.gain(segment, list.share, list.left.first);
        }
    }
    void clear() {
        for (int64_t i = 0; i < count_; ++i) scores_[touched_[i]] = 0;
        count_ = 0;
    }

private:
    template <bool kListed>
    void add_chunk(const Segment& segment, const List& list, int64_t posting, int64_t n, int64_t first) {
        const uint32_t* const documents = segment.posting_documents + posting;
        std::array<uint32_t, kChunk> local;
        std::array<int32_t, kChunk> gains;
        const auto start = static_cast<uint32_t>(first);
        const auto range = static_cast<uint32_t>(std::min(kRange, segment.documents - first));
        uint32_t wrong = 0;
        for (int64_t i = 0; i < n; ++i) {
            local[i] = documents[i] - start;
            wrong |= static_cast<uint32_t>(local[i] >= range);
        }
        for (int64_t i = 1; i < n; ++i) wrong |= static_cast<uint32_t>(documents[i] <= documents[i - 1]);
        if (wrong || (posting > list.begin && documents[0] <= documents[-1])) {
            damaged("posting_documents must ascend and stay below " + std::to_string(segment.documents));
        }
        scoring_.gains(segment, list.share, posting, n, gains.data());
        for (int64_t i = 0; i < n; ++i) {
            const int32_t known = scores_[local[i]];
            if constexpr (kListed) {
                touched_[count_] = local[i];
                count_ += known == 0;
            }
            scores_[local[i]] = known + gains[i];
        }
    }

    const Scoring& scoring_;
    std::array<int32_t, kRange> scores_;
    std::array<uint32_t, kRange + 1> touched_;  // one is written before it is known to be new
    int64_t count_ = 0;
};

// Keys of the best documents so far, and how good others must be to matter.
class Best {
public:
    Best(int64_t k, int64_t doubt) : k_(k), doubt_(doubt) {}

    int64_t least() const { return least_; }
    void add(int32_t score, int64_t position) { keys_.push_back(key_of(score, position)); }
    // Whoever is among the k best by their exact scores has an integer score of at least the k-th best, less the doubt.
    void tighten() {
        if (keys_.size() == known_ || static_cast<int64_t>(keys_.size()) < k_) return;
        std::nth_element(keys_.begin(), keys_.begin() + (k_ - 1), keys_.end(), std::greater<uint64_t>());
        least_ = std::max(least_, score_of(keys_[k_ - 1]) - doubt_);
        keys_.erase(std::remove_if(keys_.begin(), keys_.end(), [&](uint64_t key) { return score_of(key) < least_; }),
                    keys_.end());
        known_ = keys_.size();
    }
    std::vector<int64_t> positions() const {
        std::vector<int64_t> positions;
        for (const uint64_t key : keys_) positions.push_back(int64_t(~static_cast<uint32_t>(key)));
        return positions;
    }

private:
    const int64_t k_, doubt_;
    int64_t least_ = 1;
    size_t known_ = 0;
    std::vector<uint64_t> keys_;
};

}  // namespace

// Lists are sorted by what they can add, most first. As soon as those from some list on cannot make a document good
// enough together, they are only looked up for documents that the lists before them found (MaxScore: Turtle and Flood
// 1995), range by range.
template <class Scoring>
std::vector<int64_t> Engine<Scoring>::candidates(const std::vector<Wanted>& wanted, int64_t k,
                                                 const uint8_t* allowed) const {
    if (wanted.empty()) return {};
    if (!allowed) allowed = this->live;
    double sum = 0;
    std::vector<const Wanted*> terms;
    for (const Wanted& term : wanted) {
        sum += term.weight * term.largest;
        terms.push_back(&term);
    }
    std::stable_sort(terms.begin(), terms.end(),
                     [](auto a, auto b) { return a->weight * a->largest > b->weight * b->largest; });
    const size_t n = terms.size();
    std::vector<Share> shares(n);
    std::vector<int64_t> most(n), rest(n + 1, 0);  // what a list can add, and what it and those after it can
    for (size_t t = n; t-- > 0;) {
        shares[t] = {static_cast<float>(terms[t]->weight / sum * kLargest), terms[t]->largest};
        most[t] = static_cast<int64_t>(shares[t].weight * shares[t].largest) + 1;
        rest[t] = rest[t + 1] + most[t];
    }
    Board<Scoring> board(*this);
    Best best(std::min(k, this->documents()), kDoubt + 2 * static_cast<int64_t>(n));
    size_t walked = n;  // lists that are read whole
    std::vector<List> lists(n);
    for (size_t s = 0; s < this->segments.size(); ++s) {
        const typename Scoring::Segment& segment = this->segments[s];
        bool any = false;
        for (size_t t = 0; t < n; ++t) {
            const int64_t number = terms[t]->numbers[s];
            const Run run = number < 0 ? Run{0, 0} : segment.run(number);
            lists[t] = {run, run.first, shares[t], run.first};
            any |= run.size() > 0;
        }
        if (!any) continue;
        for (int64_t first = 0; first < segment.documents; first += kRange) {
            check_interrupt();
            while (walked > 0 && rest[walked - 1] < best.least()) --walked;
            board.add(segment, lists.data(), walked, first);
            const uint8_t* const here = allowed ? allowed + this->first_position[s] + first : nullptr;
            const auto good = [&](int64_t later) {
                return [&, later](uint32_t, int32_t score) { return score + later >= best.least(); };
            };
            board.filter([&](uint32_t document, int32_t score) {
                return score + rest[walked] >= best.least() && (!here || here[document]);
            });
            if (walked < n) board.sort();
            for (size_t t = walked; t < n; ++t) {
                board.look_up(segment, lists[t], first);
                board.filter(good(rest[t + 1]));
            }
            for (int64_t i = 0; i < board.touched(); ++i)
                best.add(board.score(i), this->first_position[s] + first + board.document(i));
            board.clear();
            best.tighten();
        }
        for (size_t t = 0; t < walked; ++t)
            if (lists[t].left.size() > 0) {
                damaged("posting_documents must ascend and stay below " + std::to_string(segment.documents));
            }
    }
    return best.positions();
}

template std::vector<int64_t> Engine<Bm25>::candidates(const std::vector<Wanted>&, int64_t, const uint8_t*) const;
template std::vector<int64_t> Engine<Impacts>::candidates(const std::vector<Wanted>&, int64_t, const uint8_t*) const;

}  // namespace lateint::text
