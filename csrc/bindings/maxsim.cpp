#include <pybind11/numpy.h>

#include "bindings/families.hpp"
#include "rows.hpp"

namespace py = pybind11;

namespace lateint {

void bind_maxsim(py::module_& m) {
    const auto rows = [&m](const char* name, int64_t (*function)(const void*, Dtype, int64_t, int64_t, int)) {
        m.def(
            name,
            [function](const py::array& tokens, int dtype, int threads) {
                const py::gil_scoped_release release;
                return function(tokens.data(), static_cast<Dtype>(dtype), tokens.shape(0), tokens.shape(1), threads);
            },
            py::arg("tokens"), py::arg("dtype"), py::arg("threads"));
    };
    rows("first_nonfinite_row", &first_nonfinite_row);
    rows("first_zero_row", &first_zero_row);
}

}  // namespace lateint
