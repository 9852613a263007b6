"""The one form that every backend computes, whatever layout the user's tensors came in."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-12  # the shortest length that normalisation divides by, as in torch.nn.functional.normalize


@dataclass(frozen=True)
class Problem:
    """MaxSim of packed queries with packed documents, for every pair or for chosen ones.

    ``S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> : token t is present in document j }``, missing factors being 1.

    Everything is contiguous and on one device. The factors are float32, or float64 with float64 tokens, which only the
    torch backend takes.

    Args:
        queries: ``[TQ, dim]`` float32, float16, bfloat16 or float64.
        query_offsets: ``[Nq + 1]`` int64; query i is rows ``offsets[i]:offsets[i + 1]``.
        documents: ``[TD, dim]`` of the same dtype.
        document_offsets: ``[Nd + 1]`` int64.
        max_query_length: of any query, known to the host, so that a launch never waits for the device.
        max_document_length: of any document, likewise.
        query_weights: w ``[TQ]``; where it is 0 the token is absent, so whatever it holds adds nothing.
        query_inverse_norms: iq ``[TQ]``, ``1 / max(|q|, 1e-12)``; given if and only if tokens are to be normalised.
        document_inverse_norms: id ``[TD]``, likewise.
        document_scales: c ``[TD]``, multiplied onto the similarities.
        document_mask: ``[TD]`` bool; where it is False the token is absent and never wins.
        query_index: ``[P]`` int64, the query of each chosen pair; None for all pairs.
        document_index: ``[P]`` int64, the document of each chosen pair.
    """

    queries: Tensor
    query_offsets: Tensor
    documents: Tensor
    document_offsets: Tensor
    max_query_length: int
    max_document_length: int
    query_weights: Tensor | None = None
    query_inverse_norms: Tensor | None = None
    document_inverse_norms: Tensor | None = None
    document_scales: Tensor | None = None
    document_mask: Tensor | None = None
    query_index: Tensor | None = None
    document_index: Tensor | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """The fields in their order: ``Problem(*problem.parts)`` is the same problem."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def Nq(self) -> int:
        """How many queries there are."""
        return self.query_offsets.shape[0] - 1  # type: ignore[no-any-return]

    @property
    def Nd(self) -> int:
        """How many documents there are."""
        return self.document_offsets.shape[0] - 1  # type: ignore[no-any-return]

    @property
    def dim(self) -> int:
        """How many numbers a token has."""
        return self.queries.shape[1]  # type: ignore[no-any-return]

    @property
    def scores_shape(self) -> tuple[int, ...]:
        """``[Nq, Nd]``, or ``[P]`` for chosen pairs."""
        if self.query_index is None:
            return (self.Nq, self.Nd)
        return (self.query_index.shape[0],)

    @property
    def scores_dtype(self) -> torch.dtype:
        """What scores and factors are: float32, or float64 with float64 tokens."""
        return torch.float64 if self.queries.dtype == torch.float64 else torch.float32

    @property
    def argmax_shape(self) -> tuple[int, int]:
        """``[Nd, TQ]``, or ``[P, max_query_length]`` for chosen pairs."""
        if self.query_index is None:
            return (self.Nd, self.queries.shape[0])
        return (self.query_index.shape[0], self.max_query_length)

    @property
    def argmax_dtype(self) -> torch.dtype:
        """The smallest type that holds a position inside a document."""
        if self.max_document_length <= 256:
            return torch.uint8
        return torch.int16 if self.max_document_length <= 32768 else torch.int32

    @property
    def query_factors(self) -> Tensor | None:
        """``w iq`` of every query token ``[TQ]``, 0 where it is absent; None if all are 1."""
        weights, norms = self.query_weights, self.query_inverse_norms
        if weights is None or norms is None:
            return norms if weights is None else weights
        return torch.where(weights != 0, weights * norms, 0)

    @property
    def document_factors(self) -> Tensor | None:
        """``c id`` of every document token ``[TD]``; None if all are 1."""
        scales, norms = self.document_scales, self.document_inverse_norms
        if scales is None or norms is None:
            return norms if scales is None else scales
        return scales * norms

    @property
    def query_of_token(self) -> Tensor:
        """The query of every query token: ``[TQ]`` int64."""
        rows = torch.arange(len(self.queries), device=self.queries.device)
        return torch.searchsorted(self.query_offsets, rows, right=True) - 1


def inverse_norms(tokens: Tensor) -> Tensor:
    """``1 / max(|x|, 1e-12)`` of each row of ``[T, dim]``: ``[T]`` float32, or float64 for float64; no gradient."""
    tokens = tokens.detach()
    dtype = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    if tokens.dtype == dtype or tokens.device.type != "cpu" or torch.compiler.is_compiling():
        norms = torch.linalg.vector_norm(tokens, dim=1, dtype=dtype)
    else:  # there it converts a copy of everything first
        norms = torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=dtype) for part in tokens.split(4096)])
    return norms.clamp_min(EPSILON).reciprocal()


def multiplied(tokens: Tensor, present: Tensor | None, normalize: bool) -> Tensor:
    """Tokens ``[T, dim]`` as they are multiplied, in the dtype of scores, 0 where ``present [T]`` is False.

    Differentiable, normalisation too, and more than once.
    """
    tokens = tokens.to(torch.float64 if tokens.dtype == torch.float64 else torch.float32)
    if present is not None:
        tokens = tokens.masked_fill(~present[:, None], 0)
    if not normalize:
        return tokens
    squares = tokens.square().sum(1, keepdim=True)
    return tokens * squares.where(squares > EPSILON**2, EPSILON**2).rsqrt()


def padded_rows(offsets: Tensor, numbers: Tensor, length: int, total: int) -> tuple[Tensor, Tensor]:
    """Rows ``[n, length]`` of matrices ``numbers [n]`` among ``total``, and which are inside their matrix."""
    rows = offsets[numbers, None] + torch.arange(length, device=offsets.device)
    return rows.clamp(max=total - 1), rows < offsets[numbers + 1, None]
