#pragma once

#include <pybind11/pybind11.h>

namespace lateint {

void bind(pybind11::module_& m);  // instruction sets, threads
namespace dense {
void bind(pybind11::module_& m);  // exact MaxSim on dense documents
}
namespace train {
void bind(pybind11::module_& m);  // MaxSim with gradients
}
namespace codes {
void bind(pybind11::module_& m);  // centroids, residual codes, search
}

}  // namespace lateint
