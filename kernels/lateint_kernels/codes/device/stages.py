"""Which module does the stages of a search or of a build."""

from importlib import import_module
from types import ModuleType

import torch

from lateint_kernels import backends

MODULES = {
    "search": {"triton": "lateint_kernels.codes.triton.search", "torch": "lateint_kernels.codes.torch.search"},
    "build": {"triton": "lateint_kernels.codes.triton.build", "torch": "lateint_kernels.codes.torch.build"},
}


def stages(work: str, device: torch.device, backend: str | None) -> ModuleType:
    """The module whose functions are the stages of ``work``; what MaxSim needs to run there, they need.

    Raises:
        BackendError: there is no such backend, or it cannot run there.
    """
    modules = MODULES[work]
    preferred = ("triton", "torch") if device.type == "cuda" else ("torch",)
    refused = []
    for name in (backend,) if backend else preferred:
        reason = backends.why_not(name, "maxsim", device) if name in modules else f"must be one of {', '.join(modules)}"
        if reason is None:
            return import_module(modules[name])
        refused.append(f"{name}: {reason}")
    raise backends.BackendError(f"cannot {work} on {device}: " + "; ".join(refused))
