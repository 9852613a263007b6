// MaxSim with gradients.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/gil.hpp"
#include "train/problem.hpp"

namespace py = pybind11;

namespace lateint::bindings {
namespace {

// Tensors arrive as addresses of contiguous memory that the caller keeps alive; 0: not given.
template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

}  // namespace

inline void bind_train(py::module_& m) {
    py::class_<train::Problem>(m, "TrainProblem")
        .def(py::init([](int dtype, int64_t dim, int64_t query_count, int64_t document_count, int64_t max_query_length,
                         int64_t pairs, uintptr_t queries, uintptr_t query_offsets, uintptr_t documents,
                         uintptr_t document_offsets, uintptr_t query_weights, uintptr_t query_inverse_norms,
                         uintptr_t document_inverse_norms, uintptr_t document_scales, uintptr_t document_mask,
                         uintptr_t query_index, uintptr_t document_index) {
                 train::Problem problem{};
                 problem.dtype = static_cast<Dtype>(dtype);
                 problem.dim = dim;
                 problem.query_count = query_count;
                 problem.document_count = document_count;
                 problem.max_query_length = max_query_length;
                 problem.pairs = pairs;
                 problem.queries = pointer<void>(queries);
                 problem.query_offsets = pointer<int64_t>(query_offsets);
                 problem.documents = pointer<void>(documents);
                 problem.document_offsets = pointer<int64_t>(document_offsets);
                 problem.query_weights = pointer<float>(query_weights);
                 problem.query_inverse_norms = pointer<float>(query_inverse_norms);
                 problem.document_inverse_norms = pointer<float>(document_inverse_norms);
                 problem.document_scales = pointer<float>(document_scales);
                 problem.document_mask = pointer<uint8_t>(document_mask);
                 problem.query_index = pointer<int64_t>(query_index);
                 problem.document_index = pointer<int64_t>(document_index);
                 return problem;
             }),
             py::kw_only(), py::arg("dtype"), py::arg("dim"), py::arg("query_count"), py::arg("document_count"),
             py::arg("max_query_length"), py::arg("pairs"), py::arg("queries"), py::arg("query_offsets"),
             py::arg("documents"), py::arg("document_offsets"), py::arg("query_weights"),
             py::arg("query_inverse_norms"), py::arg("document_inverse_norms"), py::arg("document_scales"),
             py::arg("document_mask"), py::arg("query_index"), py::arg("document_index"))
        .def(
            "forward",
            [](const train::Problem& problem, uintptr_t scores, uintptr_t positions, int position_bytes, int threads) {
                without_gil([&] {
                    train::forward(problem, pointer<float>(scores), {pointer<void>(positions), position_bytes},
                                   threads);
                });
            },
            py::arg("scores"), py::arg("positions"), py::arg("position_bytes"), py::arg("threads"))
        .def(
            "backward",
            [](const train::Problem& problem, uintptr_t score_gradients, uintptr_t positions, int position_bytes,
               uintptr_t query_gradients, uintptr_t document_gradients, uintptr_t weight_gradients, int threads) {
                without_gil([&] {
                    train::backward(problem, pointer<float>(score_gradients),
                                    {pointer<void>(positions), position_bytes}, pointer<void>(query_gradients),
                                    pointer<void>(document_gradients), pointer<float>(weight_gradients), threads);
                });
            },
            py::arg("score_gradients"), py::arg("positions"), py::arg("position_bytes"), py::arg("query_gradients"),
            py::arg("document_gradients"), py::arg("weight_gradients"), py::arg("threads"))
        .def(
            "smooth_forward",
            [](const train::Problem& problem, float temperature, uintptr_t found, int threads) {
                without_gil([&] { train::smooth_forward(problem, temperature, pointer<float>(found), threads); });
            },
            py::arg("temperature"), py::arg("found"), py::arg("threads"))
        .def(
            "smooth_backward",
            [](const train::Problem& problem, float temperature, uintptr_t found, uintptr_t gradients,
               uintptr_t query_gradients, uintptr_t document_gradients, int threads) {
                without_gil([&] {
                    train::smooth_backward(problem, temperature, pointer<float>(found), pointer<float>(gradients),
                                           pointer<void>(query_gradients), pointer<void>(document_gradients), threads);
                });
            },
            py::arg("temperature"), py::arg("found"), py::arg("gradients"), py::arg("query_gradients"),
            py::arg("document_gradients"), py::arg("threads"))
        .def(
            "retrieve",
            [](const train::Problem& problem, int64_t k, uintptr_t best, uintptr_t positions, int position_bytes,
               uintptr_t least, int threads) {
                without_gil([&] {
                    train::retrieve(problem, k, pointer<float>(best), {pointer<void>(positions), position_bytes},
                                    pointer<float>(least), threads);
                });
            },
            py::arg("k"), py::arg("best"), py::arg("positions"), py::arg("position_bytes"), py::arg("least"),
            py::arg("threads"));
}

}  // namespace lateint::bindings
