"""Whether the CUDA kernels can run here, and on tokens like these."""

import functools
import importlib.util
import os
from typing import TYPE_CHECKING

from lateint_kernels.dense.cuda.forward import HOPPER_DIMS, tile_for
from lateint_kernels.gpu import program

if TYPE_CHECKING:
    import torch

# The gradients hold a row's sums in the registers of a warp; float32 rows are twice as long. The scores are formed on
# tensor cores, 16 numbers of a token at a time, with all of a token in shared memory.
MAX_DIM = {
    "maxsim": {"bfloat16": 256, "float16": 256},
    "maxsim_backward": {"bfloat16": 4096, "float16": 4096, "float32": 2048},
}
DIM_STEP = {"maxsim": 16, "maxsim_backward": 8}


def why_not(
    op: str, device: "torch.device | str", dtype: "torch.dtype | None" = None, dim: int | None = None
) -> str | None:
    """Why an operator cannot run on a device, with tokens of such dtype and dim if given; None if it can.

    >>> why_not("maxsim", "cpu")
    'runs on cuda only'
    """
    kind, _, index = str(device).partition(":")
    if kind != "cuda":
        return "runs on cuda only"
    if os.environ.get("LATEINT_CUDA", "").lower() == "off":
        return "LATEINT_CUDA is off"
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    return _unsupported(op, name, dim) or _missing() or _unfit(op, int(index) if index else None, dim)


def _unsupported(op: str, dtype: str | None, dim: int | None) -> str | None:
    if op not in MAX_DIM:  # it is given no tokens
        return None
    most = MAX_DIM[op]
    if dtype is not None and dtype not in most:
        return f"{op} takes {' and '.join(most)}, not {dtype}"
    limit = most[dtype] if dtype is not None else max(most.values())
    if dim is not None and (dim % DIM_STEP[op] or dim > limit):
        return f"{op} takes a dim up to {limit} that is a multiple of {DIM_STEP[op]}, not {dim}"
    return None


@functools.cache
def _missing() -> str | None:
    """What is not installed. Found out once."""
    try:
        found = importlib.util.find_spec("cuda.core") and importlib.util.find_spec("cuda.bindings")
    except ModuleNotFoundError:
        found = None
    if not found:
        return "cuda-core is not installed"
    try:
        program.nvrtc_version()
    except Exception as error:  # a library that is not found is told of in several ways
        return f"NVRTC is not found ({str(error).splitlines()[0]})"
    return None


@functools.cache
def _unfit(op: str, index: int | None, dim: int | None) -> str | None:
    """What the device lacks. Found out once."""
    import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    index = torch.cuda.current_device() if index is None else index
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        return f"needs compute capability 8.0, the device has {major}.{minor}"
    gpu = program.gpu(index)
    if int(gpu.arch[3:].rstrip("a")) not in program.known_architectures():
        return "NVRTC {}.{} does not know {}".format(*program.nvrtc_version(), gpu.arch)
    return _unfit_for_maxsim(gpu, dim) if op == "maxsim" else None


def _unfit_for_maxsim(gpu: program.Gpu, dim: int | None) -> str | None:
    # These have matrix units that the instructions of sm_80 reach at a fraction of their speed; Triton's reach them.
    if gpu.arch.startswith("sm_10"):
        return f"maxsim has no kernel for the matrix units of {gpu.arch}"
    if dim is None:
        return None
    if gpu.arch == "sm_90a" and dim not in HOPPER_DIMS:
        return f"maxsim takes a dim of {' or '.join(map(str, HOPPER_DIMS))} on {gpu.arch}, not {dim}"
    if not all(tile_for(gpu, rows, 1, dim, True) for rows in (1, 64, 128)):
        return f"maxsim with a dim of {dim} needs more shared memory than {gpu.arch} has"
    return None
