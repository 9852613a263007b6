"""XTR's scores and those of a smooth maximum, with their gradients, by Triton and by torch; scores must be the same."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, inputs
from benchmarks.gpu.measure import Stopwatch, extra_memory
from lateint_kernels import backends
from lateint_kernels.scores import smooth_maxsim, xtr

CASES = {
    "cuda": {"train-256": Case(256, 32, 256, 180), "train-256-float32": Case(256, 32, 256, 180, dtype="float32")},
    "cpu": {"train": Case(3, 4, 4, 9, dim=16)},
}
K = 320  # tokens that a query token finds
# Imputed, so that a token at the border, which rounding may put on either side of it, changes scores no more than that.
SCORES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "xtr": ("retrieved", partial(xtr, k=K, impute=True)),
    "smooth": ("soft_maxima", smooth_maxsim),
}


def times(device: str, watch: Stopwatch) -> dict[str, Any]:
    """Milliseconds and bytes by score and case, and by backend."""
    return {
        f"{name}, {case}": _case(name, sizes, device, watch) for name in SCORES for case, sizes in CASES[device].items()
    }


def _case(name: str, case: Case, device: str, watch: Stopwatch) -> dict[str, Any]:
    given = inputs(case, device)
    leaves = [x.clone().requires_grad_() for x in (given.queries, given.documents)]
    op, score = SCORES[name]
    expected: Tensor | None = None
    found: dict[str, Any] = {}
    for backend in ("triton", "torch"):
        if backends.why_not(backend, op, device) is not None:
            continue

        def forward(backend: str = backend) -> Tensor:
            return score(*leaves, check=False, backend=backend)

        def step(forward: Callable[[], Tensor] = forward) -> tuple[Tensor, ...]:
            scores = forward()
            return torch.autograd.grad(scores, leaves, given.grad_scores.to(scores.dtype))

        scores = forward().detach()
        expected = scores if expected is None else expected
        if (scores - expected).abs().max() > 1e-4 * expected.abs().max():
            raise RuntimeError(f"{name} by {backend}: other scores than those of the first backend")
        with torch.no_grad():
            found[backend] = {"forward": watch.time(forward), "bytes": extra_memory(forward, device)}
        found[backend] |= {"step": watch.time(step), "step_bytes": extra_memory(step, device)}
    return found
