// Inverted lists: for each centroid the distinct documents with a token at it, ascending.
#pragma once

#include <cstdint>

namespace lateint::codes {

// The tokens of document p are [offsets[p], offsets[p + 1]), their centroids `centroid_ids`, less than `count`.

// list_offsets [count + 1]: where the list of each centroid begins, and their total length.
void count_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    int64_t* list_offsets);

// list_documents [list_offsets[count]]
void write_postings(const uint32_t* centroid_ids, const int64_t* offsets, int64_t documents, int64_t count,
                    const int64_t* list_offsets, uint32_t* list_documents);

}  // namespace lateint::codes
