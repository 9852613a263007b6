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

std::string_view Lists::term(int64_t number) const {
    const Run bytes = run_at(term_offsets, number, byte_count, "term_offsets");
    return {reinterpret_cast<const char*>(term_bytes) + bytes.first, static_cast<size_t>(bytes.size())};
}

int64_t Lists::find(std::string_view wanted) const {
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

Run Lists::run(int64_t number) const { return run_at(posting_offsets, number, postings, "posting_offsets"); }

int64_t Lists::seek(Run run, uint32_t document) const {
    int64_t step = 1, first = run.first;
    while (first + step <= run.end && posting_documents[first + step - 1] < document) {
        first += step;
        step *= 2;
    }
    const uint32_t* const end = posting_documents + std::min(first + step, run.end);
    return std::lower_bound(posting_documents + first, end, document) - posting_documents;
}

uint32_t TextSegment::large_count(int64_t posting) const {
    const int64_t* const at = std::lower_bound(large_postings, large_postings + large, posting);
    if (at == large_postings + large || *at != posting) {
        damaged("large_postings lack posting " + std::to_string(posting));
    }
    return std::max<uint32_t>(large_counts[at - large_postings], kLarge);
}

namespace {

// Calls each(document, posting) for all postings.
template <class Each>
void check_lists(const Lists& lists, const Each& each) {
    int64_t byte = 0, posting = 0;
    for (int64_t t = 0; t < lists.terms; ++t) {
        if (t % 1024 == 0) check_interrupt();
        if (lists.term_offsets[t] != byte || lists.posting_offsets[t] != posting) {
            damaged("term_offsets and posting_offsets must rise from 0, but not at term " + std::to_string(t));
        }
        if (t > 0 && !(lists.term(t - 1) < lists.term(t))) damaged("term_bytes must be terms that ascend");
        byte += static_cast<int64_t>(lists.term(t).size());
        const Run run = lists.run(t);
        if (run.size() == 0) damaged("term " + std::to_string(t) + " has no postings");
        for (; posting < run.end; ++posting) {
            const uint32_t document = lists.posting_documents[posting];
            if (document >= lists.documents ||
                (posting > run.first && document <= lists.posting_documents[posting - 1])) {
                damaged("posting_documents of term " + std::to_string(t) + " must ascend and stay below " +
                        std::to_string(lists.documents));
            }
            each(document, posting);
        }
    }
    if (lists.term_offsets[lists.terms] != byte || byte != lists.byte_count ||
        lists.posting_offsets[lists.terms] != posting || posting != lists.postings) {
        damaged("term_bytes and posting_documents must end where the last term does");
    }
}

}  // namespace

void check(const TextSegment& segment) {
    std::vector<int64_t> lengths(segment.documents, 0);
    int64_t large = 0;
    check_lists(segment, [&](uint32_t document, int64_t posting) {
        if (segment.posting_counts[posting] == 0) damaged("posting_counts must be at least 1");
        if (segment.posting_counts[posting] == kLarge) {
            if (large == segment.large || segment.large_postings[large] != posting ||
                segment.large_counts[large] < kLarge) {
                damaged("large_postings and large_counts must say which counts are at least 255");
            }
            ++large;
        }
        lengths[document] += segment.value(posting);
    });
    if (large != segment.large) damaged("large_postings must end where the last term does");
    for (int64_t d = 0; d < segment.documents; ++d)
        if (lengths[d] != segment.lengths[d]) {
            damaged("text_lengths say " + std::to_string(segment.lengths[d]) + " for document " + std::to_string(d) +
                    ", which has " + std::to_string(lengths[d]) + " terms");
        }
}

void check(const SparseSegment& segment) {
    check_lists(segment, [&](uint32_t, int64_t posting) {
        if (!is_weight(segment.posting_weights[posting])) damaged("posting_weights must be above 0 and finite");
    });
}

}  // namespace lateint::text
