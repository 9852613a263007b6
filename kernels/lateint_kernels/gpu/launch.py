"""Which sizes a kernel is launched with: one table per architecture, nothing is tried out at run time."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@dataclass(frozen=True)
class Architecture:
    """What launches depend on.

    Args:
        multiprocessors: how many the device has.
        shared: bytes of shared memory that one program can have.
        block_m: most query rows of a program of `forward`.
        block_n: document tokens of a tile: of these, the one that wastes least.
        stages: most tiles on their way at a time.
        float32_block: rows and tokens of a tile of float32, which the matrix units cannot multiply.
        float32_step: components of it at a time, at least 16.
        warp_numbers: similarities of a warp, at least; a program has 4 warps or 8.
        gathering: programs of `query_gradients` that there should be for each multiprocessor.
        block_k: query rows that `document_gradients` takes at a time, fewer where registers are short.
        selecting: rows of numbers that a program takes the k-th largest of.
    """

    multiprocessors: int
    shared: int
    block_m: int = 128
    block_n: tuple[int, ...] = (64, 128)
    stages: int = 3
    float32_block: int = 64
    float32_step: int = 16
    warp_numbers: int = 2048
    gathering: int = 16
    block_k: int = 64
    selecting: int = 1


# By compute capability; the number of multiprocessors is then asked of the device.
ARCHITECTURES = {
    80: Architecture(108, 163 << 10, block_k=32),
    86: Architecture(84, 99 << 10, block_k=32),
    90: Architecture(132, 227 << 10),
    100: Architecture(148, 227 << 10, warp_numbers=1024),
    120: Architecture(170, 99 << 10, block_k=32),
}
# Few programs, for each takes milliseconds.
INTERPRETER = Architecture(
    1, 227 << 10, block_m=64, block_n=(32,), stages=2, float32_block=64, float32_step=64, gathering=1, selecting=64
)


@dataclass(frozen=True)
class Launch:
    """A kernel with everything it is given."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    registers: int | None = None  # of a thread, at most
    fused: bool = True  # a product and a sum may be rounded once

    @property
    def options(self) -> dict[str, Any]:
        """For the compiler."""
        options = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": self.fused}
        return options if self.registers is None else options | {"maxnreg": self.registers}

    def run(self) -> None:
        """Starts it, unless there is nothing to do."""
        if self.programs:
            with _numpy_is_silent() if INTERPRETED.value else nullcontext():
                self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)

    def compile(self) -> None:
        """Compiles it for the current device without starting it, or finds it in Triton's cache on disk."""
        self.kernel.warmup(**self.arguments, **self.constants, **self.options, grid=(1,))


def _numpy_is_silent() -> AbstractContextManager[Any]:
    """About infinity and NaN, which tokens may hold: the interpreter computes with numpy."""
    return np.errstate(all="ignore")


def architecture(device: torch.device) -> Architecture:
    """The entry of the table for a device."""
    if INTERPRETED.value:
        return INTERPRETER
    return _architecture(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache
def _architecture(index: int) -> Architecture:
    properties = torch.cuda.get_device_properties(index)
    capability = 10 * properties.major + properties.minor
    newest = max((number for number in ARCHITECTURES if number <= capability), default=80)
    return replace(ARCHITECTURES[newest], multiprocessors=properties.multi_processor_count)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def why_not(
    op: str, device: torch.device | str, dtype: torch.dtype | None = None, dim: int | None = None
) -> str | None:
    """Why no kernel can run on a device, whatever it computes; None if one can."""
    if INTERPRETED.value and _version(triton) < (3, 7) and _version(np) >= (2, 4):
        return "the interpreter of Triton before 3.7 cannot work with NumPy from 2.4"
    if torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "needs compute capability 8.0"
    return None


def _version(module: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])
