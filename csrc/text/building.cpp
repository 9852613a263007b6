#include "text/building.hpp"

#include <algorithm>
#include <queue>
#include <string>
#include <utility>

#include "platform/damaged.hpp"
#include "platform/threads.hpp"

namespace lateint::text {

void Postings::add(uint32_t document, uint32_t count) {
    if (count >= kLarge) {
        large_postings.push_back(static_cast<int64_t>(posting_documents.size()));
        large_counts.push_back(count);
    }
    posting_documents.push_back(document);
    posting_counts.push_back(static_cast<uint8_t>(std::min<uint32_t>(count, kLarge)));
}

// Documents are sorted by term, in their order: a document that has a term twice comes twice in a row.
Postings invert(const uint32_t* term_numbers, const int64_t* offsets, int64_t documents, int64_t terms) {
    std::vector<int64_t> next(terms + 1, 0);
    for (int64_t i = 0; i < offsets[documents]; ++i) ++next[term_numbers[i] + 1];
    for (int64_t t = 0; t < terms; ++t) next[t + 1] += next[t];
    std::vector<uint32_t> sorted(offsets[documents]);
    for (int64_t d = 0; d < documents; ++d) {
        if (d % 4096 == 0) check_interrupt();
        for (int64_t i = offsets[d]; i < offsets[d + 1]; ++i)
            sorted[next[term_numbers[i]]++] = static_cast<uint32_t>(d);
    }
    Postings postings;
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

Postings join(const std::vector<Segment>& segments, const std::vector<const uint32_t*>& places) {
    using Head = std::pair<std::string_view, size_t>;  // the next term of a segment, and the segment
    std::priority_queue<Head, std::vector<Head>, std::greater<Head>> heads;
    std::vector<int64_t> next(segments.size(), 0);
    // Where the next term and its postings must begin: those that overlap would make more than was there.
    std::vector<int64_t> bytes(segments.size(), 0), postings(segments.size(), 0);
    for (size_t s = 0; s < segments.size(); ++s)
        if (segments[s].terms > 0) heads.emplace(segments[s].term(0), s);
    Postings all;
    std::vector<std::pair<uint32_t, uint32_t>> found;  // documents with the term, and how often they have it
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
                if (places[s][document] != kLeftOut) found.emplace_back(places[s][document], segment.count(p));
            }
            if (++next[s] == segment.terms) continue;
            if (!(term < segment.term(next[s]))) damaged("term_bytes must be terms that ascend");
            heads.emplace(segment.term(next[s]), s);
        }
        if (found.empty()) continue;
        if (!std::is_sorted(found.begin(), found.end())) std::sort(found.begin(), found.end());
        for (const auto& [document, count] : found) all.add(document, count);
        all.term_bytes.insert(all.term_bytes.end(), term.begin(), term.end());
        all.term_offsets.push_back(static_cast<int64_t>(all.term_bytes.size()));
        all.posting_offsets.push_back(static_cast<int64_t>(all.posting_documents.size()));
    }
    return all;
}

}  // namespace lateint::text
