// Work without the interpreter's lock: other threads run Python meanwhile, and a signal stops it.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <exception>
#include <thread>

#include "platform/interrupt.hpp"

namespace lateint::bindings {

// Runs the handlers of signals that came in; true if one raised (Ctrl-C does). Only the main thread has any.
inline bool signal_raised() {
    if (!on_main_thread()) return false;
    const PyGILState_STATE state = PyGILState_Ensure();
    const bool raised = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return raised;
}

// Takes the lock back. While the interpreter shuts down it ends every other thread that tries, by unwinding its stack:
// that would drop references without the lock, or meet a destructor and abort. So the thread stays here and ends with
// the process.
inline void take_gil(PyThreadState* state) {
    try {
        PyEval_RestoreThread(state);
    } catch (...) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

// work() must touch no object of Python. What it throws comes back, and so does what a signal handler raised.
template <class Work>
void without_gil(const Work& work) {
    std::exception_ptr error;
    bool interrupted = false;
    PyThreadState* const state = PyEval_SaveThread();
    try {
        const Interruptible interruptible(&signal_raised);
        work();
    } catch (const Interrupted&) {
        interrupted = true;
    } catch (...) {
        error = std::current_exception();
    }
    take_gil(state);
    if (interrupted) throw pybind11::error_already_set();
    if (error) std::rethrow_exception(error);
}

}  // namespace lateint::bindings
