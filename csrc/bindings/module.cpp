// The Python module lateint_kernels._cpu. Each family binds itself; arguments arrive already checked.
#include "bindings/families.hpp"

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Compiled CPU kernels of lateint; use the checked functions of lateint_kernels instead.";
    lateint::bind(m);
    lateint::dense::bind(m);
    lateint::codes::bind(m);
    lateint::train::bind(m);
}
