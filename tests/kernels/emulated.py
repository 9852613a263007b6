"""CUDA kernels without a GPU: compiled for the host with emulation/emulate.hpp, and tensors with guarded ends."""

import ctypes
import functools
import mmap
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from lateint_kernels.gpu import program

COMPILER = shutil.which("g++") or shutil.which("clang++")
EMULATION = Path(__file__).parent / "emulation"
FORWARDS, BACKWARDS, LATE = 0, 1, 2  # the order of threads; asynchronous copies as late as possible
WHY_NOT = None if COMPILER and sys.platform == "linux" else "emulation needs Linux and a C++ compiler"


@dataclass
class Emulated:
    """Stands in for program.Kernel."""

    library: ctypes.CDLL
    mode: int

    def launch(self, grid, threads, shared, arguments):
        error = self.library.launch(ctypes.byref(arguments), (ctypes.c_uint * 3)(*grid), threads, shared, self.mode)
        assert error is None, error.decode()


def compiler(folder):
    """What compiles a kernel into a library kept in a folder."""

    @functools.cache
    def build(name, defines):
        text = program.source_of(f"{name}.cu")
        arguments = re.search(r"\b(lateint::\w+) arguments\)", text)[1]
        stem = "-".join([name, *(value for _, value in defines)])
        source = folder / f"{stem}.cpp"
        source.write_text(
            f'#include "emulate.hpp"\n{text}\n'
            f"static {arguments} arguments;\n"
            f"static void run() {{ {name}(arguments); }}\n"
            'extern "C" const char* launch(const void* given, const unsigned* grid, unsigned block, unsigned shared,\n'
            "                              int mode) {\n"
            "    std::memcpy(&arguments, given, sizeof arguments);\n"
            "    return emulate(run, grid, block, shared, mode);\n}\n"
        )
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-I{EMULATION}"]
        defined = [f"-D{key}={value}" for key, value in defines]
        target = source.with_suffix(".so")
        subprocess.run([COMPILER, *flags, *defined, str(source), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
        library.launch.restype = ctypes.c_char_p
        return library

    return build


def guarded(tensor):
    """A copy that ends, but for 15 bytes at most, where memory ends: reading on is noticed."""
    if not tensor.numel():
        return tensor
    page, size = mmap.PAGESIZE, -(-tensor.nbytes // 16) * 16
    pages = -(-size // page) * page
    memory = mmap.mmap(-1, pages + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + pages), ctypes.c_size_t(page), 0) == 0
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=pages - size)
    return copy.view(tensor.shape).copy_(tensor)
