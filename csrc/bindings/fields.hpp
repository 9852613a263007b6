// Arrays of an index, read off an object of Python by the names of its fields.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "platform/damaged.hpp"

namespace lateint::bindings {

// Reads the arrays of an index, checks their shapes and keeps them alive.
class Fields {
public:
    // The array of a field. `shape` is what it must be, -1 for any length.
    template <class T>
    Array<T> get(const pybind11::object& arrays, const char* name, const std::vector<int64_t>& shape) {
        Array<T> array = array_of<T>(arrays, name);
        bool fits = array.ndim() == static_cast<pybind11::ssize_t>(shape.size());
        for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || array.shape(i) == shape[i];
        if (!fits) {
            std::string wanted, got;
            for (const int64_t size : shape)
                wanted += (wanted.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
            for (pybind11::ssize_t i = 0; i < array.ndim(); ++i)
                got += (got.empty() ? "" : ", ") + std::to_string(array.shape(i));
            damaged(std::string(name) + " must be [" + wanted + "], got [" + got + "]");
        }
        kept_.push_back(array);
        return array;
    }

private:
    std::vector<pybind11::object> kept_;
};

}  // namespace lateint::bindings
