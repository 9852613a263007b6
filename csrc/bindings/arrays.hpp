// Numpy arrays as kernels take them: C-contiguous and of one type.
#pragma once

#include <pybind11/numpy.h>

#include <string>

namespace lateint {

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// The array that an object has under a name, of T and as it lies in memory: never a converted copy.
template <class T>
Array<T> array_of(pybind11::handle object, const char* name) {
    const pybind11::object array = object.attr(name);
    if (!Array<T>::check_(array)) {
        throw pybind11::type_error(std::string(name) + " must be a C-contiguous array of " +
                                   pybind11::str(pybind11::dtype::of<T>()).template cast<std::string>());
    }
    return array.cast<Array<T>>();
}

// nullptr for None.
inline const uint8_t* optional_data(const pybind11::object& array) {
    return array.is_none() ? nullptr : array.cast<Array<uint8_t>>().data();
}

}  // namespace lateint
