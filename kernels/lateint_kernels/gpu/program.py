"""CUDA sources: compiled at first use with NVRTC, kept on disk, launched. No compiler of the user's, no C++ of torch's.

A cubin is named by the sha256 of all that made it (source with its headers, architecture, definitions, version of
NVRTC), never by a time, and begins with the sha256 of its bytes, so that a damaged one is noticed and made again. The
folder is ``$LATEINT_CACHE_DIR``, or ``lateint`` in the user's cache folder.
"""

import ctypes
import functools
import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = hashlib.sha256().digest_size
INCLUDE = re.compile(r'#include "(\w+\.cuh)"\n')

Defines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gpu:
    """What launch sizes depend on."""

    arch: str
    multiprocessors: int
    shared_per_block: int
    shared_per_multiprocessor: int


@dataclass(frozen=True)
class Kernel:
    """A kernel of one architecture, loaded; its one argument is a struct passed by value."""

    name: str
    handle: Any
    device_index: int

    def launch(self, grid: tuple[int, int, int], threads: int, shared: int, arguments: ctypes.Structure) -> None:
        """Runs on torch's current stream of the device; nothing is synchronised, so CUDA graphs may record it."""
        import torch
        from cuda.bindings import driver

        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        stream = torch.cuda.current_stream(self.device_index).cuda_stream
        function = driver.CUfunction(int(self.handle))
        with _context(self.device_index):
            _check(
                driver.cuLaunchKernel(
                    function, *grid, threads, 1, 1, shared, driver.CUstream(stream), ctypes.addressof(pointers), 0
                )
            )


@functools.cache
def load(name: str, defines: Defines, device_index: int) -> Kernel:
    """The kernel ``name`` of csrc/cuda/``name``.cu, ready for a device."""
    from cuda.bindings import driver

    device = gpu(device_index)
    code = cubin(name, defines, device.arch)
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    with _context(device_index):
        library = _check(driver.cuLibraryLoadData(code, [], [], 0, [], [], 0))
        kernel = _check(driver.cuLibraryGetKernel(library, name.encode()))
        _check(driver.cuKernelSetAttribute(most, device.shared_per_block, kernel, _device(device_index)))
    return Kernel(name, kernel, device_index)


def tensor_map(matrix: "Tensor", box_rows: int) -> bytes:
    """How the copy engine reads ``[rows, dim]`` numbers of 16 bits, in swizzled boxes of 64 columns: a CUtensorMap."""
    rows, dim = matrix.shape
    room = ctypes.create_string_buffer(128 + 64)
    address = -(-ctypes.addressof(room) // 64) * 64  # which cuda-bindings do not see to
    error = ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled(
        ctypes.c_void_p(address),
        ctypes.c_int(1),  # unsigned numbers of 16 bits
        ctypes.c_uint(2),
        ctypes.c_void_p(matrix.data_ptr()),
        (ctypes.c_uint64 * 2)(dim, rows),
        (ctypes.c_uint64 * 1)(dim * 2),
        (ctypes.c_uint32 * 2)(64, box_rows),
        (ctypes.c_uint32 * 2)(1, 1),
        ctypes.c_int(0),  # not interleaved
        ctypes.c_int(3),  # swizzled by 128 bytes
        ctypes.c_int(3),  # L2 reads 256 bytes
        ctypes.c_int(0),  # zeros outside of the matrix
    )
    if error:
        raise RuntimeError(f"the CUDA driver does not describe a matrix of {rows} rows of {dim}: error {error}")
    return ctypes.string_at(address, 128)


@functools.cache
def gpu(device_index: int) -> Gpu:
    """The device's architecture and sizes."""
    from cuda.bindings import driver

    wanted = driver.CUdevice_attribute
    device = _device(device_index)

    def attribute(name: str) -> int:
        return int(_check(driver.cuDeviceGetAttribute(getattr(wanted, f"CU_DEVICE_ATTRIBUTE_{name}"), device)))

    major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
    return Gpu(
        # wgmma is in sm_90a alone.
        arch=f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else ""),
        multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
        shared_per_block=attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        shared_per_multiprocessor=attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
    )


def cubin(name: str, defines: Defines, arch: str) -> bytes:
    """A compiled kernel: from the disk, or made and kept there."""
    source = source_of(f"{name}.cu")
    made_of = repr((source, defines, arch, nvrtc_version()))
    path = cache_folder() / f"{name}-{arch}-{hashlib.sha256(made_of.encode()).hexdigest()}.cubin"
    code = _read(path)
    if code is None:
        code = compile_source(source, name, defines, arch)
        _write(path, code)
    return code


def compile_source(source: str, name: str, defines: Defines, arch: str) -> bytes:
    """What NVRTC makes of a source."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(arch=arch, define_macro=list(defines) or None, name=f"{name}.cu")
    return bytes(Program(source, code_type="c++", options=options).compile("cubin").code)


def nvrtc_version() -> tuple[int, int]:
    """Of the library found; raises if there is none."""
    from cuda.bindings import nvrtc

    error, major, minor = nvrtc.nvrtcVersion()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC does not say its version: {error}")
    return int(major), int(minor)


@functools.cache
def known_architectures() -> frozenset[int]:
    """Those that NVRTC makes code for; 90 is sm_90 and sm_90a."""
    from cuda.bindings import nvrtc

    error, numbers = nvrtc.nvrtcGetSupportedArchs()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC does not say what it makes code for: {error}")
    return frozenset(numbers)


@functools.cache
def source_of(file: str) -> str:
    """A source with its headers in it, each once: one text, so one digest covers all of it."""
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (source_folder() / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return INCLUDE.sub(lambda found: text_of(found[1]), text)

    return text_of(file)


def source_folder() -> Path:
    """Where the sources are: in the installed package, or beside it in the tree."""
    shipped = Path(__file__).with_name("src")
    return shipped if shipped.is_dir() else Path(__file__).parents[3] / "csrc" / "cuda"


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    chosen = os.environ.get("LATEINT_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lateint"


def _read(path: Path) -> bytes | None:
    """The bytes kept in a file; None if there are none, or not those that were written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    code = data[DIGEST:]
    return code if code and hashlib.sha256(code).digest() == data[:DIGEST] else None


def _write(path: Path, code: bytes) -> None:
    """Another process sees all of the file or none of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, path)
    except OSError as error:
        _warn_unkept(str(path.parent), error.strerror or str(error))


@functools.cache
def _warn_unkept(folder: str, reason: str) -> None:
    warnings.warn(f"compiled kernels cannot be kept in {folder} ({reason}); set LATEINT_CACHE_DIR", stacklevel=2)


@functools.cache
def _device(index: int) -> Any:
    from cuda.bindings import driver

    _check(driver.cuInit(0))
    return _check(driver.cuDeviceGet(index))


@functools.cache
def _primary_context(index: int) -> Any:
    """The context torch uses too."""
    from cuda.bindings import driver

    return _check(driver.cuDevicePrimaryCtxRetain(_device(index)))


@contextmanager
def _context(index: int) -> Iterator[None]:
    """Makes a device the current one, whatever this thread has used so far."""
    from cuda.bindings import driver

    _check(driver.cuCtxPushCurrent(_primary_context(index)))
    try:
        yield
    finally:
        _check(driver.cuCtxPopCurrent())


def _check(answer: tuple[Any, ...]) -> Any:
    """The value of a driver call, or its error raised."""
    from cuda.bindings import driver

    error = answer[0]
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the CUDA driver says {error.name}")
    return answer[1] if len(answer) > 1 else None
