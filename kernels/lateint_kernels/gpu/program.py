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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateint_kernels.gpu import driver

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

        stream = torch.cuda.current_stream(self.device_index).cuda_stream
        driver.launch(self.handle, self.device_index, grid, threads, shared, stream, arguments)


@functools.cache
def load(name: str, defines: Defines, device_index: int) -> Kernel:
    """The kernel ``name`` of csrc/cuda/``name``.cu, ready for a device."""
    device = gpu(device_index)
    handle = driver.load(cubin(name, defines, device.arch), name, device_index, device.shared_per_block)
    return Kernel(name, handle, device_index)


@functools.cache
def why_not_loadable(device_index: int) -> str | None:
    """Why a device's driver does not take what NVRTC makes, such as one that is older; None if it does."""
    try:
        load("loadable", (), device_index)
    except Exception as error:  # of the driver, of NVRTC, or a driver without the function
        sentence = (str(error) or type(error).__name__).splitlines()[0]
        return f"compiled kernels cannot be loaded: {sentence}"
    return None


def tensor_map(matrix: "Tensor", box_rows: int) -> bytes:
    """How the copy engine reads ``[rows, dim]`` numbers of 16 bits, in swizzled boxes of 64 columns: a CUtensorMap."""
    return _tensor_map(matrix.get_device(), matrix.data_ptr(), *matrix.shape, box_rows)


# It says where a matrix is and nothing of what is there: so it stays right when memory is given to another one.
@functools.lru_cache(maxsize=1024)
def _tensor_map(device_index: int, address: int, rows: int, dim: int, box_rows: int) -> bytes:
    return driver.describe_matrix(device_index, address, rows, dim, box_rows)


@functools.cache
def gpu(device_index: int) -> Gpu:
    """The device's architecture and sizes."""
    major, minor = (driver.attribute(device_index, name) for name in ("major", "minor"))
    return Gpu(
        # wgmma is in sm_90a alone.
        arch=f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else ""),
        multiprocessors=driver.attribute(device_index, "multiprocessors"),
        shared_per_block=driver.attribute(device_index, "shared_per_block"),
        shared_per_multiprocessor=driver.attribute(device_index, "shared_per_multiprocessor"),
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
