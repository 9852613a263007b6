"""Whether compiled CUDA kernels can run here."""

import functools
import importlib.util
import os
from typing import TYPE_CHECKING

from lateint_kernels.gpu import program

if TYPE_CHECKING:
    import torch


def why_not(
    op: str, device: "torch.device | str", dtype: "torch.dtype | None" = None, dim: int | None = None
) -> str | None:
    """Why no kernel can run on a device, whatever it computes; None if one can.

    >>> why_not("best_keys", "cpu")
    'runs on cuda only'
    """
    kind, _, index = str(device).partition(":")
    if kind != "cuda":
        return "runs on cuda only"
    if os.environ.get("LATEINT_CUDA", "").lower() == "off":
        return "LATEINT_CUDA is off"
    return _missing() or _unfit(int(index) if index else None)


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
def _unfit(index: int | None) -> str | None:
    """What the device lacks. Found out once."""
    import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        return f"needs compute capability 8.0, the device has {major}.{minor}"
    gpu = gpu_of(index)
    if int(gpu.arch[3:].rstrip("a")) not in program.known_architectures():
        return "NVRTC {}.{} does not know {}".format(*program.nvrtc_version(), gpu.arch)
    return program.why_not_loadable(torch.cuda.current_device() if index is None else index)


def gpu_of(index: int | None) -> program.Gpu:
    """Of a device by its number, the current one without."""
    import torch

    return program.gpu(torch.cuda.current_device() if index is None else index)
