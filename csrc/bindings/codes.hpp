// Centroids and residual codes. Arguments arrive checked (lateint_kernels.codes): shapes are trusted here, and every
// array is C-contiguous and of the dtype named.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/gil.hpp"
#include "codes/assigner.hpp"
#include "codes/int8.hpp"
#include "codes/lists.hpp"
#include "codes/residual.hpp"
#include "codes/rotation.hpp"
#include "codes/subcells.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

// As `subdivide` returns them.
using SubcellArrays = std::tuple<Array<int64_t>, Array<uint8_t>, Array<int64_t>, Array<uint32_t>>;

template <class T>
std::vector<T> copied(const Array<T>& array) {
    return {array.data(), array.data() + array.size()};
}

std::unique_ptr<codes::Assigner> make_assigner(const Array<uint8_t>& centroids, const Array<uint8_t>& cells,
                                               const Array<int64_t>& cell_offsets,
                                               const std::optional<SubcellArrays>& subcells, int threads) {
    const codes::Centroids view = {centroids.data(), centroids.shape(0),  centroids.shape(1),
                                   cells.data(),     cell_offsets.data(), cells.shape(0)};
    codes::Subcells divided;
    if (subcells) {
        const auto& [first, centres, offsets, members] = *subcells;
        divided = {copied(first), copied(offsets), copied(members), copied(centres)};
    }
    std::unique_ptr<codes::Assigner> assigner;
    without_gil([&] { assigner = std::make_unique<codes::Assigner>(view, subcells ? &divided : nullptr, threads); });
    return assigner;
}

py::tuple subdivide(const Array<uint8_t>& centroids, const Array<int64_t>& cell_offsets, int threads) {
    const codes::Centroids view = {centroids.data(), centroids.shape(0),  centroids.shape(1),
                                   nullptr,          cell_offsets.data(), cell_offsets.shape(0) - 1};
    codes::Subcells found;
    without_gil([&] { found = codes::subdivide(view, threads); });
    const auto count = static_cast<int64_t>(found.offsets.size()) - 1;
    Array<uint8_t> centres({count, view.depth});
    std::copy(found.centres.begin(), found.centres.end(), centres.mutable_data());
    return py::make_tuple(Array<int64_t>(found.first.size(), found.first.data()), centres,
                          Array<int64_t>(found.offsets.size(), found.offsets.data()),
                          Array<uint32_t>(found.members.size(), found.members.data()));
}

Array<uint32_t> nearest(const codes::Assigner& assigner, const Array<uint8_t>& tokens, int cells, int threads) {
    Array<uint32_t> ids(tokens.shape(0));
    uint32_t* const out = ids.mutable_data();
    without_gil([&] { assigner.nearest(tokens.data(), tokens.shape(0), cells, threads, out); });
    return ids;
}

py::tuple cluster_means(const Array<uint8_t>& tokens, const Array<uint32_t>& ids, int64_t count, int threads) {
    Array<uint8_t> means({count, int64_t{tokens.shape(1)}});
    Array<int64_t> members(count);
    uint8_t* const to = means.mutable_data();
    int64_t* const many = members.mutable_data();
    without_gil([&] {
        codes::cluster_means(tokens.data(), ids.data(), tokens.shape(0), tokens.shape(1), count, threads, to, many);
    });
    return py::make_tuple(means, members);
}

Array<float> rotate(const py::array& tokens, int dtype, const Array<float>& mean, const Array<float>& rotation,
                    const Array<int32_t>& permutation, float step, int threads) {
    const int64_t n = tokens.shape(0), width = permutation.shape(0);
    if (mean.shape(0) > width)
        throw py::value_error("mean must have at most " + std::to_string(width) + " numbers, got " +
                              std::to_string(mean.shape(0)));
    for (int64_t i = 0; i < width; ++i) {
        const int32_t from = permutation.data()[i];
        if (from < 0 || from >= width)
            throw py::value_error("permutation must be numbers from 0 to " + std::to_string(width - 1) + ", got " +
                                  std::to_string(from));
    }
    const codes::Rotation view = {mean.shape(0), width,           rotation.shape(1),
                                  mean.data(),   rotation.data(), permutation.data()};
    Array<float> out({n, width});
    float* const to = out.mutable_data();
    without_gil([&] { codes::rotate(view, tokens.data(), static_cast<Dtype>(dtype), n, step, threads, to); });
    return out;
}

Array<uint8_t> to_bytes(const Array<float>& scaled, int64_t depth, int threads) {
    Array<uint8_t> out({int64_t{scaled.shape(0)}, depth});
    uint8_t* const to = out.mutable_data();
    without_gil([&] { codes::to_bytes(scaled.data(), scaled.shape(0), scaled.shape(1), depth, threads, to); });
    return out;
}

Array<float> peaks(const Array<uint8_t>& bytes, const Array<float>& scaled, int threads) {
    Array<float> out(bytes.shape(0));
    float* const to = out.mutable_data();
    without_gil([&] {
        codes::peaks(bytes.data(), bytes.shape(1), scaled.data(), scaled.shape(1), bytes.shape(0), threads, to);
    });
    return out;
}

py::tuple encode(const Array<float>& scaled, const Array<uint32_t>& ids, const Array<uint8_t>& centroids, int nbits,
                 int threads) {
    const int64_t n = scaled.shape(0);
    const codes::Codec codec(nbits, scaled.shape(1), centroids.shape(1), centroids.data());
    Array<uint8_t> codes({n, codec.code_bytes()}), scales(n);
    uint8_t *const to = codes.mutable_data(), *const scales_to = scales.mutable_data();
    without_gil([&] { codes::encode(codec, scaled.data(), ids.data(), n, threads, to, scales_to); });
    return py::make_tuple(codes, scales);
}

Array<uint8_t> decode(const Array<uint8_t>& codes, const py::object& scales, const Array<uint16_t>& low,
                      const py::object& high, const Array<uint8_t>& centroids, int nbits, int64_t width) {
    const int64_t n = low.shape(0);
    const codes::Codec codec(nbits, width, centroids.shape(1), centroids.data());
    Array<uint8_t> out({n, width});
    codes::decode(codec, {n, codes.data(), optional_data(scales), low.data(), optional_data(high)}, 0, n,
                  out.mutable_data());
    return out;
}

py::tuple invert(const Array<uint32_t>& ids, const Array<int64_t>& offsets, int64_t count) {
    const int64_t documents = offsets.shape(0) - 1;
    Array<int64_t> list_offsets(count + 1);
    int64_t* const starts = list_offsets.mutable_data();
    without_gil([&] { codes::count_postings(ids.data(), offsets.data(), documents, count, starts); });
    Array<uint32_t> list_documents(starts[count]);
    uint32_t* const list = list_documents.mutable_data();
    without_gil([&] { codes::write_postings(ids.data(), offsets.data(), documents, count, starts, list); });
    return py::make_tuple(list_offsets, list_documents);
}

// The integer kernels as they are, for tests: rows [n, depth] uint8 times vectors [m, depth] int8.
Array<int32_t> int8_products(const Array<uint8_t>& rows, const Array<int8_t>& vectors, bool maximum) {
    const int64_t n = rows.shape(0), m = vectors.shape(0), depth = rows.shape(1);
    const int ntiles = static_cast<int>(tiles_for(m));
    std::vector<int8_t> tiles(ntiles * depth * kLanes);
    for (int t = 0; t < ntiles; ++t)
        codes::pack_tile(vectors.data() + t * kLanes * depth,
                         static_cast<int>(std::min<int64_t>(kLanes, m - t * kLanes)), depth, depth,
                         tiles.data() + t * depth * kLanes);
    Array<int32_t> out({maximum ? 1 : n, int64_t{ntiles} * kLanes});
    std::fill_n(out.mutable_data(), out.size(), INT32_MIN);
    const Session session(codes::int8_kernels());
    if (maximum)
        session.kernels.dot_max(rows.data(), n, depth, tiles.data(), static_cast<int>(m), out.mutable_data());
    else
        session.kernels.dot(rows.data(), n, depth, tiles.data(), ntiles, out.mutable_data());
    return out;
}

}  // namespace

inline void bind_codes(py::module_& m) {
    py::class_<codes::Assigner>(m, "Assigner").def(py::init(&make_assigner)).def("nearest", &nearest);
    m.def("subdivide", &subdivide);
    m.def("cluster_means", &cluster_means);
    m.def("rotate", &rotate);
    m.def("to_bytes", &to_bytes);
    m.def("peaks", &peaks);
    m.def("encode", &encode);
    m.def("decode", &decode);
    m.def("invert", &invert);
    m.def("int8_products", &int8_products);
}

}  // namespace lateint::bindings
