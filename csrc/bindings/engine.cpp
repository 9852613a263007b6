// Search. An index's arrays are read off two objects of Python by the names of their fields
// (lateint_kernels.engine.CodecArrays and SegmentArrays); they stay alive as long as the engine.
#include "codes/engine.hpp"

#include <pybind11/stl.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/families.hpp"
#include "platform/threads.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

class PyEngine {
public:
    PyEngine(const py::object& codec, const std::vector<py::object>& segments)
        : nbits_(codec.attr("nbits").cast<int>()), engine_(make(codec, segments)) {}

    const codes::Engine& operator*() const { return *engine_; }
    const codes::Engine* operator->() const { return engine_.get(); }

private:
    // The numbers of a field, kept alive.
    template <class T>
    Array<T> keep(const py::object& arrays, const char* name) {
        Array<T> array = array_of<T>(arrays, name);
        kept_.push_back(array);
        return array;
    }
    template <class T>
    const T* keep_optional(const py::object& arrays, const char* name) {
        return arrays.attr(name).is_none() ? nullptr : keep<T>(arrays, name).data();
    }

    std::unique_ptr<codes::Engine> make(const py::object& codec, const std::vector<py::object>& segments) {
        const auto centroids = keep<uint8_t>(codec, "centroids"), cells = keep<uint8_t>(codec, "cells");
        const auto cell_offsets = keep<int64_t>(codec, "cell_offsets");
        const auto mean = keep<float>(codec, "mean"), rotation = keep<float>(codec, "rotation");
        const auto permutation = keep<int32_t>(codec, "permutation");
        const int64_t width = permutation.shape(0), depth = centroids.shape(1);
        std::vector<codes::Segment> views;
        for (const py::object& segment : segments) views.push_back(view(segment, centroids.shape(0)));
        return std::make_unique<codes::Engine>(
            codes::Codec(nbits_, width, depth, centroids.data()),
            codes::Centroids{centroids.data(), centroids.shape(0), depth, cells.data(), cell_offsets.data(),
                             cells.shape(0)},
            codes::Rotation{mean.shape(0), width, rotation.shape(1), mean.data(), rotation.data(), permutation.data()},
            codec.attr("step").cast<float>(), std::move(views));
    }

    codes::Segment view(const py::object& segment, int64_t count) {
        const auto offsets = keep<int64_t>(segment, "offsets"), list_offsets = keep<int64_t>(segment, "list_offsets");
        const auto list_documents = keep<uint32_t>(segment, "list_documents");
        const auto codes = keep<uint8_t>(segment, "codes");
        return {
            offsets.shape(0) - 1,
            offsets.data(),
            codes.shape(0),
            {codes.data(), keep_optional<uint8_t>(segment, "scales"), keep<uint16_t>(segment, "centroid_ids").data(),
             keep_optional<uint8_t>(segment, "centroid_high"), static_cast<uint32_t>(count - 1)},
            {list_offsets.data(), list_documents.data(), list_documents.shape(0),
             keep_optional<uint32_t>(segment, "list_centroids"), list_offsets.shape(0) - 1, count}};
    }

    const int nbits_;
    std::vector<py::object> kept_;
    const std::unique_ptr<codes::Engine> engine_;
};

using Ranking = std::pair<Array<int64_t>, Array<float>>;

Ranking to_arrays(const std::vector<codes::Hit>& hits) {
    Array<int64_t> positions(hits.size());
    Array<float> scores(hits.size());
    for (size_t i = 0; i < hits.size(); ++i) {
        positions.mutable_data()[i] = hits[i].position;
        scores.mutable_data()[i] = hits[i].score;
    }
    return {positions, scores};
}

// Queries [T, dim] cut at offsets [n + 1].
struct Batch {
    const codes::Engine& engine;
    const float* tokens;
    const int64_t* offsets;
    int64_t count;

    Batch(const codes::Engine& engine, const Array<float>& queries, const Array<int64_t>& cuts)
        : engine(engine), tokens(queries.data()), offsets(cuts.data()), count(cuts.shape(0) - 1) {}

    // body(i, query, threads inside): a single query is split inside; many are shared out whole.
    template <class Body>
    void each(int threads, const Body& body) const {
        const auto one = [&](int64_t i, int inside) {
            const int64_t first = offsets[i], length = offsets[i + 1] - first;
            body(i, engine.prepare(tokens + first * engine.rotation.dim, length), inside);
        };
        if (count == 1) return one(0, threads);
        parallel_for(count, threads, [&](int64_t i, int) { one(i, 1); });
    }
};

// k hits for each query. With nprobe < 0 every document is scored.
std::vector<Ranking> search(const PyEngine& self, const Array<float>& queries, const Array<int64_t>& offsets, int64_t k,
                            int64_t nprobe, int64_t candidates, int64_t patience, int64_t cells,
                            const py::object& allowed, int threads) {
    const Batch batch(*self, queries, offsets);
    const uint8_t* const mask = optional_data(allowed);
    std::vector<std::vector<codes::Hit>> hits(batch.count);
    {
        const py::gil_scoped_release release;
        batch.each(threads, [&](int64_t i, const codes::Query& query, int inside) {
            hits[i] = nprobe < 0 ? self->exhaustive(query, k, mask, inside)
                                 : self->search(query, {k, nprobe, candidates, patience, cells}, mask, inside);
        });
    }
    std::vector<Ranking> rankings;
    for (const auto& best : hits) rankings.push_back(to_arrays(best));
    return rankings;
}

// For each token the best centroids and their products [T, count], as a search looks for them; and how many of them
// there are [T].
py::tuple probe(const PyEngine& self, const Array<float>& queries, const Array<int64_t>& offsets, int64_t count,
                int64_t cells, int threads) {
    static_assert(sizeof(codes::Probe) == 8 && offsetof(codes::Probe, centroid) == 4, "pairs of 32 bits");
    const Batch batch(*self, queries, offsets);
    Array<int32_t> pairs({int64_t{queries.shape(0)}, count, int64_t{2}});
    Array<int64_t> known(queries.shape(0));
    std::fill_n(pairs.mutable_data(), pairs.size(), 0);
    auto* const out = reinterpret_cast<codes::Probe*>(pairs.mutable_data());
    int64_t* const sizes = known.mutable_data();
    {
        const py::gil_scoped_release release;
        batch.each(threads, [&](int64_t i, const codes::Query& query, int inside) {
            const int64_t first = batch.offsets[i];
            self->probe(query, count, cells, out + first * count, sizes + first, inside);
        });
    }
    return py::make_tuple(pairs, known);
}

py::tuple gather(const PyEngine& self, const Array<float>& query, int64_t nprobe, int64_t candidates, int64_t cells) {
    codes::SearchCounts counts;
    std::vector<codes::Hit> hits;
    {
        const py::gil_scoped_release release;
        const codes::Query prepared = self->prepare(query.data(), query.shape(0));
        hits = self->gather(prepared, {candidates, nprobe, candidates, 0, cells}, nullptr, &counts);
    }
    const Ranking ranking = to_arrays(hits);
    return py::make_tuple(ranking.first, ranking.second, counts.postings, counts.touched);
}

Array<float> score(const PyEngine& self, const Array<float>& query, const Array<int64_t>& positions, int threads) {
    Array<float> scores(positions.shape(0));
    float* const out = scores.mutable_data();
    const py::gil_scoped_release release;
    const codes::Query prepared = self->prepare(query.data(), query.shape(0));
    self->score(prepared, positions.data(), positions.shape(0), threads, out);
    return scores;
}

// The query as integers: bytes [Lq, depth], scale (the step included) of each token, and sum_i <q_i, mean>.
py::tuple prepare(const PyEngine& self, const Array<float>& query) {
    const codes::Query prepared = self->prepare(query.data(), query.shape(0));
    Array<int8_t> bytes({prepared.length, self->codec.depth});
    codes::unpack(prepared, self->codec.depth, bytes.mutable_data());
    Array<double> scales(prepared.length);
    std::copy(prepared.scales.begin(), prepared.scales.end(), scales.mutable_data());
    return py::make_tuple(bytes, scales, prepared.constant);
}

// Tokens [first, first + n) of a segment as unsigned bytes [n, width].
Array<uint8_t> decode(const PyEngine& self, int64_t segment, int64_t first, int64_t n) {
    Array<uint8_t> bytes({n, self->codec.width});
    codes::decode(self->codec, self->segments[segment].tokens, first, n, bytes.mutable_data());
    return bytes;
}

}  // namespace

void bind_engine(py::module_& m) {
    py::class_<PyEngine>(m, "Engine")
        .def(py::init<py::object, std::vector<py::object>>())
        .def("search", &search)
        .def("probe", &probe)
        .def("gather", &gather)
        .def("score", &score)
        .def("prepare", &prepare)
        .def("decode", &decode);
}

}  // namespace lateint::bindings
