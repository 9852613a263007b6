// Search by words and by sparse vectors. A segment's arrays are read off an object of Python by the names of its fields
// (lateint_kernels.text.segment_text); they stay alive as long as what holds them.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/fields.hpp"
#include "bindings/gil.hpp"
#include "platform/threads.hpp"
#include "text/building.hpp"
#include "text/engine.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

// What all segments have; `documents` is not among it.
text::Lists lists_of(Fields& fields, const py::object& arrays) {
    const auto bytes = fields.get<uint8_t>(arrays, "term_bytes", {-1});
    const auto term_offsets = fields.get<int64_t>(arrays, "term_offsets", {-1});
    const int64_t terms = term_offsets.shape(0) - 1;
    if (terms < 0) damaged("term_offsets must have a number, got none");
    const auto posting_offsets = fields.get<int64_t>(arrays, "posting_offsets", {terms + 1});
    const auto documents = fields.get<uint32_t>(arrays, "posting_documents", {-1});
    return {0,
            terms,
            bytes.data(),
            bytes.shape(0),
            term_offsets.data(),
            posting_offsets.data(),
            documents.data(),
            documents.shape(0)};
}

void view(Fields& fields, const py::object& arrays, text::TextSegment* segment) {
    static_cast<text::Lists&>(*segment) = lists_of(fields, arrays);
    const auto lengths = fields.get<uint32_t>(arrays, "text_lengths", {-1});
    const auto large_postings = fields.get<int64_t>(arrays, "large_postings", {-1});
    segment->documents = lengths.shape(0);
    segment->lengths = lengths.data();
    segment->posting_counts = fields.get<uint8_t>(arrays, "posting_counts", {segment->postings}).data();
    segment->large_postings = large_postings.data();
    segment->large = large_postings.shape(0);
    segment->large_counts = fields.get<uint32_t>(arrays, "large_counts", {segment->large}).data();
}

void view(Fields& fields, const py::object& arrays, text::SparseSegment* segment) {
    static_cast<text::Lists&>(*segment) = lists_of(fields, arrays);
    segment->documents = arrays.attr("documents").cast<int64_t>();
    if (segment->documents < 0) throw py::value_error("documents must be at least 0");
    segment->posting_weights = fields.get<uint16_t>(arrays, "posting_weights", {segment->postings}).data();
}

template <class Segment>
std::vector<Segment> views_of(Fields& fields, const std::vector<py::object>& segments) {
    std::vector<Segment> views(segments.size());
    for (size_t s = 0; s < segments.size(); ++s) view(fields, segments[s], &views[s]);
    return views;
}

template <class Segment>
int64_t documents_of(const std::vector<Segment>& segments) {
    int64_t documents = 0;
    for (const Segment& segment : segments) documents += segment.documents;
    return documents;
}

// One byte a document, or null for None.
const uint8_t* mask_of(const py::object& mask, int64_t documents, const char* name) {
    const uint8_t* const data = optional_data(mask);
    if (data != nullptr && static_cast<int64_t>(py::len(mask)) != documents) {
        throw py::value_error(std::string(name) + " must have a number for each of " + std::to_string(documents) +
                              " documents");
    }
    return data;
}

using Terms = std::vector<std::pair<std::string, double>>;

text::Query query_of(const Terms& terms) {
    text::Query query;
    for (const auto& [bytes, count] : terms) {
        if (!query.empty() && bytes <= query.back().bytes) throw py::value_error("terms must ascend");
        if (!(count > 0 && count <= 1e9))
            throw py::value_error("counts and weights of terms must be from above 0 to 1e9");
        query.push_back({bytes, count});
    }
    if (query.size() > 1 << 20) throw py::value_error("a query must have at most 1048576 terms");
    return query;
}

// An engine with what it reads.
template <class Scoring>
class Holder {
public:
    const text::Engine<Scoring>* operator->() const { return engine_.get(); }

protected:
    explicit Holder(py::object live) : live_(std::move(live)) {}

    Fields fields_;
    const py::object live_;
    std::unique_ptr<text::Engine<Scoring>> engine_;
};

class PyTextEngine : public Holder<text::Bm25> {
public:
    PyTextEngine(const std::vector<py::object>& segments, double k1, double b, const py::object& live) : Holder(live) {
        if (!(k1 >= 0 && k1 <= 1e6 && b >= 0 && b <= 1)) {
            throw py::value_error("k1 must be from 0 to 1e6, and b from 0 to 1");
        }
        auto views = views_of<text::TextSegment>(fields_, segments);
        const uint8_t* const mask = mask_of(live, documents_of(views), "live");
        engine_ = std::make_unique<text::TextEngine>(text::Parameters{k1, b}, std::move(views), mask);
    }
};

class PySparseEngine : public Holder<text::Impacts> {
public:
    PySparseEngine(const std::vector<py::object>& segments, const py::object& live) : Holder(live) {
        auto views = views_of<text::SparseSegment>(fields_, segments);
        const uint8_t* const mask = mask_of(live, documents_of(views), "live");
        engine_ = std::make_unique<text::SparseEngine>(std::move(views), mask);
    }
};

using Ranking = std::pair<Array<int64_t>, Array<float>>;

template <class Engine>
std::vector<Ranking> search_text(const Engine& self, const std::vector<Terms>& queries, int64_t k,
                                 const py::object& allowed, int threads) {
    if (k < 1) throw py::value_error("k must be at least 1, got " + std::to_string(k));
    const uint8_t* const mask = mask_of(allowed, self->documents(), "allowed");
    std::vector<text::Query> prepared;
    for (const Terms& terms : queries) prepared.push_back(query_of(terms));
    std::vector<std::vector<text::Hit>> hits(prepared.size());
    without_gil([&] {
        parallel_for(static_cast<int64_t>(prepared.size()), threads,
                     [&](int64_t i, int) { hits[i] = self->search(prepared[i], k, mask); });
    });
    std::vector<Ranking> rankings;
    for (const std::vector<text::Hit>& best : hits) {
        Ranking ranking(best.size(), best.size());
        for (size_t i = 0; i < best.size(); ++i) {
            ranking.first.mutable_data()[i] = best[i].position;
            ranking.second.mutable_data()[i] = best[i].score;
        }
        rankings.push_back(std::move(ranking));
    }
    return rankings;
}

template <class Engine>
Array<float> score_text(const Engine& self, const Terms& terms, const Array<int64_t>& positions) {
    const text::Query query = query_of(terms);
    const int64_t n = positions.shape(0);
    const auto inside = [&](int64_t position) { return position >= 0 && position < self->documents(); };
    if (!std::all_of(positions.data(), positions.data() + n, inside)) {
        throw py::value_error("positions must be from 0 to " + std::to_string(self->documents() - 1));
    }
    Array<float> scores(n);
    float* const out = scores.mutable_data();
    without_gil([&] { self->score(query, positions.data(), n, out); });
    return scores;
}

py::tuple statistics(const PyTextEngine& self, const Terms& terms) {
    const text::Query query = query_of(terms);
    int64_t texts, length;
    Array<int64_t> frequencies(query.size());
    self->statistics(query, &texts, &length, frequencies.mutable_data());
    return py::make_tuple(texts, length, frequencies);
}

template <class T>
Array<T> array_from(const std::vector<T>& numbers) {
    Array<T> array(numbers.size());
    std::copy(numbers.begin(), numbers.end(), array.mutable_data());
    return array;
}

py::dict terms_of(const text::Terms& terms) {
    py::dict arrays;
    arrays["term_bytes"] = array_from(terms.term_bytes);
    arrays["term_offsets"] = array_from(terms.term_offsets);
    arrays["posting_offsets"] = array_from(terms.posting_offsets);
    arrays["posting_documents"] = array_from(terms.posting_documents);
    return arrays;
}

py::dict arrays_of(const text::TextPostings& postings) {
    py::dict arrays = terms_of(postings);
    arrays["posting_counts"] = array_from(postings.posting_counts);
    arrays["large_postings"] = array_from(postings.large_postings);
    arrays["large_counts"] = array_from(postings.large_counts);
    return arrays;
}

py::dict arrays_of(const text::SparsePostings& postings) {
    py::dict arrays = terms_of(postings);
    arrays["posting_weights"] = array_from(postings.posting_weights);
    return arrays;
}

py::dict invert_text(const Array<uint32_t>& numbers, const Array<int64_t>& offsets, int64_t terms) {
    text::TextPostings postings;
    without_gil([&] { postings = text::invert(numbers.data(), offsets.data(), offsets.shape(0) - 1, terms); });
    return arrays_of(postings);
}

py::dict invert_sparse(const Array<uint32_t>& numbers, const Array<uint16_t>& weights, const Array<int64_t>& offsets,
                       int64_t terms) {
    if (weights.size() != numbers.size()) throw py::value_error("weights must be one for each number");
    text::SparsePostings postings;
    without_gil(
        [&] { postings = text::invert(numbers.data(), weights.data(), offsets.data(), offsets.shape(0) - 1, terms); });
    return arrays_of(postings);
}

template <class Segment>
py::dict join(const std::vector<py::object>& segments, const std::vector<Array<uint32_t>>& places) {
    if (segments.size() != places.size()) throw py::value_error("places must be one array for each segment");
    Fields fields;
    const auto views = views_of<Segment>(fields, segments);
    std::vector<const uint32_t*> rows;
    for (size_t s = 0; s < segments.size(); ++s) {
        if (places[s].size() != views[s].documents) {
            throw py::value_error("places must have a number for each document");
        }
        rows.push_back(places[s].data());
    }
    decltype(text::join(views, rows)) postings;
    without_gil([&] { postings = text::join(views, rows); });
    return arrays_of(postings);
}

template <class Segment>
void check(const py::object& segment) {
    Fields fields;
    Segment seen;
    view(fields, segment, &seen);
    without_gil([&] { text::check(seen); });
}

}  // namespace

inline void bind_text(py::module_& m) {
    py::class_<PyTextEngine>(m, "TextEngine")
        .def(py::init<std::vector<py::object>, double, double, py::object>())
        .def("search", &search_text<PyTextEngine>)
        .def("score", &score_text<PyTextEngine>)
        .def("statistics", &statistics);
    py::class_<PySparseEngine>(m, "SparseEngine")
        .def(py::init<std::vector<py::object>, py::object>())
        .def("search", &search_text<PySparseEngine>)
        .def("score", &score_text<PySparseEngine>);
    m.def("invert_text", &invert_text);
    m.def("invert_sparse", &invert_sparse);
    m.def("join_text", &join<text::TextSegment>);
    m.def("join_sparse", &join<text::SparseSegment>);
    m.def("check_text", &check<text::TextSegment>);
    m.def("check_sparse", &check<text::SparseSegment>);
}

}  // namespace lateint::bindings
