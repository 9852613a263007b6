#include "text/building.hpp"

#include <algorithm>
#include <queue>
#include <string>
#include <utility>

#include "platform/damaged.hpp"
#include "platform/threads.hpp"

namespace lateint::text {

void TextPostings::add(uint32_t document, uint32_t count) {
    if (count >= kLarge) {
        large_postings.push_back(static_cast<int64_t>(posting_documents.size()));
        large_counts.push_back(count);
    }
    posting_documents.push_back(document);
    posting_counts.push_back(static_cast<uint8_t>(std::min<uint32_t>(count, kLarge)));
}

void SparsePostings::add(uint32_t document, uint32_t weight) {
    posting_documents.push_back(document);
    posting_weights.push_back(static_cast<uint16_t>(weight));
}

namespace {

// Calls put(to, document, from) for all terms of documents, sorted by term, in the order of documents. Returns where
// those of each term end.
template <class Put>
std::vector<int64_t> sort_by_term(const uint32_t* term_numbers, const int64_t* offsets, int64_t documents,
                                  int64_t terms, const Put& put) {
    std::vector<int64_t> next(terms + 1, 0);
    for (int64_t i = 0; i < offsets[documents]; ++i) ++next[term_numbers[i] + 1];
    for (int64_t t = 0; t < terms; ++t) next[t + 1] += next[t];
    for (int64_t d = 0; d < documents; ++d) {
        if (d % 4096 == 0) check_interrupt();
        for (int64_t i = offsets[d]; i < offsets[d + 1]; ++i) put(next[term_numbers[i]]++, static_cast<uint32_t>(d), i);
    }
    next.pop_back();
    return next;
}

}  // namespace

// A document that has a term twice comes twice in a row.
TextPostings invert(const uint32_t* term_numbers, const int64_t* offsets, int64_t documents, int64_t terms) {
    std::vector<uint32_t> sorted(offsets[documents]);
    const std::vector<int64_t> next =
        sort_by_term(term_numbers, offsets, documents, terms,
                     [&](int64_t to, uint32_t document, int64_t) { sorted[to] = document; });
    TextPostings postings;
    size_t i = 0;
    for (int64_t t = 0; t < terms; ++t) {
        if (t % 4096 == 0) check_interrupt();
        for (const auto end = static_cast<size_t>(next[t]); i < end;) {
            const size_t first = i;
            while (i < end && sorted[i] == sorted[first]) ++i;
            postings.add(sorted[first], static_cast<uint32_t>(i - first));
        }
        postings.posting_offsets.push_back(static_cast<int64_t>(postings.posting_documents.size()));
    }
    return postings;
}

SparsePostings invert(const uint32_t* term_numbers, const uint16_t* weights, const int64_t* offsets, int64_t documents,
                      int64_t terms) {
    SparsePostings postings;
    postings.posting_documents.resize(offsets[documents]);
    postings.posting_weights.resize(offsets[documents]);
    const std::vector<int64_t> ends =
        sort_by_term(term_numbers, offsets, documents, terms, [&](int64_t to, uint32_t document, int64_t from) {
            postings.posting_documents[to] = document;
            postings.posting_weights[to] = weights[from];
        });
    postings.posting_offsets.insert(postings.posting_offsets.end(), ends.begin(), ends.end());
    return postings;
}

namespace {

template <class Postings, class Segment>
Postings joined(const std::vector<Segment>& segments, const std::vector<const uint32_t*>& places) {
    using Head = std::pair<std::string_view, size_t>;  // the next term of a segment, and the segment
    std::priority_queue<Head, std::vector<Head>, std::greater<Head>> heads;
    std::vector<int64_t> next(segments.size(), 0);
    // Where the next term and its postings must begin: those that overlap would make more than was there.
    std::vector<int64_t> bytes(segments.size(), 0), postings(segments.size(), 0);
    for (size_t s = 0; s < segments.size(); ++s)
        if (segments[s].terms > 0) heads.emplace(segments[s].term(0), s);
    Postings all;
    std::vector<std::pair<uint32_t, uint32_t>> found;  // documents with the term, and how often or with what weight
    for (int64_t turn = 0; !heads.empty(); ++turn) {
        if (turn % 1024 == 0) check_interrupt();
        const std::string_view term = heads.top().first;
        found.clear();
        while (!heads.empty() && heads.top().first == term) {
            const size_t s = heads.top().second;
            heads.pop();
            const Segment& segment = segments[s];
            const Run run = segment.run(next[s]);
            if (segment.term_offsets[next[s]] != bytes[s] || run.first != postings[s]) {
                damaged("term_offsets and posting_offsets must rise from 0, but not at term " +
                        std::to_string(next[s]));
            }
            bytes[s] += static_cast<int64_t>(term.size());
            postings[s] = run.end;
            for (int64_t p = run.first; p < run.end; ++p) {
                const uint32_t document = segment.posting_documents[p];
                if (document >= segment.documents) damaged("posting_documents hold " + std::to_string(document));
                if (places[s][document] != kLeftOut) found.emplace_back(places[s][document], segment.value(p));
            }
            if (++next[s] == segment.terms) continue;
            if (!(term < segment.term(next[s]))) damaged("term_bytes must be terms that ascend");
            heads.emplace(segment.term(next[s]), s);
        }
        if (found.empty()) continue;
        if (!std::is_sorted(found.begin(), found.end())) std::sort(found.begin(), found.end());
        for (const auto& [document, value] : found) all.add(document, value);
        all.term_bytes.insert(all.term_bytes.end(), term.begin(), term.end());
        all.term_offsets.push_back(static_cast<int64_t>(all.term_bytes.size()));
        all.posting_offsets.push_back(static_cast<int64_t>(all.posting_documents.size()));
    }
    return all;
}

}  // namespace

TextPostings join(const std::vector<TextSegment>& segments, const std::vector<const uint32_t*>& places) {
    return joined<TextPostings>(segments, places);
}

SparsePostings join(const std::vector<SparseSegment>& segments, const std::vector<const uint32_t*>& places) {
    return joined<SparsePostings>(segments, places);
}

}  // namespace lateint::text
