"""What query tokens find in documents, in plain torch: any device, temporaries bounded by its `BUDGET`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lateint_kernels.dense import operator
from lateint_kernels.dense.problem import Problem, multiplied, padded_rows
from lateint_kernels.dense.torch import blocks, budget_of, ieee_products


def soft_maxima(problem: Problem, temperature: float) -> Tensor:
    """``T log sum_t exp(<q_s, d_t> / T)``: see `lateint_kernels.dense.maxima`."""
    present, normalize = _present(problem), problem.query_inverse_norms is not None
    queries = multiplied(problem.queries, present, normalize)
    documents = multiplied(problem.documents, problem.document_mask, normalize)
    found: Tensor = _SoftMaxima.apply(queries / temperature, documents, problem) * temperature
    return found if present is None else found.masked_fill(~present[:, None], 0)


def retrieved(problem: Problem, k: int, need_gradients: bool, backend: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima by any backend, which are among the k best, and the last of these: likewise."""
    found, least = _found(problem, k)
    return operator.maxsim(one_by_one(problem), need_gradients, backend)[0], found, least


def one_by_one(problem: Problem) -> Problem:
    """With every query token as a query of its own, of weight 0 or 1."""
    tokens, present = torch.arange(len(problem.queries) + 1, device=problem.queries.device), _present(problem)
    weights = None if present is None else present.to(problem.scores_dtype)
    return replace(problem, query_offsets=tokens, max_query_length=1, query_weights=weights)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch has no types here
def _found(problem: Problem, k: int) -> tuple[Tensor, Tensor]:
    """Which documents have one of the ``k`` tokens most similar to a query token: ``[TQ, Nd]`` bool.

    And the similarity of the last of these, ``[TQ]``. The best k tokens are in the k groups of neighbours whose best
    token is best, so that only these are looked at one by one; on a CPU, all that are as similar as the best token of
    the last of these groups, and those as similar as the last of the k are all among them.
    """
    present, normalize = _present(problem), problem.query_inverse_norms is not None
    queries = multiplied(problem.queries, present, normalize)
    documents = multiplied(problem.documents, problem.document_mask, normalize)
    TQ, TD = len(queries), len(documents)
    numbers = torch.arange(TD, device=documents.device)
    owner = torch.searchsorted(problem.document_offsets, numbers, right=True) - 1
    if problem.document_mask is not None:
        owner = owner.masked_fill(~problem.document_mask, problem.Nd)  # of no document
    k = min(k, TD)
    group = 1 << max(0, (TD // max(k, 1)).bit_length() // 2)
    out = torch.zeros((TQ, problem.Nd + 1), dtype=torch.bool, device=owner.device)
    least = queries.new_zeros(TQ)
    if not k:
        return out[:, :-1], least
    for first, last in blocks(TQ, 4 * budget_of(problem) // TD):
        with ieee_products():
            similarities = queries[first:last] @ documents.T
        if problem.document_mask is not None:
            similarities.masked_fill_(~problem.document_mask, -torch.inf)
        if similarities.device.type == "cpu" and not operator.is_transformed():
            row, token = _found_tokens(similarities, k, group, least[first:last])
            out[first + row, owner[token]] = True
            continue
        best, token = _best_tokens(similarities, k, group)
        out[first:last].scatter_(1, owner[token], True)
        least[first:last] = best[:, -1]
    return out[:, :-1], least


def _best_tokens(similarities: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row ``[r, TD]``, largest first, and where they are."""
    if group == 1:
        best, token = similarities.topk(k, dim=1)
        return best, token
    r, TD = similarities.shape
    padded = torch.nn.functional.pad(similarities, (0, -TD % group), value=-torch.inf).view(r, -1, group)
    groups = padded.amax(2).topk(min(k, padded.shape[1]), dim=1).indices  # [r, groups]
    members = padded.gather(1, groups[..., None].expand(-1, -1, group)).flatten(1)
    best, place = members.topk(k, dim=1)
    token = groups.gather(1, place // group) * group + place % group
    return best, token.clamp_(max=TD - 1)


def _found_tokens(similarities: Tensor, k: int, group: int, least: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of whatever is not below the k-th largest of its row, which goes into ``least [r]``; NaN is not.

    By selection instead of sorting, for which NumPy has vectors.
    """
    r, TD = similarities.shape
    bound = _kth_largest(similarities[:, : TD // group * group].view(r, -1, group).amax(2), k)
    row, token = (~(similarities < bound[:, None])).nonzero(as_tuple=True)
    values = similarities[row, token]
    counts = torch.bincount(row, minlength=r)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    candidates = values.new_full((r, int(counts.max())), -torch.inf)
    candidates[row, place] = values
    least.copy_(_kth_largest(candidates, k))
    keep = ~(values < least[row])
    return row[keep], token[keep]


def _kth_largest(rows: Tensor, k: int) -> Tensor:
    """``[r]`` of ``[r, n]``; -inf where n < k."""
    place = rows.shape[1] - k
    if place < 0:
        return rows.new_full((len(rows),), -torch.inf)
    return torch.from_numpy(np.partition(rows.numpy(), place, axis=1)[:, place].copy())


def _present(problem: Problem) -> Tensor | None:
    """Which query tokens are there, ``[TQ]`` bool; None if all are."""
    return None if problem.query_weights is None else problem.query_weights.detach() != 0


class _SoftMaxima(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """``log sum_t exp <q_s, d_t>``: similarities are made again for the gradient, in blocks, and never kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, documents: Tensor, problem: Problem) -> Tensor:
        out = queries.new_empty((len(queries), problem.Nd))
        for numbers, rows, present in _document_blocks(problem):
            tokens = documents[rows]  # [n, Ld, dim]
            for first, last in blocks(len(queries), budget_of(problem) // max(rows.numel(), 1)):
                logits = _logits(queries[first:last], tokens, present)
                out[first:last, numbers] = logits.logsumexp(2)
        ctx.save_for_backward(queries, documents, out)
        ctx.problem = problem
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, documents, out = ctx.saved_tensors
        problem, (need_queries, need_documents, _) = ctx.problem, ctx.needs_input_grad
        of_queries, of_documents = (
            torch.zeros_like(queries),
            documents.new_zeros((len(documents) + 1, documents.shape[1])),
        )
        safe = out.masked_fill(out.isneginf(), 0)
        for numbers, rows, present in _document_blocks(problem):
            tokens = documents[rows]
            total = torch.zeros_like(tokens).flatten(0, 1)
            for first, last in blocks(len(queries), budget_of(problem) // max(rows.numel(), 1)):
                shares = _logits(queries[first:last], tokens, present).sub_(safe[first:last, numbers, None]).exp_()
                shares = shares.mul_(gradient[first:last, numbers, None]).flatten(1)  # [r, n * Ld]
                with ieee_products():
                    if need_queries:
                        of_queries[first:last] += shares @ tokens.flatten(0, 1)
                    if need_documents:
                        total += shares.T @ queries[first:last]
            rows = rows if present is None else rows.masked_fill(~present, len(documents))
            of_documents[rows] = total.view_as(tokens)
        return of_queries if need_queries else None, of_documents[:-1] if need_documents else None, None


def _document_blocks(problem: Problem) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Some documents at a time: their numbers, their rows ``[n, Ld]``, and which are there, None if all are."""
    length = problem.max_document_length
    whole = problem.document_mask is None and len(problem.documents) == problem.Nd * length
    for first, last in blocks(problem.Nd, budget_of(problem) // max(length * max(problem.dim, 64), 1)):
        numbers = torch.arange(first, last, device=problem.documents.device)
        rows, present = padded_rows(problem.document_offsets, numbers, length, len(problem.documents))
        if problem.document_mask is not None:
            present = present & problem.document_mask[rows]
        yield slice(first, last), rows, None if whole else present


def _logits(queries: Tensor, documents: Tensor, present: Tensor | None) -> Tensor:
    """``[r, n, Ld]``; -inf for an absent document token."""
    with ieee_products():
        logits = (queries @ documents.flatten(0, 1).T).view(len(queries), *documents.shape[:2])
    return logits if present is None else logits.masked_fill_(~present, -torch.inf)
