"""lateint and its rivals behind one face: `build` gives a function from queries and documents to scores ``[Nq, Nd]``.

Rivals are called as their documentation says, with their defaults, on contiguous padded tensors; where documents have
different lengths, with their masks or lengths. lateint gets the packed tokens then, since that is its form for them.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, Inputs
from lateint_kernels import RaggedTensor, backends, maxsim

Score = Callable[[Tensor, Tensor], Tensor]
LIMIT = 60 << 30  # bytes of a similarity tensor that torch may make


def systems(device: str) -> dict[str, Callable[[Case, Inputs], Score | str]]:
    """Every system by name; each gives a function, or why it cannot take a case."""
    found: dict[str, Callable[[Case, Inputs], Score | str]] = {}
    for name in ("cuda", "triton"):
        if backends.why_not(name, "maxsim", device) is None:
            found[f"lateint-{name}"] = _lateint(name)
    found["torch-einsum"] = _einsum(lambda function: function)
    if device == "cuda":
        found["torch-compile"] = _einsum(torch.compile)
        if find_spec("late_interaction_kernels"):
            found["late-interaction-kernels"] = _late_interaction_kernels
        if find_spec("flash_maxsim"):
            found["flash-maxsim"] = _flash_maxsim
    return found


def versions() -> dict[str, str]:
    """Of everything that matters."""
    names = ("torch", "triton", "late-interaction-kernels", "flash-maxsim", "cuda-core", "numpy")
    return {name: _version(name) for name in names}


def packs(name: str, given: Inputs) -> bool:
    """Whether a system is given packed documents."""
    return name.startswith("lateint") and given.lengths is not None


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "not installed"


def _lateint(backend: str) -> Callable[[Case, Inputs], Score | str]:
    def build(case: Case, given: Inputs) -> Score | str:
        device = given.queries.device
        if reason := backends.why_not(backend, "maxsim", device, given.queries.dtype, case.dim):
            return reason
        if given.lengths is None:
            return lambda queries, documents: maxsim(queries, documents, backend=backend)
        offsets = torch.nn.functional.pad(given.lengths.cumsum(0), (1, 0))

        def score(queries: Tensor, documents: Tensor) -> Tensor:
            return maxsim(queries, RaggedTensor(documents, offsets, case.Ld), backend=backend)

        return score

    return build


def _einsum(transform: Callable[[Any], Any]) -> Callable[[Case, Inputs], Score | str]:
    def build(case: Case, given: Inputs) -> Score | str:
        size = case.pairs * case.Ld * given.queries.element_size()
        if size > LIMIT:
            return f"its similarities need {size >> 30} GB"
        mask = given.mask
        expression = "qsh,qcth->qcst" if case.candidates else "qsh,cth->qcst"

        def score(queries: Tensor, documents: Tensor) -> Tensor:
            similarities = torch.einsum(expression, queries, documents)
            if mask is not None:
                spread = mask[:, :, None] if case.candidates else mask[None, :, None]
                similarities = similarities.masked_fill(~spread, -torch.inf)
            return similarities.amax(-1).sum(-1, dtype=torch.float32) if _no_graph(queries) else _gathered(similarities)

        transformed: Score = transform(score)
        return transformed

    return build


def _no_graph(queries: Tensor) -> bool:
    return not (torch.is_grad_enabled() and queries.requires_grad)


def _gathered(similarities: Tensor) -> Tensor:
    """``max`` in training: its gradient goes to one token, that of ``amax`` to all equal ones."""
    return similarities.max(-1).values.sum(-1, dtype=torch.float32)


def _late_interaction_kernels(case: Case, given: Inputs) -> Score | str:
    rival = import_module("late_interaction_kernels")
    mask = given.mask
    return lambda queries, documents: rival.maxsim(queries, documents, d_mask=mask)  # type: ignore[no-any-return]


def _flash_maxsim(case: Case, given: Inputs) -> Score | str:
    rival = import_module("flash_maxsim")
    lengths = None if given.lengths is None else given.lengths.flatten().int()
    shared = not case.candidates

    def score(queries: Tensor, documents: Tensor) -> Tensor:
        run = rival.flash_maxsim_batched if _no_graph(queries) else rival.flash_maxsim_batched_train
        result: Tensor = run(queries, documents, doc_lengths=lengths, shared_docs=shared)
        return result

    return score
