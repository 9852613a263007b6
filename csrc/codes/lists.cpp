#include "codes/lists.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

// take(centroid, document) for each distinct pair, documents ascending.
template <class Take>
void each_posting(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                  const Take& take) {
    constexpr uint32_t kNone = 0xFFFFFFFFu;
    std::vector<uint32_t> last(count, kNone);  // the last document met at each centroid
    for (int64_t document = 0; document < documents; ++document) {
        if (document % 4096 == 0) check_interrupt();
        for (int64_t i = offsets[document]; i < offsets[document + 1]; ++i) {
            const uint32_t centroid = centroid_ids[i], name = static_cast<uint32_t>(document);
            if (last[centroid] == name) continue;
            last[centroid] = name;
            take(centroid, name);
        }
    }
}

}  // namespace

InvertedLists::InvertedLists(const int64_t* offsets, const uint32_t* documents, int64_t entries,
                             const uint32_t* centroids, int64_t lists, int64_t count)
    : offsets_(offsets), documents_(documents), entries_(entries), lists_(lists) {
    if (!centroids && lists == count) return;
    filled_.resize(count / 64 + 1);
    before_.resize(filled_.size());
    int64_t last = -1;
    for (int64_t l = 0; l < lists; ++l) {
        if (int64_t{centroids[l]} <= last || centroids[l] >= count)
            damaged("list_centroids must rise and be less than " + std::to_string(count) + ", found " +
                    std::to_string(centroids[l]));
        last = centroids[l];
        filled_[last / 64] |= uint64_t{1} << last % 64;
    }
    for (size_t w = 1; w < filled_.size(); ++w)
        before_[w] = before_[w - 1] + static_cast<uint32_t>(__builtin_popcountll(filled_[w - 1]));
}

void InvertedLists::refuse(Run run, uint32_t centroid) const {
    damaged("list_offsets of centroid " + std::to_string(centroid) + " are " + std::to_string(run.first) + ".." +
            std::to_string(run.end) + " of " + std::to_string(entries_));
}

void count_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    int64_t* list_offsets) {
    std::fill(list_offsets, list_offsets + count + 1, int64_t{0});
    each_posting(centroid_ids, offsets, documents, count,
                 [&](uint32_t centroid, uint32_t) { ++list_offsets[centroid + 1]; });
    for (int64_t c = 0; c < count; ++c) list_offsets[c + 1] += list_offsets[c];
}

void write_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    const int64_t* list_offsets, uint32_t* list_documents) {
    std::vector<int64_t> next(list_offsets, list_offsets + count);
    each_posting(centroid_ids, offsets, documents, count,
                 [&](uint32_t centroid, uint32_t document) { list_documents[next[centroid]++] = document; });
}

}  // namespace lateint::codes
