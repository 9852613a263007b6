// How postings are made, and how those of neighbouring segments become those of one.
#pragma once

#include <cstdint>
#include <vector>

#include "text/segment.hpp"

namespace lateint::text {

struct Terms {
    std::vector<uint8_t> term_bytes;
    std::vector<int64_t> term_offsets{0}, posting_offsets{0};
    std::vector<uint32_t> posting_documents;
};

// The arrays of a TextSegment, but for lengths.
struct TextPostings : Terms {
    std::vector<uint8_t> posting_counts;
    std::vector<int64_t> large_postings;
    std::vector<uint32_t> large_counts;

    void add(uint32_t document, uint32_t count);
};

// The arrays of a SparseSegment.
struct SparsePostings : Terms {
    std::vector<uint16_t> posting_weights;

    void add(uint32_t document, uint32_t weight);
};

// Without terms' bytes: document d has the terms term_numbers[offsets[d]] to term_numbers[offsets[d + 1] - 1], less
// than `terms`; in a sparse vector each once, with these weights.
TextPostings invert(const uint32_t* term_numbers, const int64_t* offsets, int64_t documents, int64_t terms);
SparsePostings invert(const uint32_t* term_numbers, const uint16_t* weights, const int64_t* offsets, int64_t documents,
                      int64_t terms);

constexpr uint32_t kLeftOut = 0xFFFFFFFFu;

// Those of documents of several segments. places[s][d]: the number that document d of segment s gets, or kLeftOut.
// Terms that no document has any more are left out. Throws if a segment is damaged.
TextPostings join(const std::vector<TextSegment>& segments, const std::vector<const uint32_t*>& places);
SparsePostings join(const std::vector<SparseSegment>& segments, const std::vector<const uint32_t*>& places);

}  // namespace lateint::text
