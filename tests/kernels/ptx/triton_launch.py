"""Stands in for a GPU below `lateint_kernels.gpu.launch`: launches execute the PTX that Triton makes.

Triton must be imported without its interpreter, which the tests switch on: so this is for scripts.
"""

import functools
import struct

from compile_triton import compiled

from lateint_kernels.gpu import launch
from ptx.grid import Tensors, run
from ptx.program import parse


@functools.cache
def program_of(text):
    """Parsed once."""
    return parse(text)


def execute(planned, capability, seed=0):
    """Runs a launch on tensors of the host."""
    if not planned.programs:
        return
    kernel = compiled(planned, capability)
    program, tensors = program_of(kernel.asm["ptx"]), Tensors()
    given, places = bytearray(program.parameter_bytes), iter(program.parameters.values())
    for name in planned.kernel.arg_names:
        value = planned.arguments.get(name)
        if name in planned.constants or value is None:
            continue
        if isinstance(value, int | float):
            number = struct.pack("<i" if isinstance(value, int) else "<f", value)
        else:
            number = struct.pack("<q", tensors.put(value))
        at = next(places)
        given[at : at + len(number)] = number
    grid, threads = (planned.programs, 1, 1), planned.warps * 32
    run(program, tensors, grid, threads, bytes(given), kernel.metadata.shared, seed=seed)


def install(capability, *modules):
    """Has launches of these modules come here, sized for a GPU of this capability."""
    architecture = launch.ARCHITECTURES[capability]
    for module in modules:
        module.architecture = lambda device: architecture
    launch.Launch.run = lambda self: execute(self, capability)
