"""Token pooling where the tokens are, and by C++ after a copy to the CPU; clusters must be the same."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measure import Stopwatch, extra_memory
from lateint_kernels import RaggedTensor, backends, pool

FACTOR = 2
SIZES = {  # documents, Ld, dim
    "cuda": {"documents": (1024, 180, 128), "pages": (64, 1030, 128), "longest": (8, 2048, 128), "one": (1, 180, 128)},
    "cpu": {"documents": (3, 9, 8)},
}


def times(device: str, watch: Stopwatch) -> dict[str, Any]:
    """Milliseconds and bytes of pooling by case and by who finds clusters."""
    return {name: _case(*sizes, device, watch) for name, sizes in SIZES[device].items()}


def _case(Nd: int, Ld: int, dim: int, device: str, watch: Stopwatch) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(Nd * Ld, dim, generator=generator), dim=-1)
    documents = RaggedTensor.from_lengths(rows.to(device, torch.bfloat16), [Ld] * Nd)
    found: dict[str, Any] = {"documents": Nd, "Ld": Ld, "dim": dim, "factor": FACTOR}
    expected = _by_copy(documents)
    for name, run in _ways(device).items():
        means = run(documents)
        if (means.float() - expected.float()).abs().max() > 2**-8:  # a last bit of a mean in bfloat16
            raise RuntimeError(f"pooling by {name}: other clusters than those of C++")
        call = partial(run, documents)
        found[name] = {**watch.time(call), "bytes": extra_memory(call, device)}
    return found


def _ways(device: str) -> dict[str, Callable[[RaggedTensor], Tensor]]:
    found: dict[str, Callable[[RaggedTensor], Tensor]] = {"cpp": _by_copy}
    for name in ("triton", "torch"):
        if backends.why_not(name, "cluster", device) is None:
            found[name] = partial(_on_device, backend=name)
    return found


def _on_device(documents: RaggedTensor, backend: str) -> Tensor:
    return pool(documents, FACTOR, backend=backend).tokens


def _by_copy(documents: RaggedTensor) -> Tensor:
    """To the CPU and back."""
    there = RaggedTensor.from_offsets(documents.tokens.cpu(), documents.host_offsets)
    return pool(there, FACTOR).tokens.to(documents.tokens.device)
