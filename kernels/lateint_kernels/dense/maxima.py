"""What each query token finds in each document, ``[TQ, Nd]``, for scores that are more than a sum of maxima."""

import torch
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.dense import maxima_operator, maxima_torch, operator
from lateint_kernels.dense.problem import Problem, padded_rows


def soft_maxima(problem: Problem, temperature: float, backend: str | None) -> Tensor:
    """``T log sum_t exp(<q_s, d_t> / T)``; -inf where a document has no token, 0 for an absent query token."""
    name = _chosen("soft_maxima", problem, backend)
    if name == "torch":
        return maxima_torch.soft_maxima(problem, temperature)
    return maxima_operator.soft_maxima(problem, temperature, name)


def retrieved(problem: Problem, k: int, need_gradients: bool, backend: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """The largest similarity of each query token in each document ``[TQ, Nd]``, 0 for an absent query token.

    And whether one of the ``k`` tokens most similar to a query token is of the document, ``[TQ, Nd]`` bool; and the
    similarity of the last of these, ``[TQ]``. A backend that does not find all at once has the maxima, and torch finds
    the rest.
    """
    name = _chosen("retrieved", problem, backend)
    if name == "torch":
        return maxima_torch.retrieved(problem, k, need_gradients, backend)
    return maxima_operator.retrieved(problem, k, name)


def sum_by_query(problem: Problem, found: Tensor) -> Tensor:
    """``[TQ, n]`` -> ``[Nq, n]``, differentiable."""
    if len(found) == problem.Nq * problem.max_query_length:
        return found.view(problem.Nq, problem.max_query_length, found.shape[1]).sum(1)
    numbers = torch.arange(problem.Nq, device=found.device)
    rows, inside = padded_rows(problem.query_offsets, numbers, problem.max_query_length, len(found))
    return found[rows].masked_fill(~inside[..., None], 0).sum(1)


def _chosen(op: str, problem: Problem, backend: str | None) -> str:
    """The backend, or torch for what the others do not have or cannot do."""
    device, dtype = problem.queries.device, problem.queries.dtype
    other = backend is not None and backend not in backends.MODULES[op]
    if other or 0 in problem.scores_shape or (backend is None and operator.is_transformed()):
        return "torch"
    if torch.compiler.is_compiling():  # which cannot look into how backends are loaded
        return backend or ("cpp" if device.type == "cpu" and dtype != torch.float64 else "torch")
    return backends.chosen(op, device, dtype, problem.dim, backend)
