"""The CUDA driver, by ctypes: its library is loaded once, and a call costs about a microsecond."""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_uint, c_void_p
from typing import Any

_ADDRESS = ctypes.POINTER(c_void_p)
_NUMBER = ctypes.POINTER(c_int)

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (_NUMBER, c_int),
    "cuDeviceGetAttribute": (_NUMBER, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_ADDRESS, c_int),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (_ADDRESS,),
    "cuLibraryLoadData": (_ADDRESS, c_char_p, c_void_p, c_void_p, c_uint, c_void_p, c_void_p, c_uint),
    "cuLibraryGetKernel": (_ADDRESS, c_void_p, c_char_p),
    "cuKernelSetAttribute": (c_int, c_int, c_void_p, c_int),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p),
    "cuTensorMapEncodeTiled": (c_void_p, c_int, c_uint, *[c_void_p] * 5, *[c_int] * 4),
    "cuGetErrorName": (c_int, ctypes.POINTER(c_char_p)),
    "cuGetErrorString": (c_int, ctypes.POINTER(c_char_p)),
}
ATTRIBUTES = {  # of a device
    "multiprocessors": 16,
    "major": 75,
    "minor": 76,
    "shared_per_multiprocessor": 81,
    "shared_per_block": 97,
}
MOST_DYNAMIC_SHARED = 8  # an attribute of a kernel


@functools.cache
def function(name: str) -> Any:
    """Of the driver; raises OSError where there is none, AttributeError where it is too old to have it."""
    found = getattr(_library(), name)
    found.argtypes, found.restype = FUNCTIONS[name], c_int
    return found


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def call(name: str, *arguments: Any) -> None:
    """Calls a function; raises RuntimeError with the driver's name of an error and its sentence."""
    error = function(name)(*arguments)
    if error:
        told = ": ".join(filter(None, (_text("cuGetErrorName", error), _text("cuGetErrorString", error))))
        raise RuntimeError(f"the CUDA driver says {told or error}")


def _text(name: str, error: int) -> str:
    text = c_char_p()
    function(name)(error, ctypes.byref(text))
    return (text.value or b"").decode()


@functools.cache
def device(index: int) -> int:
    """The driver's number of a device."""
    call("cuInit", 0)
    found = c_int()
    call("cuDeviceGet", ctypes.byref(found), index)
    return found.value


def attribute(index: int, name: str) -> int:
    """Of a device, by a name of `ATTRIBUTES`."""
    found = c_int()
    call("cuDeviceGetAttribute", ctypes.byref(found), ATTRIBUTES[name], device(index))
    return found.value


@functools.cache
def primary_context(index: int) -> c_void_p:
    """The one that torch uses too."""
    found = c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(found), device(index))
    return found


@contextmanager
def context(index: int) -> Iterator[None]:
    """Makes a device the current one, whatever this thread has used so far."""
    call("cuCtxPushCurrent_v2", primary_context(index))
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))


def load(code: bytes, name: str, index: int, most_shared: int) -> c_void_p:
    """A kernel of a cubin, which may take so much shared memory on a device."""
    library, kernel = c_void_p(), c_void_p()
    with context(index):
        call("cuLibraryLoadData", ctypes.byref(library), code, None, None, 0, None, None, 0)
        call("cuLibraryGetKernel", ctypes.byref(kernel), library, name.encode())
        call("cuKernelSetAttribute", MOST_DYNAMIC_SHARED, most_shared, kernel, device(index))
    return kernel


def launch(
    kernel: c_void_p, index: int, grid: tuple[int, int, int], threads: int, shared: int, stream: int, argument: Any
) -> None:
    """Starts a kernel of one argument, a struct passed by value."""
    pointers = c_void_p(ctypes.addressof(argument))
    call("cuCtxPushCurrent_v2", primary_context(index))
    try:
        call("cuLaunchKernel", kernel, *grid, threads, 1, 1, shared, stream, ctypes.addressof(pointers), None)
    finally:
        call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))


def describe_matrix(index: int, address: int, rows: int, dim: int, box_rows: int) -> bytes:
    """A CUtensorMap: how the copy engine reads numbers of 16 bits, in swizzled boxes of 64 columns."""
    room = ctypes.create_string_buffer(128 + 64)
    aligned = -(-ctypes.addressof(room) // 64) * 64
    sizes, stride = (ctypes.c_uint64 * 2)(dim, rows), (ctypes.c_uint64 * 1)(dim * 2)
    box, steps = (ctypes.c_uint32 * 2)(64, box_rows), (ctypes.c_uint32 * 2)(1, 1)
    # Unsigned numbers of 16 bits, rank 2; not interleaved, swizzled by 128 bytes, L2 reads 256 bytes, zeros outside.
    with context(index):
        call("cuTensorMapEncodeTiled", aligned, 1, 2, address, sizes, stride, box, steps, 0, 3, 3, 0)
    return ctypes.string_at(aligned, 128)
