"""Where tensors of a user are checked and brought to the one form: `Problem`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lateint_kernels.arrays import check_dense, check_there
from lateint_kernels.dense import edge, operator
from lateint_kernels.dense.options import Options
from lateint_kernels.dense.problem import Problem, inverse_norms, padded_rows
from lateint_kernels.ragged_tensor import FLOATS, RaggedTensor

Tokens: TypeAlias = "Tensor | RaggedTensor | Sequence[Tensor]"


@dataclass(frozen=True)
class Side:
    """Queries or documents as packed tokens, and what shape they had."""

    tokens: Tensor  # [T, dim]
    offsets: Tensor  # [n + 1]
    max_length: int
    shape: tuple[int, ...]  # of the batch: () for one query, (n,), or (Nq, K) for candidates
    grid: tuple[int, ...]  # of a mask

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1  # type: ignore[no-any-return]


def maxsim(queries: Tokens, documents: Tokens, options: Options) -> Any:
    """`lateint_kernels.maxsim` of tensors."""
    return _score(*problem_of(queries, documents, options), options)


def problem_of(
    queries: Tokens, documents: Tokens, options: Options, *, candidates: bool = True
) -> tuple[Problem, tuple[int, ...]]:
    """All queries with all documents, or each with its ``candidates``, and the shape that their scores are to have."""
    left, right = _side(queries, "queries", (2, 3)), _side(documents, "documents", (3, 4) if candidates else (3,))
    _check_pair(left, right)
    shape = edge.shape_of_scores(left.shape, right.shape)
    pairs: tuple[Tensor, Tensor] | None = None
    if len(right.shape) == 2 and len(left) > 1:  # one query meets all its candidates, as in a grid
        numbers = torch.arange(len(right), device=right.tokens.device)
        pairs = numbers // max(right.shape[1], 1), numbers
    return _problem(left, right, pairs, options), shape


def maxsim_pairs(queries: Tokens, documents: Tokens, query_index: Any, document_index: Any, options: Options) -> Any:
    """`lateint_kernels.maxsim_pairs` of tensors."""
    left, right = _side(queries, "queries", (2, 3)), _side(documents, "documents", (3,))
    _check_pair(left, right)
    device = left.tokens.device
    edge.check_indices(query_index, document_index, len(left), len(right))
    if query_index is None:
        first = second = torch.arange(len(left), device=device)
    else:
        first = _index(query_index, "query_index", len(left), "queries", device, options.check)
        second = _index(document_index, "document_index", len(right), "documents", device, options.check)
        edge.check_pairs(first.shape[0], second.shape[0])
    return _score(_problem(left, right, (first, second), options), tuple(first.shape), options)


def _score(problem: Problem, shape: tuple[int, ...], options: Options) -> Any:
    scores, argmax = operator.maxsim(problem, trains(problem) or options.return_argmax, options.backend)
    scores = scores.reshape(shape)
    if not options.return_argmax:
        return scores
    assert argmax is not None
    return scores, _positions(problem, argmax).reshape(*shape, problem.max_query_length)


def trains(problem: Problem) -> bool:
    """Whether scores are to be differentiated."""
    given = (problem.queries, problem.documents, problem.query_weights)
    backwards = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    return backwards or operator.differentiates_forward()


def _problem(left: Side, right: Side, pairs: tuple[Tensor, Tensor] | None, options: Options) -> Problem:
    queries, documents = left.tokens, right.tokens
    kind = queries.device.type
    if torch.is_autocast_enabled(kind) and queries.dtype != torch.float64:
        queries, documents = (x.to(torch.get_autocast_dtype(kind)) for x in (queries, documents))
    exclude = options.masking == "exclude"
    check = options.check and exclude
    query_mask = _mask(options.query_mask, left, "query", check)
    document_mask = _mask(options.document_mask, right, "document", check)
    weights = _weights(options.query_weights, left)
    accumulated = torch.float64 if queries.dtype == torch.float64 else torch.float32
    if weights is not None:
        weights = weights.to(accumulated)
        if query_mask is not None:
            weights = weights.masked_fill(~query_mask, 0)
    elif query_mask is not None:
        weights = query_mask.to(accumulated)
    return Problem(
        queries=queries,
        query_offsets=left.offsets,
        documents=documents,
        document_offsets=right.offsets,
        max_query_length=left.max_length,
        max_document_length=right.max_length,
        query_weights=weights,
        query_inverse_norms=inverse_norms(queries) if options.normalize else None,
        document_inverse_norms=inverse_norms(documents) if options.normalize else None,
        document_scales=None if exclude or document_mask is None else document_mask.to(accumulated),
        document_mask=document_mask if exclude else None,
        query_index=None if pairs is None else pairs[0],
        document_index=None if pairs is None else pairs[1],
    )


def _side(tokens: Tokens, name: str, dimensions: tuple[int, ...]) -> Side:
    if isinstance(tokens, list | tuple):
        tokens = RaggedTensor.pack(tokens, name={"queries": "query", "documents": "document"}[name])
    if isinstance(tokens, RaggedTensor):
        _check_dtype(tokens.tokens, name)
        rows = tokens.tokens
        return Side(rows, tokens.offsets, tokens.max_length, (len(tokens),), tuple(rows.shape[:1]))
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"queries and documents must both be torch tensors or neither, got {type(tokens).__name__} for {name}"
        )
    check_dense(torch, tokens, name)
    if tokens.ndim not in dimensions or 0 in tokens.shape[-2:]:
        layouts = (
            {2: "[Lq, dim]", 3: "[Nq, Lq, dim]"} if name == "queries" else {3: "[Nd, Ld, dim]", 4: "[Nq, K, Ld, dim]"}
        )
        known = ", ".join(layouts[n] for n in dimensions)
        raise ValueError(f"{name} must be {known}, RaggedTensor or a list of [L, dim], got {tuple(tokens.shape)}")
    _check_dtype(tokens, name)
    *batch, length, dim = tokens.shape
    rows = tokens.reshape(-1, dim).contiguous()
    offsets = torch.arange(0, rows.shape[0] + 1, length, device=tokens.device)
    return Side(rows, offsets, length, tuple(batch), tuple(tokens.shape[:-1]))


def _check_dtype(tokens: Tensor, name: str) -> None:
    if tokens.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32, float16, bfloat16 or float64, got {tokens.dtype}")


def _check_pair(left: Side, right: Side) -> None:
    queries, documents = left.tokens, right.tokens
    if queries.device != documents.device:
        raise ValueError(f"queries and documents must be on one device, got {queries.device} and {documents.device}")
    check_there(queries, "queries")
    edge.check_dims(queries.shape[1], documents.shape[1])
    if queries.dtype != documents.dtype and not torch.is_autocast_enabled(queries.device.type):
        raise TypeError(f"queries and documents must share a dtype, got {queries.dtype} and {documents.dtype}")


def _mask(mask: Any, side: Side, what: str, check: bool) -> Tensor | None:
    """``[T]`` bool; anything that is not 0 keeps its token."""
    if mask is None:
        return None
    flat = _per_token(mask, side, f"{what}_mask") != 0
    return operator.checked_mask(flat, side.offsets, what) if check else flat


def _weights(weights: Any, side: Side) -> Tensor | None:
    if weights is None:
        return None
    flat = _per_token(weights, side, "query_weights")
    edge.check_weights(flat.is_floating_point(), flat.dtype)
    return flat


def _per_token(numbers: Any, side: Side, name: str) -> Tensor:
    """``[T]``, from the shape of the tokens' batch, or a list of ``[L_i]`` for packed ones."""
    if isinstance(numbers, list | tuple) and numbers and all(isinstance(x, Tensor) for x in numbers):
        numbers = torch.cat(list(numbers))
    if not isinstance(numbers, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(numbers).__name__}")
    check_dense(torch, numbers, name)
    edge.check_per_token(name, numbers.shape, side.grid)
    if numbers.device != side.tokens.device:
        raise ValueError(f"{name} must be on {side.tokens.device} like the tokens, got {numbers.device}")
    return numbers.reshape(-1)


def _index(values: Any, name: str, size: int, what: str, device: torch.device, check: bool) -> Tensor:
    index = torch.as_tensor(values)
    check_dense(torch, index, name)
    check_there(index, name)
    integers = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    if index.ndim != 1 or (index.numel() and not integers):
        raise TypeError(f"{name} must be a list of integers, got {index.dtype} {tuple(index.shape)}")
    index = index.to(torch.int64)
    if check or not index.is_cuda:
        index = operator.checked_index(index, size, name, what)
    return index.to(device)


def _positions(problem: Problem, argmax: Tensor) -> Tensor:
    """``[pairs, max_query_length]`` int64, -1 where the query token or the whole document is absent."""
    Nq, Lq = problem.Nq, problem.max_query_length
    device = argmax.device
    rows, inside = padded_rows(problem.query_offsets, torch.arange(Nq, device=device), Lq, len(problem.queries))
    if problem.query_weights is not None:
        inside &= problem.query_weights[rows] != 0
    found = argmax.long()
    if problem.query_index is None:
        positions = found[:, rows].transpose(0, 1)  # [Nq, Nd, Lq]
        absent = ~inside[:, None]
    else:
        positions, absent = found, ~inside[problem.query_index]
    if problem.document_mask is not None:
        counts = torch.nn.functional.pad(problem.document_mask.cumsum(0), (1, 0))[problem.document_offsets].diff()
        empty = counts == 0 if problem.document_index is None else counts[problem.document_index] == 0
        absent = absent | empty[:, None]
    return positions.masked_fill(absent, -1)
