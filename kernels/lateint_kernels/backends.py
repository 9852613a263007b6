"""Which code runs: one table of preferences, one rule. A backend named by the caller is used or refused.

A backend of an operator is a module with a function of the operator's name; ``"search"`` and ``"build"`` are operators
of several functions, so for them the module itself is chosen. A module may have a function
``why_not(op, device, dtype, dim)`` of its own that tells why it cannot do something here, or None; `why_not` below asks
it last. Modules are imported at their first use.
"""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lateint_kernels import _cpu, instruction_sets
from lateint_kernels.instruction_sets import INSTRUCTION_SETS

if TYPE_CHECKING:
    import torch

# Best first, for each type of device; where it is none of these, torch. CUDA after Triton until it has been measured:
# LATEINT_CUDA=first has it come before, where it can run, to measure it or after that.
PREFERENCE = {"cuda": ("triton", "cuda", "torch"), "cpu": ("cpp", "torch")}
CUDA_FIRST = ("cuda", "triton", "torch")
NAMES = ("cpp", "cuda", "torch", "triton")
_MAXSIM = {
    "cpp": "lateint_kernels.dense.cpp",
    "cuda": "lateint_kernels.dense.cuda",
    "torch": "lateint_kernels.dense.torch",
    "triton": "lateint_kernels.dense.triton.maxsim",
}
_MAXIMA = {"cpp": "lateint_kernels.dense.cpp", "torch": "lateint_kernels.dense.maxima_torch"}
MODULES = {
    "maxsim": _MAXSIM,
    "maxsim_backward": _MAXSIM,
    "soft_maxima": {**_MAXIMA, "triton": "lateint_kernels.dense.triton.maxima"},
    "soft_maxima_backward": {"cpp": "lateint_kernels.dense.cpp", "triton": "lateint_kernels.dense.triton.maxima"},
    "retrieved": {**_MAXIMA, "triton": "lateint_kernels.dense.triton.retrieved"},
    "cluster": {
        "cpp": "lateint_kernels.dense.cpp",
        "torch": "lateint_kernels.dense.pooling_torch",
        "triton": "lateint_kernels.dense.triton.pooling",
    },
    "search": {
        "cuda": "lateint_kernels.codes.cuda.search",
        "torch": "lateint_kernels.codes.torch.search",
        "triton": "lateint_kernels.codes.triton.search",
    },
    "best_keys": {"cuda": "lateint_kernels.codes.cuda.scoreboard", "torch": "lateint_kernels.codes.torch.scoreboard"},
    "build": {"torch": "lateint_kernels.codes.torch.build", "triton": "lateint_kernels.codes.triton.build"},
}
DTYPES = ("float32", "float16", "bfloat16")  # the torch backend takes float64 too


class BackendError(RuntimeError):
    """The backend asked for, or every one there is, cannot run this here."""


@cache
def resolve(
    op: str,
    device: "torch.device",
    dtype: "torch.dtype | None" = None,
    dim: int | None = None,
    backend: str | None = None,
) -> Any:
    """The function to call for an operator on tensors like these; for ``"search"`` and ``"build"`` the module.

    Args:
        op: a name of `MODULES`.
        device: where the tensors are.
        dtype: of the tokens; None if the operator takes none.
        dim: of the tokens, likewise.
        backend: a name of `NAMES`, or None for the best one.

    Raises:
        BackendError: it cannot run here; says why.
        ValueError: there is no backend of that name.
    """
    module = _module(MODULES[op][chosen(op, device, dtype, dim, backend)])
    return module if op in ("search", "build") else getattr(module, op)


def chosen(
    op: str,
    device: "torch.device",
    dtype: "torch.dtype | None" = None,
    dim: int | None = None,
    backend: str | None = None,
) -> str:
    """The name of the backend that `resolve` takes its function from; likewise."""
    refused = []
    for name in (backend,) if backend else preference(device.type):
        if backend is None and name not in MODULES[op]:
            continue
        reason = why_not(name, op, device, dtype, dim)
        if reason is None:
            return name
        refused.append(f"{name}: {reason}")
    what = op if dtype is None else f"{op} of {_short(dtype)}"
    raise BackendError(f"cannot run {what} on {device.type}: " + "; ".join(refused))


def preference(kind: str) -> tuple[str, ...]:
    """Backends for a type of device, best first."""
    if kind == "cuda" and os.environ.get("LATEINT_CUDA", "").lower() == "first":
        return CUDA_FIRST
    return PREFERENCE.get(kind, ("torch",))


def why_not(
    name: str, op: str, device: "torch.device | str", dtype: "torch.dtype | None" = None, dim: int | None = None
) -> str | None:
    """Why a backend cannot run an operator on such a device, with tokens of such dtype and dim; None if it can.

    >>> why_not("cpp", "maxsim", "cuda")
    'runs on cpu only'
    """
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")
    if name not in MODULES[op]:
        return f"has no {op}"
    kind = device if isinstance(device, str) else device.type
    kind = kind.partition(":")[0]
    home = {"cpp": "cpu", "cuda": "cuda", "triton": "cuda"}.get(name, kind)
    if kind != home and not (name == "triton" and interpreting()):
        return f"runs on {home} only"
    if not has_torch():
        return "torch is not installed"
    if dtype is not None and name != "torch" and _short(dtype) not in DTYPES:
        return f"takes {', '.join(DTYPES[:-1])} and {DTYPES[-1]}, not {_short(dtype)}"
    module = _module(MODULES[op][name])
    if isinstance(module, str):
        return module
    ask = getattr(module, "why_not", None)
    return None if ask is None else ask(op, device, dtype, dim)


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter, and so on tensors of the CPU: TRITON_INTERPRET=1."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def explain() -> dict[str, str]:
    """What is in use, what is not and why, and how many threads; for bug reports. Imports torch if it is installed.

    >>> explain()["scalar"] in {"in use", "ready"}
    True
    """
    active = _cpu.active_isa()
    report = {isa: "in use" if isa == active else instruction_sets.why_not(isa) or "ready" for isa in INSTRUCTION_SETS}
    report["threads"] = str(_cpu.default_threads())
    if not has_torch():
        return {**report, "tensors": "torch is not installed"}
    import torch

    for kind in ("cuda", "cpu"):
        if kind == "cuda" and not torch.cuda.is_available():
            report["on cuda"] = "torch finds no CUDA device"
        else:
            states = {name: why_not(name, "maxsim", kind) for name in preference(kind)}
            report[f"on {kind}"] = "; ".join(f"{name}: {why or 'ready'}" for name, why in states.items())
            if kind == "cuda":
                report["coarse scores on cuda"] = f"cuda: {why_not('cuda', 'best_keys', kind) or 'ready'}; torch: ready"
    return report


@cache
def _module(path: str) -> ModuleType | str:
    """The module, or why it cannot be had: found out once."""
    try:
        return import_module(path)
    except ImportError as error:
        return f"cannot be loaded: {error}"


@cache
def has_torch() -> bool:
    """Whether it is installed."""
    return find_spec("torch") is not None


def _short(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")
