// The Python module lateint_kernels._cpu. Each family binds itself; arguments arrive already checked. All of them are
// one translation unit: what pybind11 makes of its templates takes longer to compile than all kernels, and is made
// once.
#include "bindings/codes.hpp"
#include "bindings/dense.hpp"
#include "bindings/engine.hpp"
#include "bindings/platform.hpp"
#include "bindings/text.hpp"
#include "bindings/train.hpp"

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Compiled CPU kernels of lateint; use the checked functions of lateint_kernels instead.";
    lateint::bindings::bind_platform(m);
    lateint::bindings::bind_dense(m);
    lateint::bindings::bind_train(m);
    lateint::bindings::bind_codes(m);
    lateint::bindings::bind_engine(m);
    lateint::bindings::bind_text(m);
}
