// The postings of a segment: which documents have a term, and how often or with what weight.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace lateint::text {

// A half-open range of postings.
struct Run {
    int64_t first, end;
    int64_t size() const { return end - first; }
};

// Arrays may be memory-mapped files that somebody else made: what is read from them is checked before it is used as a
// place. What throws says std::runtime_error.
struct Lists {
    int64_t documents;

    int64_t terms;
    const uint8_t* term_bytes;  // [byte_count]: all terms in UTF-8, ascending by bytes, end to end
    int64_t byte_count;
    const int64_t* term_offsets;  // [terms + 1]

    const int64_t* posting_offsets;     // [terms + 1]
    const uint32_t* posting_documents;  // [postings]: of each term, ascending
    int64_t postings;

    std::string_view term(int64_t number) const;
    // The number of a term, or -1.
    int64_t find(std::string_view term) const;
    Run run(int64_t number) const;
    // The first posting of the run whose document is at least so large, or where the run ends; near ones are found
    // fast.
    int64_t seek(Run run, uint32_t document) const;
};

constexpr uint8_t kLarge = 255;  // a count that is written elsewhere, being at least so large

// The words of texts.
struct TextSegment : Lists {
    const uint32_t* lengths;        // [documents]: terms of each, repeated ones included
    const uint8_t* posting_counts;  // [postings]: how often the document has the term, or kLarge
    const int64_t* large_postings;  // [large]: postings with kLarge, ascending
    const uint32_t* large_counts;   // [large]
    int64_t large;

    // How often the document of a posting has its term.
    uint32_t value(int64_t posting) const {
        return posting_counts[posting] < kLarge ? posting_counts[posting] : large_count(posting);
    }
    int32_t length(int64_t document) const { return static_cast<int32_t>(lengths[document] & 0x7FFFFFFF); }

private:
    uint32_t large_count(int64_t posting) const;
};

// Sparse vectors.
struct SparseSegment : Lists {
    const uint16_t* posting_weights;  // [postings]: the bits of a float16, above 0 and finite

    uint16_t value(int64_t posting) const { return posting_weights[posting]; }
};

// Whether these bits are those of a weight.
inline bool is_weight(uint16_t bits) { return static_cast<uint16_t>(bits - 1) < 0x7BFF; }

// Throws if anything in the arrays is not as docs/format.md says.
void check(const TextSegment&);
void check(const SparseSegment&);

}  // namespace lateint::text
