// Segments as one collection, and what a search wants of it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "platform/damaged.hpp"
#include "text/segment.hpp"

namespace lateint::text {

struct Term {
    std::string bytes;
    double count;  // how often the query has it, or its weight there
};
using Query = std::vector<Term>;  // ascending by bytes, each once

struct Wanted {  // a term of the query that some document has
    double weight;
    float largest;                 // worth that a posting may have, so that a document gains weight * largest at most
    std::vector<int64_t> numbers;  // [segments]: of the term, or -1
};

struct Share {  // of a term in integer scores
    float weight, largest;
};

constexpr int64_t kChunk = 128;  // postings whose scores are computed together

template <class S>
struct Collection {
    using Segment = S;

    // `live`: one byte a position, null where all are.
    Collection(std::vector<Segment> all, const uint8_t* live) : segments(std::move(all)), live(live) {
        for (const Segment& segment : segments) first_position.push_back(first_position.back() + segment.documents);
        if (documents() > int64_t{std::numeric_limits<uint32_t>::max()}) {
            damaged("it has more than 4294967295 documents");
        }
    }

    const std::vector<Segment> segments;
    const uint8_t* const live;
    std::vector<int64_t> first_position{0};  // of each segment, and the number of documents

    int64_t documents() const { return first_position.back(); }
};

}  // namespace lateint::text
