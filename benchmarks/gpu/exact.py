"""Scores and gradients in float64, of a few queries and documents of a case: small enough for every case."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.cases import Inputs

FEW = 2  # queries, and documents, that are compared


@dataclass(frozen=True)
class Sample:
    """The first queries with all documents, and all queries with the first documents; candidates: the first queries.

    Args:
        scores: of the first queries.
        grad_queries: of the first queries.
        grad_documents: of the first documents.
    """

    scores: Tensor
    grad_queries: Tensor | None
    grad_documents: Tensor | None


def sample_of(given: Inputs, dtype: torch.dtype, train: bool) -> Sample:
    """Computed in a dtype, as one writes it in torch."""
    queries, documents = given.queries[:FEW].to(dtype), given.documents
    candidates = documents.ndim == 4
    rows = documents[:FEW] if candidates else documents
    mask = given.mask
    row_mask = mask if mask is None or not candidates else mask[:FEW]
    scores, grad_queries, grad_rows = _differentiated(
        queries, rows.to(dtype), row_mask, given.grad_scores[:FEW], train, candidates
    )
    if candidates or not train:
        return Sample(scores, grad_queries, grad_rows)
    few_mask = None if mask is None else mask[:FEW]
    _, _, grad_documents = _differentiated(
        given.queries.to(dtype), documents[:FEW].to(dtype), few_mask, given.grad_scores[:, :FEW], True, False
    )
    return Sample(scores, grad_queries, grad_documents)


def sample_from(scores: Tensor, gradients: tuple[Tensor, Tensor] | None, given: Inputs, packed: bool) -> Sample:
    """The same part of what a system computed of the whole; packed documents are padded with zeros first."""
    if gradients is None:
        return Sample(scores[:FEW], None, None)
    grad_queries, grad_documents = gradients
    if packed:
        mask = given.mask
        assert mask is not None
        padded = torch.zeros_like(given.documents)
        padded[mask] = grad_documents
        grad_documents = padded
    return Sample(scores[:FEW], grad_queries[:FEW], grad_documents[:FEW])


def errors(found: Sample, exact: Sample) -> dict[str, float]:
    """The largest difference, as a share of the largest exact number."""
    result = {}
    for name in ("scores", "grad_queries", "grad_documents"):
        mine, right = getattr(found, name), getattr(exact, name)
        if mine is not None and right is not None:
            mine, right = mine.double().cpu(), right.double().cpu()
            result[name] = float((mine - right).abs().max() / right.abs().max())
    return result


def _differentiated(
    queries: Tensor, documents: Tensor, mask: Tensor | None, grad_scores: Tensor, train: bool, candidates: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One document, or candidate, after the other: the whole would not fit."""
    queries = queries.detach().requires_grad_(train)
    count = documents.shape[1] if candidates else documents.shape[0]
    grad_queries, columns, grads = torch.zeros_like(queries, dtype=torch.float64), [], []
    for j in range(count):
        document = (documents[:, j] if candidates else documents[j]).detach().requires_grad_(train)
        similarities = queries @ document.mT  # [q, Lq, Ld]
        if mask is not None:
            part = mask[:, j, None] if candidates else mask[j]
            similarities = similarities.masked_fill(~part, -torch.inf)
        scores = similarities.max(-1).values.sum(-1)
        columns.append(scores.detach())
        if train:
            one, other = torch.autograd.grad(scores, (queries, document), grad_scores[:, j].to(scores.dtype))
            grad_queries += one
            grads.append(other)
    stacked = torch.stack(grads, 1 if candidates else 0) if train else None
    return torch.stack(columns, 1), grad_queries if train else None, stacked
