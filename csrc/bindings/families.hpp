#pragma once

#include <pybind11/pybind11.h>

namespace lateint {

void bind_platform(pybind11::module_& m);  // instruction sets, threads
void bind_maxsim(pybind11::module_& m);    // exact MaxSim on dense documents
void bind_codes(pybind11::module_& m);     // centroids, residual codes, search
void bind_train(pybind11::module_& m);     // MaxSim with gradients

}  // namespace lateint
