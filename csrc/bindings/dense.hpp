// Exact MaxSim on dense documents.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/gil.hpp"
#include "dense/maxsim.hpp"
#include "dense/pooling.hpp"
#include "dense/rows.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

using Offsets = Array<int64_t>;

using Codes = std::optional<Array<int8_t>>;
using Scales = std::optional<Array<float>>;

dense::Matrices view(const py::array& tokens, int dtype, const Offsets& offsets) {
    return {tokens.data(), static_cast<Dtype>(dtype), offsets.data(), offsets.shape(0) - 1};
}

dense::Matrices view(const py::array& tokens, int dtype, const Offsets& offsets, const Codes& codes,
                     const Scales& scales) {
    dense::Matrices result = view(tokens, dtype, offsets);
    if (codes && scales) {
        result.codes = codes->data();
        result.scales = reinterpret_cast<const dense::SketchScale*>(scales->data());
    }
    return result;
}

// Numbers that start at a cache line, as memory from numpy need not.
py::array_t<int8_t> aligned(int64_t size) {
    py::array_t<int8_t> memory(size + 64);
    const auto past = reinterpret_cast<uintptr_t>(memory.data()) % 64;
    return py::array_t<int8_t>(size, memory.mutable_data() + (64 - past) % 64, memory);
}

Array<float> pool(const Array<float>& tokens, const Array<int64_t>& offsets, int64_t factor, int threads) {
    const int64_t documents = offsets.shape(0) - 1, dim = tokens.shape(1);
    int64_t count = 0;
    for (int64_t d = 0; d < documents; ++d)
        count += dense::pooled_length(offsets.data()[d + 1] - offsets.data()[d], factor);
    Array<float> pooled({count, dim});
    float* const out = pooled.mutable_data();
    without_gil([&] { dense::pool(tokens.data(), offsets.data(), documents, dim, factor, out, threads); });
    return pooled;
}

py::object cluster(const Array<float>& tokens, const Array<int64_t>& offsets, const Array<int64_t>& counts, bool cosine,
                   bool with_means, int threads) {
    const int64_t runs = counts.shape(0), dim = tokens.shape(1);
    int64_t count = 0;
    for (int64_t run = 0; with_means && run < runs; ++run) count += counts.data()[run];
    Array<int64_t> clusters(tokens.shape(0));
    Array<float> means({count, dim});
    int64_t* const out = clusters.mutable_data();
    float* const of_each = with_means ? means.mutable_data() : nullptr;
    without_gil([&] {
        dense::cluster(tokens.data(), offsets.data(), runs, dim, counts.data(), cosine, out, of_each, threads);
    });
    return py::make_tuple(clusters, means);
}

// Matrices of tokens one below the other, where they begin and end, and whether all numbers are at most `limit` in
// magnitude. One alone is not copied. Python's lock is kept for what takes microseconds: to wait for it takes longer.
py::tuple packed(const std::vector<Array<float>>& matrices, float limit) {
    Array<int64_t> offsets(matrices.size() + 1);
    int64_t* const ends = offsets.mutable_data();
    ends[0] = 0;
    for (size_t i = 0; i < matrices.size(); ++i) ends[i + 1] = ends[i] + matrices[i].shape(0);
    const int64_t dim = matrices.at(0).shape(1), numbers = ends[matrices.size()] * dim;
    std::vector<const float*> from;
    for (const Array<float>& matrix : matrices) {
        if (matrix.shape(1) != dim) throw std::invalid_argument("matrices must have one width");
        from.push_back(matrix.data());
    }
    const bool alone = matrices.size() == 1;
    Array<float> tokens = alone ? matrices[0] : Array<float>({ends[matrices.size()], dim});
    float* const to = alone ? nullptr : tokens.mutable_data();
    bool fine = true;
    const auto work = [&] {
        for (size_t i = 0; i < from.size(); ++i) {
            const int64_t size = (ends[i + 1] - ends[i]) * dim;
            if (to != nullptr) std::copy_n(from[i], size, to + ends[i] * dim);
            fine = fine && dense::within(from[i], size, limit);
        }
    };
    constexpr int64_t kBrief = 1 << 18;  // numbers, a megabyte
    if (numbers <= kBrief)
        work();
    else
        without_gil(work);
    return py::make_tuple(tokens, offsets, fine);
}

}  // namespace

inline void bind_dense(py::module_& m) {
    m.def(
        "bad_rows",
        [](const py::array& tokens, int dtype, int threads) {
            dense::BadRows rows{-1, -1};
            without_gil([&] {
                rows = dense::bad_rows(tokens.data(), static_cast<Dtype>(dtype), tokens.shape(0), tokens.shape(1),
                                       threads);
            });
            return std::make_pair(rows.nonfinite, rows.zero);
        },
        py::arg("tokens"), py::arg("dtype"), py::arg("threads"));

    m.def(
        "sketch",
        [](const Array<float>& tokens, int threads) {
            const int64_t rows = tokens.shape(0), dim = tokens.shape(1);
            py::array_t<int8_t> codes = aligned(rows * dim + dense::sketch_padding(dim));
            py::array_t<float> scales({rows, int64_t{2}});
            int8_t* const to = codes.mutable_data();
            auto* const scales_to = reinterpret_cast<dense::SketchScale*>(scales.mutable_data());
            without_gil([&] { dense::sketch(tokens.data(), rows, dim, threads, to, scales_to); });
            return py::make_tuple(codes, scales);
        },
        py::arg("tokens"), py::arg("threads"));

    m.def(
        "maxsim",
        [](const py::array& queries, int query_dtype, const Offsets& query_offsets, const py::array& documents,
           int document_dtype, const Offsets& document_offsets, int threads, const Codes& codes, const Scales& scales) {
            const dense::Matrices left = view(queries, query_dtype, query_offsets);
            const dense::Matrices right = view(documents, document_dtype, document_offsets, codes, scales);
            py::array_t<float> scores({left.count, right.count});
            float* const out = scores.mutable_data();
            const int64_t dim = queries.shape(1);
            without_gil([&] { dense::maxsim(left, right, dim, threads, out); });
            return scores;
        },
        py::arg("queries"), py::arg("query_dtype"), py::arg("query_offsets"), py::arg("documents"),
        py::arg("document_dtype"), py::arg("document_offsets"), py::arg("threads"), py::arg("codes") = py::none(),
        py::arg("scales") = py::none());

    m.def(
        "maxsim_pairs",
        [](const py::array& queries, int query_dtype, const Offsets& query_offsets, const py::array& documents,
           int document_dtype, const Offsets& document_offsets, const Offsets& query_index,
           const Offsets& document_index, int threads, const Codes& codes, const Scales& scales) {
            const dense::Matrices left = view(queries, query_dtype, query_offsets);
            const dense::Matrices right = view(documents, document_dtype, document_offsets, codes, scales);
            const int64_t pairs = query_index.shape(0), dim = queries.shape(1);
            py::array_t<float> scores(pairs);
            float* const out = scores.mutable_data();
            without_gil([&] {
                dense::maxsim_pairs(left, right, dim, query_index.data(), document_index.data(), pairs, threads, out);
            });
            return scores;
        },
        py::arg("queries"), py::arg("query_dtype"), py::arg("query_offsets"), py::arg("documents"),
        py::arg("document_dtype"), py::arg("document_offsets"), py::arg("query_index"), py::arg("document_index"),
        py::arg("threads"), py::arg("codes") = py::none(), py::arg("scales") = py::none());
    m.def("packed", &packed, py::arg("matrices"), py::arg("limit"));
    m.def("pool", &pool);
    m.def("cluster", &cluster);
}

}  // namespace lateint::bindings
