// Instruction sets and threads.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/gil.hpp"
#include "platform/isa.hpp"
#include "platform/threads.hpp"

namespace py = pybind11;

namespace lateint::bindings {

inline void bind_platform(py::module_& m) {
    active_isa();  // a wrong LATEINT_ISA or LATEINT_NUM_THREADS fails the import, not some later call
    threads_for(0);
    m.def("isa_names", [] {
        std::vector<std::string> names;
        for (int level = 0; level < isa_count(); ++level) names.emplace_back(isa_name(static_cast<Isa>(level)));
        return names;
    });
    m.def("best_isa", [] { return isa_name(best_isa()); });
    m.def("isa_limit", [] { return isa_limit(); });
    m.def("active_isa", [] { return isa_name(active_isa()); });
    m.def(
        "set_active_isa", [](const std::string& name) { set_active_isa(isa_from_name(name.c_str())); },
        py::arg("name"));
    m.def("default_threads", &default_threads);
    m.def(
        "parallel_for",
        [](int64_t tasks, int threads, const std::function<void(int64_t, int)>& body) {
            without_gil([&] {
                parallel_for(tasks, threads, body);  // pybind11 takes the GIL around each call of body
            });
        },
        py::arg("tasks"), py::arg("threads"), py::arg("body"));
}

}  // namespace lateint::bindings
