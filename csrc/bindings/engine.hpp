// Search. An index's arrays are read off two objects of Python by the names of their fields
// (lateint_kernels.codes.index_arrays.CodecArrays and SegmentArrays); they stay alive as long as the engine.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/fields.hpp"
#include "bindings/gil.hpp"
#include "codes/engine.hpp"
#include "codes/int8.hpp"
#include "platform/threads.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

class PyEngine {
public:
    PyEngine(const py::object& codec, const std::vector<py::object>& segments, const PyEngine* before)
        : engine_(make(codec, segments, before)) {}

    const codes::Engine& operator*() const { return *engine_; }
    const codes::Engine* operator->() const { return engine_.get(); }

private:
    std::unique_ptr<codes::Engine> make(const py::object& arrays, const std::vector<py::object>& segments,
                                        const PyEngine* before) {
        const int nbits = arrays.attr("nbits").cast<int>();
        if (nbits != 1 && nbits != 2 && nbits != 4 && nbits != 8) damaged("nbits must be 1, 2, 4 or 8");
        const auto permutation = fields_.get<int32_t>(arrays, "permutation", {-1});
        const int64_t width = permutation.shape(0), depth = codes::round_up(width, codes::kDepthStep);
        if (width < 8 || width % 8 != 0 || width > codes::kMaxWidth) {
            damaged("permutation must have a multiple of 8 numbers, at most 4096, got " + std::to_string(width));
        }
        const auto mean = fields_.get<float>(arrays, "mean", {-1});
        const auto rotation = fields_.get<float>(arrays, "rotation", {-1, -1, -1});
        const int64_t block = rotation.shape(1);
        if (block != rotation.shape(2) || rotation.shape(0) * block != width) {
            damaged("rotation must be square blocks of " + std::to_string(width) + " components together");
        }
        const auto centroids = fields_.get<uint8_t>(arrays, "centroids", {-1, depth});
        const auto cells = fields_.get<uint8_t>(arrays, "cells", {-1, depth});
        const auto cell_offsets = fields_.get<int64_t>(arrays, "cell_offsets", {cells.shape(0) + 1});
        if (centroids.shape(0) == 0 || cells.shape(0) == 0) damaged("it has no centroids");
        const codes::Codec codec(nbits, width, depth, centroids.data());
        std::vector<codes::Segment> views;
        for (const py::object& segment : segments) views.push_back(view(segment, codec, centroids.shape(0)));
        return std::make_unique<codes::Engine>(
            codec,
            codes::Centroids{centroids.data(), centroids.shape(0), depth, cells.data(), cell_offsets.data(),
                             cells.shape(0)},
            codes::Rotation{mean.shape(0), width, block, mean.data(), rotation.data(), permutation.data()},
            arrays.attr("step").cast<float>(), std::move(views), before ? before->engine_.get() : nullptr);
    }

    codes::Segment view(const py::object& arrays, const codes::Codec& codec, int64_t count) {
        const auto offsets = fields_.get<int64_t>(arrays, "offsets", {-1});
        if (offsets.shape(0) == 0) damaged("offsets must have a number, got none");
        const auto ids = fields_.get<uint16_t>(arrays, "centroid_ids", {-1});
        const int64_t tokens = ids.shape(0);
        return {offsets.shape(0) - 1,
                offsets.data(),
                {tokens, fields_.get<uint8_t>(arrays, "codes", {tokens, codec.code_bytes()}).data(),
                 codec.nbits == 8 ? nullptr : fields_.get<uint8_t>(arrays, "scales", {tokens}).data(), ids.data(),
                 count <= 1 << 16 ? nullptr : fields_.get<uint8_t>(arrays, "centroid_high", {tokens}).data()},
                lists(arrays, count)};
    }

    // Small segments name the centroids that have a list; elsewhere all have one.
    codes::InvertedLists lists(const py::object& arrays, int64_t count) {
        const auto documents = fields_.get<uint32_t>(arrays, "list_documents", {-1});
        if (arrays.attr("list_centroids").is_none()) {
            const auto offsets = fields_.get<int64_t>(arrays, "list_offsets", {count + 1});
            return {offsets.data(), documents.data(), documents.shape(0), nullptr, count, count};
        }
        const auto centroids = fields_.get<uint32_t>(arrays, "list_centroids", {-1});
        const auto offsets = fields_.get<int64_t>(arrays, "list_offsets", {centroids.shape(0) + 1});
        return {offsets.data(), documents.data(), documents.shape(0), centroids.data(), centroids.shape(0), count};
    }

    Fields fields_;
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

// Of queries [T, dim].
const float* tokens_of(const codes::Engine& engine, const Array<float>& queries) {
    if (queries.ndim() != 2 || queries.shape(1) != engine.rotation.dim) {
        throw py::value_error("queries must be [T, " + std::to_string(engine.rotation.dim) + "]");
    }
    return queries.data();
}

// Queries [T, dim] cut at offsets [n + 1].
struct Batch {
    const codes::Engine& engine;
    const float* tokens;
    const int64_t* offsets;
    int64_t count;

    Batch(const codes::Engine& engine, const Array<float>& queries, const Array<int64_t>& cuts)
        : engine(engine), tokens(tokens_of(engine, queries)), offsets(cuts.data()), count(cuts.shape(0) - 1) {
        if (count < 0 || offsets[0] != 0 || offsets[count] != queries.shape(0) ||
            !std::is_sorted(offsets, offsets + count + 1)) {
            throw py::value_error("offsets must rise from 0 to the number of query tokens");
        }
    }

    // body(i, query, threads inside): a single query is split inside; many are shared out whole.
    template <class Body>
    void each(int threads, const Body& body) const {
        const auto one = [&](int64_t i, int inside) {
            const int64_t first = offsets[i], length = offsets[i + 1] - first;
            body(i, engine.prepare(tokens + first * engine.rotation.dim, length), inside);
        };
        if (count == 1) {
            rouse(codes::Prober::most_parts(offsets[1], threads));  // it is split so first of all
            return one(0, threads);
        }
        parallel_for(count, threads, [&](int64_t i, int) { one(i, 1); });
    }
};

// k hits for each query. With nprobe < 0 every document is scored.
std::vector<Ranking> search(const PyEngine& self, const Array<float>& queries, const Array<int64_t>& offsets, int64_t k,
                            int64_t nprobe, int64_t candidates, int64_t patience, int64_t cells, double deviations,
                            int64_t watched, int64_t sampled, int64_t lists, const py::object& allowed, int threads) {
    const Batch batch(*self, queries, offsets);
    if (k < 1) throw py::value_error("k must be at least 1, got " + std::to_string(k));
    const uint8_t* const mask = optional_data(allowed);
    if (mask != nullptr && py::len(allowed) != static_cast<size_t>(self->documents())) {
        throw py::value_error("allowed must have a number for each of " + std::to_string(self->documents()) +
                              " documents");
    }
    std::vector<std::vector<codes::Hit>> hits(batch.count);
    without_gil([&] {
        const codes::SearchLimits limits = {k,          nprobe,  candidates, patience, cells,
                                            deviations, watched, sampled,    lists};
        batch.each(threads, [&](int64_t i, const codes::Query& query, int inside) {
            hits[i] = nprobe < 0 ? self->exhaustive(query, k, mask, inside) : self->search(query, limits, mask, inside);
        });
    });
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
    without_gil([&] {
        batch.each(threads, [&](int64_t i, const codes::Query& query, int inside) {
            const int64_t first = batch.offsets[i];
            self->probe(query, count, cells, out + first * count, sizes + first, inside);
        });
    });
    return py::make_tuple(pairs, known);
}

py::tuple gather(const PyEngine& self, const Array<float>& query, int64_t nprobe, int64_t candidates, int64_t cells,
                 int64_t lists, int threads) {
    const float* const tokens = tokens_of(*self, query);
    codes::SearchCounts counts;
    std::vector<codes::Hit> hits;
    without_gil([&] {
        const codes::Query prepared = self->prepare(tokens, query.shape(0));
        const codes::SearchLimits limits = {candidates, nprobe, candidates, 0, cells, 0, 0, 0, lists};
        hits = self->gather(prepared, limits, nullptr, threads, &counts);
    });
    const Ranking ranking = to_arrays(hits);
    return py::make_tuple(ranking.first, ranking.second, counts.postings, counts.touched);
}

Array<float> score(const PyEngine& self, const Array<float>& query, const Array<int64_t>& positions, int threads) {
    const float* const tokens = tokens_of(*self, query);
    const int64_t n = positions.shape(0);
    const auto inside = [&](int64_t position) { return position >= 0 && position < self->documents(); };
    if (!std::all_of(positions.data(), positions.data() + n, inside)) {
        throw py::value_error("positions must be from 0 to " + std::to_string(self->documents() - 1));
    }
    Array<float> scores(n);
    float* const out = scores.mutable_data();
    without_gil([&] {
        const codes::Query prepared = self->prepare(tokens, query.shape(0));
        self->score(prepared, positions.data(), n, threads, out);
    });
    return scores;
}

// The query as integers: bytes [Lq, depth], scale (the step included) of each token, and sum_i <q_i, mean>.
py::tuple prepare(const PyEngine& self, const Array<float>& query) {
    const codes::Query prepared = self->prepare(tokens_of(*self, query), query.shape(0));
    Array<int8_t> bytes({prepared.length, self->codec.depth});
    codes::unpack(prepared, self->codec.depth, bytes.mutable_data());
    Array<double> scales(prepared.length);
    std::copy(prepared.scales.begin(), prepared.scales.end(), scales.mutable_data());
    return py::make_tuple(bytes, scales, prepared.constant);
}

// Tokens [first, first + n) of a segment as unsigned bytes [n, width].
Array<uint8_t> decode_tokens(const PyEngine& self, int64_t segment, int64_t first, int64_t n) {
    const auto count = static_cast<int64_t>(self->segments.size());
    if (segment < 0 || segment >= count || first < 0 || n < 0 || n > self->segments[segment].tokens.count - first) {
        throw py::index_error("there is no such segment, or it has no such tokens");
    }
    Array<uint8_t> bytes({n, self->codec.width});
    self->decode(segment, first, n, bytes.mutable_data());
    return bytes;
}

}  // namespace

inline void bind_engine(py::module_& m) {
    py::class_<PyEngine>(m, "Engine")
        .def(py::init<py::object, std::vector<py::object>, const PyEngine*>())
        .def("runs", [](const PyEngine& self) { return self->runs(); })
        .def("search", &search)
        .def("probe", &probe)
        .def("gather", &gather)
        .def("score", &score)
        .def("prepare", &prepare)
        .def("decode", &decode_tokens);
}

}  // namespace lateint::bindings
