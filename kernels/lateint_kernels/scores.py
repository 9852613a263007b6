"""Other scores of queries with documents that models are trained with: XTR's, and a smooth maximum. For tensors.

They take what `lateint_kernels.maxsim` takes, have its gradients to queries and documents, and give what
`lateint_kernels.losses` takes. None builds the similarities of all token pairs at once: what is kept is one number for
each query token and document.
"""

from typing import Any

import torch
from torch import Tensor

from lateint_kernels.dense.maxima import retrieved, soft_maxima, sum_by_query
from lateint_kernels.dense.options import Options
from lateint_kernels.dense.problem import Problem
from lateint_kernels.dense.tensor_edge import problem_of, trains
from lateint_kernels.integers import positive


def xtr(
    queries: Any,
    documents: Any,
    k: int,
    *,
    query_mask: Tensor | None = None,
    document_mask: Tensor | None = None,
    normalize: bool = False,
    impute: bool = False,
    check: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Scores as a search over tokens would give them: only the ``k`` best document tokens of each query token count.

    ``S(q, d) = 1/Z sum_i r_i max_j <q_i, d_j>`` with ``r_i = 1`` if a token of d is among the k tokens of all documents
    most similar to q_i, else 0, and ``Z = sum_i r_i``; 0 where Z is 0  (XTR, Lee et al. 2023, arXiv 2304.01982, section
    3.1). In training the documents are those of the batch. With ``impute``, as in XTR's search (section 3.2),
    ``S(q, d) = 1/n sum_i max(r_i max_j <q_i, d_j>, (1 - r_i) m_i)`` over the n tokens of q, where ``m_i`` is the
    similarity of the last of the k tokens.

    Which tokens are found, and m, have no gradient; the maxima have that of `maxsim`. Of equal similarities at the
    border any may be among the k.

    Args:
        queries: as for `maxsim`: ``[Nq, Lq, dim]``, ``[Lq, dim]``, a list of ``[Lq_i, dim]`` or `RaggedTensor`.
        documents: ``[Nd, Ld, dim]``, a list of ``[Ld_j, dim]`` or `RaggedTensor`: all that tokens are looked for in.
        k: tokens that a query token finds, at least 1; all of them if there are fewer.
        query_mask: as for `maxsim`; an absent token does not count in Z or n either.
        document_mask: as for `maxsim`.
        normalize: as for `maxsim`.
        impute: whether what was not found counts as m.
        check: as for `maxsim`.
        backend: as for `maxsim`; with ``"cuda"`` torch finds the k tokens.

    Returns:
        ``[Nq, Nd]`` float32, ``[Nd]`` for one query given as ``[Lq, dim]``; float64 for float64 tensors. -inf for a
        document that the mask leaves no token (with ``check=False``).

    Raises:
        TypeError, ValueError, BackendError: as for `maxsim`; or k is not positive.

    >>> documents = [torch.tensor([[3.0], [2.0]]), torch.tensor([[1.0]]), torch.tensor([[4.0]])]
    >>> xtr(torch.tensor([[1.0], [2.0]]), documents, 2)
    tensor([4.5000, 0.0000, 6.0000])
    >>> xtr(torch.tensor([[1.0], [2.0]]), documents, 2, impute=True)
    tensor([4.5000, 4.5000, 6.0000])
    """
    k = positive(k, "k")
    options = Options(query_mask, document_mask, None, normalize, "exclude", False, check, backend)
    problem, shape = problem_of(queries, documents, options, candidates=False)
    best, found, least = retrieved(problem, k, trains(problem), backend)
    if problem.query_weights is not None:
        found = found & (problem.query_weights != 0)[:, None]
    others = least[:, None].expand_as(best) if impute else torch.zeros_like(best)
    if problem.query_weights is not None:
        others = others.masked_fill((problem.query_weights == 0)[:, None], 0)
    total = sum_by_query(problem, torch.where(found, best, others))
    count = sum_by_query(problem, found.to(best.dtype)) if not impute else _lengths(problem)[:, None]
    return _without_empty(problem, total / count.clamp(min=1)).reshape(shape)


def smooth_maxsim(
    queries: Any,
    documents: Any,
    temperature: float = 0.1,
    *,
    query_mask: Tensor | None = None,
    document_mask: Tensor | None = None,
    query_weights: Tensor | None = None,
    normalize: bool = False,
    check: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Late-interaction score with a smooth maximum, which has gradients to all document tokens, not to the best alone.

    ``S(q, d) = sum_i T log sum_j exp(<q_i, d_j> / T)``: above the sum of maxima by at most ``T log Ld`` for each query
    token, and nearer to it the smaller T is.

    Args:
        queries: as for `maxsim`.
        documents: as for `maxsim`, but no ``[Nq, K, Ld, dim]``.
        temperature: T, positive.
        query_mask, document_mask, query_weights, normalize, check: as for `maxsim`.
        backend: ``"cpp"``, ``"triton"`` or ``"torch"``; None for the best one here.

    Returns:
        ``[Nq, Nd]`` float32, ``[Nd]`` for one query given as ``[Lq, dim]``; float64 for float64 tensors.

    Raises:
        TypeError, ValueError: as for `maxsim`; or the temperature is not positive.

    >>> smooth_maxsim(torch.eye(2), [torch.eye(2)], temperature=1.0)
    tensor([2.6265])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    options = Options(query_mask, document_mask, query_weights, normalize, "exclude", False, check, backend)
    problem, shape = problem_of(queries, documents, options, candidates=False)
    found = soft_maxima(problem, temperature, backend)
    if problem.query_weights is not None:
        found = (found * problem.query_weights[:, None]).masked_fill((problem.query_weights == 0)[:, None], 0)
    return sum_by_query(problem, found).reshape(shape)


def _lengths(problem: Problem) -> Tensor:
    """``[Nq]``: tokens of each query that are there."""
    if problem.query_weights is None:
        return problem.query_offsets.diff().to(problem.scores_dtype)
    present = (problem.query_weights != 0).to(problem.scores_dtype)
    return sum_by_query(problem, present[:, None])[:, 0]


def _without_empty(problem: Problem, scores: Tensor) -> Tensor:
    """-inf for documents that have no token left."""
    if problem.document_mask is None:
        return scores
    counts = torch.nn.functional.pad(problem.document_mask.cumsum(0), (1, 0))[problem.document_offsets].diff()
    return scores.masked_fill(counts == 0, -torch.inf)
