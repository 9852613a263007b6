"""MaxSim in plain torch: any device, temporaries bounded by `BUDGET`, and the host never waits for the device.

Work is cut into blocks of documents or pairs, whose tokens are gathered into padded ``[n, Ld, dim]`` and converted to
the accumulation type there. Sums have a fixed order and scatter-additions are products with one-hot matrices, so
results are the same bits every time, on a GPU too. Symbols are those of `Problem`; u and v are the gradients of what
similarities are products of: tokens after normalisation and scaling.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lateint_kernels.dense.problem import EPSILON, Problem, padded_rows

BUDGET = {"cpu": 1 << 20, "cuda": 1 << 24}  # numbers in the largest temporary, unless one document alone is larger


def maxsim(problem: Problem, need_argmax: bool) -> tuple[Tensor, Tensor | None]:
    """Scores, and where each maximum was found if asked for."""
    scores = problem.queries.new_empty(problem.scores_shape, dtype=problem.scores_dtype)
    argmax = problem.queries.new_empty(problem.argmax_shape, dtype=problem.argmax_dtype) if need_argmax else None
    with ieee_products():
        (_grid if problem.query_index is None else _pairs)(problem, scores, argmax)
    return scores, argmax


def maxsim_backward(
    problem: Problem, grad_scores: Tensor, argmax: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of queries, documents and query weights; None for those not needed."""
    grid = problem.query_index is None
    of_queries = _grid_query_gradients if grid else _pair_query_gradients
    of_documents = _grid_document_gradients if grid else _pair_document_gradients
    need_queries, need_documents, need_weights = needs
    with ieee_products():
        both = of_queries(problem, grad_scores, argmax) if need_queries or need_weights else (None, None)
        grad_documents = of_documents(problem, grad_scores, argmax) if need_documents else None
    return both[0] if need_queries else None, grad_documents, both[1] if need_weights else None


def _grid(problem: Problem, scores: Tensor, argmax: Tensor | None) -> None:
    rows, length, budget = problem.queries.shape[0], problem.max_document_length, budget_of(problem)
    per_document = max(length * problem.dim, rows, problem.Nq * problem.max_query_length)
    for first, last in blocks(problem.Nd, budget // max(per_document, 1)):
        documents = torch.arange(first, last, device=scores.device)
        best = scores.new_empty((last - first, rows))
        for start, end in blocks(rows, budget // ((last - first) * length)):
            found, where = _best(problem, problem.queries[start:end], documents)
            best[:, start:end] = found
            if argmax is not None:
                argmax[first:last, start:end] = where
        best = _weigh(best, problem.query_weights, problem.query_inverse_norms)
        scores[:, first:last] = _sum_by_query(problem, best).mT


def _pairs(problem: Problem, scores: Tensor, argmax: Tensor | None) -> None:
    assert problem.query_index is not None and problem.document_index is not None
    Lq, Ld = problem.max_query_length, problem.max_document_length
    for first, last in blocks(len(scores), budget_of(problem) // max((Lq + Ld) * problem.dim, Lq * Ld)):
        rows, inside = _query_rows(problem, problem.query_index[first:last])
        found, where = _best(problem, problem.queries[rows], problem.document_index[first:last])
        best = _weigh(found, _at(problem.query_weights, rows), _at(problem.query_inverse_norms, rows))
        scores[first:last] = best.masked_fill(~inside, 0).sum(1)
        if argmax is not None:
            argmax[first:last] = where


def _best(problem: Problem, queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """The largest similarity of tokens ``[r, dim]`` or ``[n, r, dim]`` in documents ``[n]``, and where: ``[n, r]``."""
    rows, present = _document_rows(problem, documents)
    # torch chooses the product's kernel by whether an operand wants gradients, and kernels round differently.
    queries = queries.detach().to(problem.scores_dtype)
    best = where = torch.empty(0)
    step = budget_of(problem) // max(queries.shape[-2], problem.dim, 1)
    for first, last in blocks(problem.max_document_length, step):
        block = rows[:, first:last]
        tokens = problem.documents[block].to(queries.dtype)  # [n, l, dim]
        similarities = queries @ tokens.mT  # [n, r, l]
        if (factors := _document_factors(problem, block)) is not None:
            similarities *= factors[:, None]
        similarities.masked_fill_(~present[:, None, first:last], -torch.inf)
        found, position = similarities.max(-1)
        if first == 0:
            best, where = found, position
        else:  # an earlier position wins a tie, and the first NaN wins over everything
            better = (found > best) | (found.isnan() & ~best.isnan())
            best, where = best.where(~better, found), where.where(~better, position + first)
    return best, where


def _sum_by_query(problem: Problem, best: Tensor) -> Tensor:
    """``[n, TQ]`` -> ``[n, Nq]``."""
    if best.shape[1] == problem.Nq * problem.max_query_length:
        return best.view(len(best), problem.Nq, problem.max_query_length).sum(2)
    rows, inside = _query_rows(problem, torch.arange(problem.Nq, device=best.device))
    return best[:, rows].masked_fill_(~inside, 0).sum(2)


def _grid_query_gradients(problem: Problem, grad_scores: Tensor, argmax: Tensor) -> tuple[Tensor, Tensor]:
    grad_queries = torch.empty_like(problem.queries)
    grad_weights = problem.queries.new_empty(len(problem.queries), dtype=problem.scores_dtype)
    owner = problem.query_of_token
    together = min(problem.Nd, 64)
    for start, end in blocks(len(problem.queries), budget_of(problem) // max(together * problem.dim, 1)):
        u = grad_weights.new_zeros((end - start, problem.dim))
        for first, last in blocks(problem.Nd, together):
            documents = torch.arange(first, last, device=u.device)
            winners, factors = _winners(problem, documents, argmax[first:last, start:end])  # [n, r, dim], [n, r]
            coefficients = grad_scores[owner[start:end], first:last] * factors.mT  # [r, n]
            u += (coefficients[:, None] @ winners.transpose(0, 1))[:, 0]
        rows = torch.arange(start, end, device=u.device)
        grad_queries[start:end], grad_weights[start:end] = _finish_queries(problem, rows, u)
    return grad_queries, grad_weights


def _grid_document_gradients(problem: Problem, grad_scores: Tensor, argmax: Tensor) -> Tensor:
    length, budget = problem.max_document_length, budget_of(problem)
    gradient = problem.documents.new_zeros((len(problem.documents) + 1, problem.dim))  # the last row is for padding
    owner = problem.query_of_token
    for first, last in blocks(problem.Nd, budget // max(length * problem.dim, 1)):
        n = last - first
        v = problem.queries.new_zeros((n, length, problem.dim), dtype=problem.scores_dtype)
        for start, end in blocks(len(problem.queries), budget // (n * length)):
            tokens, factors = _weighed_queries(problem, torch.arange(start, end, device=v.device))
            coefficients = grad_scores[owner[start:end], first:last].mT * factors  # [n, r]
            v += _one_hot(argmax[first:last, start:end], coefficients, length) @ tokens
        _write_documents(problem, torch.arange(first, last, device=v.device), v, gradient)
    return gradient[:-1]


def _pair_query_gradients(problem: Problem, grad_scores: Tensor, argmax: Tensor) -> tuple[Tensor, Tensor]:
    assert problem.query_index is not None and problem.document_index is not None
    document_index, padding = problem.document_index, len(problem.queries)
    grad_queries = problem.queries.new_zeros((padding + 1, problem.dim))
    grad_weights = problem.queries.new_zeros(padding + 1, dtype=problem.scores_dtype)

    def u(pairs: Tensor) -> Tensor:
        winners, factors = _winners(problem, document_index[pairs], argmax[pairs])
        return winners.mul_((grad_scores[pairs, None] * factors)[..., None])

    step = budget_of(problem) // max(problem.max_query_length * problem.dim, 1)
    for queries, ended, total in _sums_by_owner(problem.query_index, u, step):
        rows, inside = _query_rows(problem, queries)
        target = rows.masked_fill(~(inside & ended[:, None]), padding)
        grad_queries[target], grad_weights[target] = _finish_queries(problem, rows, total)
    return grad_queries[:-1], grad_weights[:-1]


def _pair_document_gradients(problem: Problem, grad_scores: Tensor, argmax: Tensor) -> Tensor:
    assert problem.query_index is not None and problem.document_index is not None
    query_index, length, budget = problem.query_index, problem.max_document_length, budget_of(problem)
    gradient = problem.documents.new_zeros((len(problem.documents) + 1, problem.dim))

    def v(pairs: Tensor) -> Tensor:
        rows, inside = _query_rows(problem, query_index[pairs])
        total = problem.queries.new_zeros((len(pairs), length, problem.dim), dtype=problem.scores_dtype)
        for start, end in blocks(problem.max_query_length, budget // (len(pairs) * max(length, problem.dim))):
            tokens, factors = _weighed_queries(problem, rows[:, start:end])
            coefficients = (grad_scores[pairs, None] * factors).masked_fill(~inside[:, start:end], 0)
            tokens = tokens.masked_fill(~inside[:, start:end, None], 0)
            total += _one_hot(argmax[pairs, start:end], coefficients, length) @ tokens
        return total

    for documents, ended, total in _sums_by_owner(problem.document_index, v, budget // max(length * problem.dim, 1)):
        _write_documents(problem, documents, total, gradient, ended)
    return gradient[:-1]


def _sums_by_owner(
    index: Tensor, parts: Callable[[Tensor], Tensor], step: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Adds up what pairs contribute to the query or document they share, ``step`` pairs at a time.

    Pairs are taken in order of their owner, so an owner's sum is complete, or continued in the next block: it is given
    again then, and the last one counts.

    Yields:
        Owners ``[n]``, whether the entry is one, and sums ``[n, L, dim]``.
    """
    order = index.argsort(stable=True)
    before = carried = None
    for first, last in blocks(len(index), step):
        pairs = order[first:last]
        owner = index[pairs]
        rank = torch.nn.functional.pad((owner[1:] != owner[:-1]).long(), (1, 0)).cumsum(0)  # [n], from 0
        counts = torch.zeros_like(rank).scatter_add_(0, rank, torch.ones_like(rank))
        total = torch.segment_reduce(parts(pairs), "sum", lengths=counts, axis=0, unsafe=True, initial=0)
        if carried is not None:
            total[0] += carried.masked_fill(owner[0] != before, 0)
        before, carried = owner[-1], total.index_select(0, rank[-1:])[0]
        yield owner.clone().scatter_(0, rank, owner), counts > 0, total


def _finish_queries(problem: Problem, rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """``w iq (u - iq^2 <u, q> q)`` and ``iq <u, q>``."""
    tokens, factors = _weighed_queries(problem, rows)
    norms = _at(problem.query_inverse_norms, rows)
    along = (u * tokens).sum(-1)  # 0 where the token is absent
    grad_weights = along if norms is None else along * norms
    grad_queries = _jacobian(u, tokens, along, norms) * factors[..., None]
    if problem.query_weights is not None:  # an absent token may hold anything, and what it met too
        absent = problem.query_weights[rows] == 0
        grad_queries.masked_fill_(absent[..., None], 0)
        grad_weights = grad_weights.masked_fill(absent, 0)
    return grad_queries.to(problem.queries.dtype), grad_weights


def _write_documents(
    problem: Problem, documents: Tensor, v: Tensor, gradient: Tensor, ended: Tensor | None = None
) -> None:
    """``c id (v - id^2 <v, d> d)`` to the rows of the documents; the rest goes to the last row."""
    rows, present = _document_rows(problem, documents)
    tokens = problem.documents[rows].to(v.dtype).masked_fill_(~present[..., None], 0)
    norms = _at(problem.document_inverse_norms, rows)
    total = _jacobian(v, tokens, (v * tokens).sum(-1), norms)
    if (factors := _document_factors(problem, rows)) is not None:
        total = total * factors[..., None]
    if ended is not None:
        present = present & ended[:, None]
    gradient[rows.masked_fill(~present, len(gradient) - 1)] = total.to(gradient.dtype)


def _jacobian(gradient: Tensor, tokens: Tensor, along: Tensor, norms: Tensor | None) -> Tensor:
    """The part that changes the direction of tokens, and all of it where they are too short to be normalised."""
    if norms is None:
        return gradient
    squares = norms.square().masked_fill(norms >= (1 - 1e-6) / EPSILON, 0)
    return gradient - tokens * (along * squares)[..., None]


def _winners(problem: Problem, documents: Tensor, argmax: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens ``[n, r, dim]`` at positions ``argmax [n, r]`` of documents ``[n]``, and c id; absent ones are 0."""
    starts = problem.document_offsets[documents, None]
    rows = starts + argmax.long()
    present = rows < problem.document_offsets[documents + 1, None]
    rows.clamp_(max=len(problem.documents) - 1)
    if problem.document_mask is not None:
        present &= problem.document_mask[rows]
    tokens = problem.documents[rows].to(problem.scores_dtype).masked_fill_(~present[..., None], 0)
    factors = _document_factors(problem, rows)
    return tokens, present.to(tokens.dtype) if factors is None else factors.masked_fill(~present, 0)


def _weighed_queries(problem: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``[..., dim]``, and w iq; absent ones are 0."""
    tokens = problem.queries[rows].to(problem.scores_dtype)
    factors = _weigh(
        torch.ones_like(rows, dtype=tokens.dtype),
        _at(problem.query_weights, rows),
        _at(problem.query_inverse_norms, rows),
    )
    if problem.query_weights is not None:
        tokens.masked_fill_((problem.query_weights[rows] == 0)[..., None], 0)
    return tokens, factors


def _one_hot(argmax: Tensor, coefficients: Tensor, length: int) -> Tensor:
    """``[n, Ld, r]``: each column has its coefficient in the row of its maximum."""
    n, r = coefficients.shape
    return coefficients.new_zeros((n, length, r)).scatter_(1, argmax.long()[:, None], coefficients[:, None])


def _weigh(numbers: Tensor, weights: Tensor | None, norms: Tensor | None) -> Tensor:
    if norms is not None:
        numbers = numbers * norms
    return numbers if weights is None else (numbers * weights).masked_fill(weights == 0, 0)


def _query_rows(problem: Problem, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[n, Lq]`` of padded queries, and which of them are inside."""
    return padded_rows(problem.query_offsets, queries, problem.max_query_length, len(problem.queries))


def _document_rows(problem: Problem, documents: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[n, Ld]`` of padded documents, and which of them hold a present token."""
    rows, present = padded_rows(
        problem.document_offsets, documents, problem.max_document_length, len(problem.documents)
    )
    return rows, present if problem.document_mask is None else present & problem.document_mask[rows]


def _document_factors(problem: Problem, rows: Tensor) -> Tensor | None:
    scales, norms = _at(problem.document_scales, rows), _at(problem.document_inverse_norms, rows)
    if scales is None or norms is None:
        return scales if norms is None else norms
    return scales * norms


def _at(factors: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if factors is None else factors[rows]


def blocks(total: int, step: int) -> Iterator[tuple[int, int]]:
    """First and last of runs of ``step``, at least 1."""
    step = max(step, 1)
    return ((first, min(first + step, total)) for first in range(0, total, step))


def budget_of(problem: Problem) -> int:
    """Numbers of a temporary on its device."""
    return BUDGET.get(problem.queries.device.type, BUDGET["cuda"])


@contextmanager
def ieee_products() -> Iterator[None]:
    """float32 products without shortened operands, whatever the user allows elsewhere."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)
