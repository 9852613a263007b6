#pragma once

#include <pybind11/pybind11.h>

namespace lateint::bindings {

void bind_platform(pybind11::module_& m);  // instruction sets, threads
void bind_dense(pybind11::module_& m);     // exact MaxSim on dense documents
void bind_train(pybind11::module_& m);     // MaxSim with gradients
void bind_codes(pybind11::module_& m);     // centroids, residual codes
void bind_engine(pybind11::module_& m);    // search
void bind_text(pybind11::module_& m);      // search by words and sparse vectors

}  // namespace lateint::bindings
