"""Stands in for a GPU below `lateint_kernels.gpu.program`: launches execute the PTX that NVRTC makes of csrc/cuda."""

import ctypes
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from compile_cuda import compiled

from lateint_kernels.gpu import program
from ptx.grid import Tensors, run
from ptx.instructions.copies import Matrix
from ptx.program import parse

MAP_BYTES = 128
# Orders of warps, times of copies and places of shared memory that tests run in: the first, and with LATEINT_PTX=long
# all of them, which takes minutes. Shared memory rarely begins where a swizzle's pattern does.
LONG = os.environ.get("LATEINT_PTX") == "long"
ORDERS = (
    {"base": 1040},
    {"seed": 1, "base": 1024},
    {"seed": 2, "late": False, "skew": 0.6},
)[: 3 if LONG else 1]


@functools.cache
def text_of(source, name, defines, arch):
    """PTX of a source."""
    return compiled(source, name, defines, arch.replace("sm", "compute"))[0].rstrip(b"\0").decode()


@functools.cache
def program_of(text):
    """Parsed once."""
    return parse(text)


def unchanged(name, text):
    """Of a kernel."""
    return text


@dataclass
class Simulation:
    """A GPU.

    Args:
        gpu: what launch sizes depend on.
        seed: of the order of warps and blocks, and of when copies land.
        late: asynchronous work happens as late as it may.
        skew: how often a warp goes on alone.
        base: where shared memory of a kernel begins.
        of_source: changes the source of a kernel of some name, before it is compiled.
    """

    gpu: program.Gpu
    seed: int = 0
    late: bool = True
    skew: float = 0.15
    base: int = 1024
    of_source: Callable[[str, str], str] = unchanged
    tensors: dict = field(default_factory=dict)
    maps: dict = field(default_factory=dict)
    launched: list = field(default_factory=list)

    def install(self, monkeypatch, *modules):
        """Has launches of these modules come here, whose tensors lie on the host."""
        monkeypatch.setattr(program, "gpu", lambda index: self.gpu)
        monkeypatch.setattr(program, "load", lambda name, defines, index: Kernel(self, name, tuple(defines)))
        monkeypatch.setattr(program, "tensor_map", self.tensor_map)
        for module in modules:
            monkeypatch.setattr(module, "pointer", self.pointer)
        return self

    def pointer(self, tensor):
        """`lateint_kernels.gpu.arguments.pointer`, which remembers what is there."""
        if tensor is None:
            return None
        self.tensors[tensor.data_ptr()] = tensor
        return tensor.data_ptr()

    def tensor_map(self, matrix, box_rows, *where):
        """`lateint_kernels.gpu.program.tensor_map`: no driver writes it, so any bytes are as good."""
        key = os.urandom(MAP_BYTES)
        self.maps[key] = matrix, box_rows
        return key


@dataclass(frozen=True)
class Kernel:
    """Stands in for `lateint_kernels.gpu.program.Kernel`."""

    simulation: Simulation
    name: str
    defines: program.Defines

    def launch(self, grid, threads, shared, arguments):
        simulation, gpu = self.simulation, program.gpu(0)
        assert shared <= gpu.shared_per_block and max(grid[1:]) <= 65535
        source = simulation.of_source(self.name, program.source_of(f"{self.name}.cu"))
        text = text_of(source, self.name, self.defines, gpu.arch)
        code = program_of(text)
        assert code.parameter_bytes == ctypes.sizeof(arguments)
        tensors, given = Tensors(), type(arguments).from_buffer_copy(arguments)
        self.place(given, tensors)
        maps = {
            key: Matrix(tensors.put(matrix), *matrix.shape, rows) for key, (matrix, rows) in simulation.maps.items()
        }
        simulation.launched.append((self.name, grid))
        how = {name: getattr(simulation, name) for name in ("seed", "late", "skew", "base")}
        run(code, tensors, grid, threads, bytes(given), shared, tensor_maps=maps, **how)

    def place(self, arguments, tensors):
        """Points the arguments to where their tensors are."""
        for name, kind in arguments._fields_:
            value = getattr(arguments, name)
            if isinstance(value, ctypes.Structure):
                self.place(value, tensors)
            elif kind is ctypes.c_void_p and value is not None:
                setattr(arguments, name, tensors.put(self.simulation.tensors[value]))
