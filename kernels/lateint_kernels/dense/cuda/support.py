"""Whether MaxSim's CUDA kernels take tokens like these, and run on such a device."""

import functools

import torch

from lateint_kernels.dense.cuda.forward import HOPPER_DIMS, tile_for
from lateint_kernels.gpu import program, support

# The gradients hold a row's sums in the registers of a warp; float32 rows are twice as long. The scores are formed on
# tensor cores, 16 numbers of a token at a time, with all of a token in shared memory.
MAX_DIM = {
    "maxsim": {"bfloat16": 256, "float16": 256},
    "maxsim_backward": {"bfloat16": 4096, "float16": 4096, "float32": 2048},
}
DIM_STEP = {"maxsim": 16, "maxsim_backward": 8}


def why_not(
    op: str, device: torch.device | str, dtype: torch.dtype | None = None, dim: int | None = None
) -> str | None:
    """Why an operator cannot run on a device, with tokens of such dtype and dim if given; None if it can.

    >>> why_not("maxsim", "cpu")
    'runs on cuda only'
    """
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    return _unsupported(op, name, dim) or support.why_not(op, device) or _unfit(op, str(device), dim)


def _unsupported(op: str, dtype: str | None, dim: int | None) -> str | None:
    most = MAX_DIM[op]
    if dtype is not None and dtype not in most:
        return f"{op} takes {' and '.join(most)}, not {dtype}"
    limit = most[dtype] if dtype is not None else max(most.values())
    if dim is not None and (dim % DIM_STEP[op] or dim > limit):
        return f"{op} takes a dim up to {limit} that is a multiple of {DIM_STEP[op]}, not {dim}"
    return None


@functools.cache
def _unfit(op: str, device: str, dim: int | None) -> str | None:
    """What the device lacks. Found out once."""
    index = device.partition(":")[2]
    return _unfit_for_maxsim(support.gpu_of(int(index) if index else None), dim) if op == "maxsim" else None


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
