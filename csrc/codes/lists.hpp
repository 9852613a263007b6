// Inverted lists: how a search reads them and how a build makes them.
#pragma once

#include <cstdint>
#include <vector>

#include "platform/damaged.hpp"

namespace lateint::codes {

// A half-open range.
struct Run {
    int64_t first, end;
    int64_t size() const { return end - first; }
};

// Inverted lists: for each centroid the distinct documents with a token at it, ascending. Small segments store only the
// lists that are not empty, and which ones these are; a bit for each centroid then finds them.
class InvertedLists {
public:
    // Throws std::runtime_error if centroids are damaged; offsets are looked at when they are used.
    // offsets [lists + 1], documents [entries]; centroids [lists] ascending; null where all `count` have a list, or none has.
    InvertedLists(const int64_t* offsets, const uint32_t* documents, int64_t entries, const uint32_t* centroids,
                  int64_t lists, int64_t count);
    const uint32_t* documents() const { return documents_; }
    int64_t postings() const { return entries_; }
    int64_t filled() const { return lists_; }  // lists that are stored
    void prefetch(uint32_t centroid) const {
        if (filled_.empty()) __builtin_prefetch(offsets_ + centroid);
    }
    // Entries of the list of a centroid.
    Run of(uint32_t centroid) const {
        if (filled_.empty()) return at(centroid, centroid);
        const uint64_t word = filled_[centroid / 64], bit = uint64_t{1} << centroid % 64;
        if (!(word & bit)) return {0, 0};
        return at(before_[centroid / 64] + __builtin_popcountll(word & (bit - 1)), centroid);
    }

    // take(centroid, entries of its list) for each that is stored, centroids ascending.
    template <class Take>
    void each(const Take& take) const {
        if (filled_.empty()) {
            for (int64_t c = 0; c < lists_; ++c) take(static_cast<uint32_t>(c), at(c, c));
            return;
        }
        int64_t list = 0;
        for (size_t w = 0; w < filled_.size(); ++w) {
            for (uint64_t word = filled_[w]; word != 0; word &= word - 1) {
                const auto centroid = static_cast<uint32_t>(64 * w + __builtin_ctzll(word));
                take(centroid, at(list++, centroid));
            }
        }
    }

private:
    Run at(int64_t list, uint32_t centroid) const {
        const Run run = {offsets_[list], offsets_[list + 1]};
        if (run.first < 0 || run.end < run.first || run.end > entries_) refuse(run, centroid);
        return run;
    }
    [[noreturn]] void refuse(Run, uint32_t centroid) const;

    const int64_t* offsets_;
    const uint32_t* documents_;
    int64_t entries_, lists_;
    std::vector<uint64_t> filled_;  // bit c: centroid c has a list; empty where all have
    std::vector<uint32_t> before_;  // lists before each word of it
};

// The tokens of document p are [offsets[p], offsets[p + 1]), their centroids `centroid_ids`, less than `count`.

// list_offsets [count + 1]: where the list of each centroid begins, and their total length.
void count_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    int64_t* list_offsets);

// list_documents [list_offsets[count]]
void write_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    const int64_t* list_offsets, uint32_t* list_documents);

}  // namespace lateint::codes
