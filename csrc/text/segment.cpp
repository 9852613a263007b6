#include "text/segment.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "platform/damaged.hpp"
#include "platform/threads.hpp"

namespace lateint::text {
namespace {

Run run_at(const int64_t* offsets, int64_t number, int64_t most, const char* name) {
    const Run run = {offsets[number], offsets[number + 1]};
    if (run.first < 0 || run.end < run.first || run.end > most) {
        damaged(std::string(name) + " of term " + std::to_string(number) + " are " + std::to_string(run.first) + ".." +
                std::to_string(run.end) + " of " + std::to_string(most));
    }
    return run;
}

}  // namespace

std::string_view Segment::term(int64_t number) const {
    const Run bytes = run_at(term_offsets, number, byte_count, "term_offsets");
    return {reinterpret_cast<const char*>(term_bytes) + bytes.first, static_cast<size_t>(bytes.size())};
}

int64_t Segment::find(std::string_view wanted) const {
    int64_t first = 0, end = terms;
    while (first < end) {
        const int64_t middle = first + (end - first) / 2;
        if (term(middle) < wanted)
            first = middle + 1;
        else
            end = middle;
    }
    return first < terms && term(first) == wanted ? first : -1;
}

Run Segment::run(int64_t number) const { return run_at(posting_offsets, number, postings, "posting_offsets"); }

int64_t Segment::seek(Run run, uint32_t document) const {
    int64_t step = 1, first = run.first;
    while (first + step <= run.end && posting_documents[first + step - 1] < document) {
        first += step;
        step *= 2;
    }
    const uint32_t* const end = posting_documents + std::min(first + step, run.end);
    return std::lower_bound(posting_documents + first, end, document) - posting_documents;
}

uint32_t Segment::large_count(int64_t posting) const {
    const int64_t* const at = std::lower_bound(large_postings, large_postings + large, posting);
    if (at == large_postings + large || *at != posting) {
        damaged("large_postings lack posting " + std::to_string(posting));
    }
    return std::max<uint32_t>(large_counts[at - large_postings], kLarge);
}

void check(const Segment& segment) {
    std::vector<int64_t> lengths(segment.documents, 0);
    int64_t byte = 0, posting = 0, large = 0;
    for (int64_t t = 0; t < segment.terms; ++t) {
        if (t % 1024 == 0) check_interrupt();
        if (segment.term_offsets[t] != byte || segment.posting_offsets[t] != posting) {
            damaged("term_offsets and posting_offsets must rise from 0, but not at term " + std::to_string(t));
        }
        if (t > 0 && !(segment.term(t - 1) < segment.term(t))) damaged("term_bytes must be terms that ascend");
        byte += static_cast<int64_t>(segment.term(t).size());
        const Run run = segment.run(t);
        if (run.size() == 0) damaged("term " + std::to_string(t) + " has no postings");
        for (; posting < run.end; ++posting) {
            const uint32_t document = segment.posting_documents[posting];
            if (document >= segment.documents ||
                (posting > run.first && document <= segment.posting_documents[posting - 1])) {
                damaged("posting_documents of term " + std::to_string(t) + " must ascend and stay below " +
                        std::to_string(segment.documents));
            }
            if (segment.posting_counts[posting] == 0) damaged("posting_counts must be at least 1");
            if (segment.posting_counts[posting] == kLarge) {
                if (large == segment.large || segment.large_postings[large] != posting ||
                    segment.large_counts[large] < kLarge) {
                    damaged("large_postings and large_counts must say which counts are at least 255");
                }
                ++large;
            }
            lengths[document] += segment.count(posting);
        }
    }
    if (segment.term_offsets[segment.terms] != byte || byte != segment.byte_count ||
        segment.posting_offsets[segment.terms] != posting || posting != segment.postings || large != segment.large) {
        damaged("term_bytes, posting_documents and large_postings must end where the last term does");
    }
    for (int64_t d = 0; d < segment.documents; ++d)
        if (lengths[d] != segment.lengths[d]) {
            damaged("text_lengths say " + std::to_string(segment.lengths[d]) + " for document " + std::to_string(d) +
                    ", which has " + std::to_string(lengths[d]) + " terms");
        }
}

}  // namespace lateint::text
