"""What each query token finds in each document, ``[TQ, Nd]``, for scores that are more than a sum of maxima."""

from typing import Any

import torch
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.dense import maxima_cpp, maxima_torch, operator
from lateint_kernels.dense.problem import Problem, padded_rows


def soft_maxima(problem: Problem, temperature: float, backend: str | None) -> Tensor:
    """``T log sum_t exp(<q_s, d_t> / T)``; -inf where a document has no token, 0 for an absent query token."""
    found: Tensor = _resolved("soft_maxima", problem, backend)(problem, temperature)
    return found


def retrieved(problem: Problem, k: int, need_gradients: bool, backend: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """The largest similarity of each query token in each document ``[TQ, Nd]``, 0 for an absent query token.

    And whether one of the ``k`` tokens most similar to a query token is of the document, ``[TQ, Nd]`` bool; and the
    similarity of the last of these, ``[TQ]``. A backend that does not find all at once has the maxima, and torch finds
    the rest.
    """
    found: tuple[Tensor, Tensor, Tensor] = _resolved("retrieved", problem, backend)(problem, k, need_gradients, backend)
    return found


def sum_by_query(problem: Problem, found: Tensor) -> Tensor:
    """``[TQ, n]`` -> ``[Nq, n]``, differentiable."""
    if len(found) == problem.Nq * problem.max_query_length:
        return found.view(problem.Nq, problem.max_query_length, found.shape[1]).sum(1)
    numbers = torch.arange(problem.Nq, device=found.device)
    rows, inside = padded_rows(problem.query_offsets, numbers, problem.max_query_length, len(found))
    return found[rows].masked_fill(~inside[..., None], 0).sum(1)


def _resolved(op: str, problem: Problem, backend: str | None) -> Any:
    """The function of the backend, or that of torch for what the others do not have or cannot do."""
    device, dtype = problem.queries.device, problem.queries.dtype
    other = backend is not None and backend not in backends.MODULES[op]
    if other or 0 in problem.scores_shape or (backend is None and operator.is_transformed()):
        backend = "torch"
    if torch.compiler.is_compiling():  # which cannot look into how backends are loaded
        plain = backend == "torch" or device.type != "cpu" or dtype == torch.float64
        return getattr(maxima_torch if plain else maxima_cpp, op)
    return backends.resolve(op, device, dtype, problem.dim, backend)
