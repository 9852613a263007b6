"""Whether the CUDA kernels can run here, and on this."""

import functools
import importlib.util
import os
from typing import Any

# float32 rows are twice as long, and a warp holds a row's sums in registers.
MAX_DIM = {"float16": 4096, "bfloat16": 4096, "float32": 2048}


def why_not(op: str, device: Any, dtype: Any = None, dim: int | None = None) -> str | None:
    """Why an operator cannot run on a device, with tokens of this dtype and dim if given; None if it can.

    Args:
        op: ``"maxsim"`` or ``"maxsim_backward"``.
        device: a torch.device, or ``"cuda"`` or the like.
        dtype: a torch.dtype, or None for any that can.
        dim: of the tokens, or None for any that can.
    """
    if os.environ.get("LATEINT_CUDA", "").lower() == "off":
        return "LATEINT_CUDA is off"
    kind, _, index = str(device).partition(":")
    if kind != "cuda":
        return "runs on cuda only"
    return _unsupported(op, dtype, dim) or _missing() or _unfit(int(index) if index else None)


def _unsupported(op: str, dtype: Any, dim: int | None) -> str | None:
    if op != "maxsim_backward":
        return f"has no {op}"
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in MAX_DIM:
        return f"takes {', '.join(MAX_DIM)}, not {name}"
    if dim is not None and (dim % 8 or dim > MAX_DIM.get(name, max(MAX_DIM.values()))):
        return f"takes a dim that is a multiple of 8, at most {MAX_DIM.get(name)} for {name}, not {dim}"
    return None


@functools.cache
def _missing() -> str | None:
    """What is not installed. Checked once."""
    try:
        found = importlib.util.find_spec("cuda.core") and importlib.util.find_spec("cuda.bindings")
    except ModuleNotFoundError:
        found = None
    if not found:
        return "cuda-core is not installed"
    from lateint_kernels._cuda import program

    try:
        program.nvrtc_version()
    except Exception as error:  # a library that is not found is told of in several ways
        return f"NVRTC is not found ({str(error).splitlines()[0]})"
    return None


@functools.cache
def _unfit(index: int | None) -> str | None:
    """What the device lacks. Checked once."""
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability(index)
    return None if major >= 8 else f"needs compute capability 8.0, the device has {major}.{minor}"
