"""The smooth maximum of each query token in each document by Triton, and the launches that it is made of."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import triton
from torch import Tensor

from lateint_kernels.dense.problem import EPSILON, Problem
from lateint_kernels.dense.triton.maxsim import MOST_DOCUMENTS, token_constants, why_not
from lateint_kernels.dense.triton.sizes import Tiles, documents_each, tiles
from lateint_kernels.dense.triton.soft_maxima import soft_document_gradients, soft_forward, soft_query_gradients
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on

__all__ = ["soft_maxima", "soft_maxima_backward", "why_not"]

SIDE = 64  # of a tile of gradients, at most
SHARED = 48 << 10  # bytes of shared memory that gradients need beside those for similarities
WARPS = 8  # of a program of gradients of 16-bit tokens
GROUPS = 32  # of documents that gradients of queries are added up for apart, at most


def soft_maxima(problem: Problem, temperature: float) -> Tensor:
    """``T log sum_t exp(<q_s, d_t> / T)`` ``[TQ, Nd]``: see `lateint_kernels.dense.maxima`."""
    found = problem.queries.new_empty((len(problem.queries), problem.Nd), dtype=torch.float32)
    if not len(problem.documents):
        return found.fill_(-torch.inf)
    with on(problem.queries.device):
        forward_launch(problem, temperature, found, architecture(problem.queries.device)).run()
    return found


def soft_maxima_backward(
    problem: Problem, temperature: float, found: Tensor, gradient: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of queries and documents; None for those not needed."""
    tokens = problem.queries, problem.documents
    if not (len(tokens[0]) and len(tokens[1]) and problem.Nd):
        both = (torch.zeros_like(side) if need else None for side, need in zip(tokens, needs, strict=True))
        left, right = both
        return left, right
    arch = architecture(problem.queries.device)
    of_queries = of_documents = None
    with on(problem.queries.device):
        if needs[0]:
            launch, sums = query_launch(problem, temperature, found, gradient, arch)
            launch.run()
            present = None if problem.query_weights is None else problem.query_weights != 0
            total = sums.sum(0) if len(sums) > 1 else sums[0]
            of_queries = _of_tokens(total, problem.queries, problem.query_inverse_norms, present)
        if needs[1]:
            launch, sums = document_launch(problem, temperature, found, gradient, arch)
            launch.run()
            of_documents = _of_tokens(sums, problem.documents, problem.document_inverse_norms, problem.document_mask)
    return of_queries, of_documents


def all_launches(problem: Problem, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that a problem needs."""
    found = problem.queries.new_empty((len(problem.queries), problem.Nd), dtype=torch.float32)
    yield forward_launch(problem, 0.1, found, arch)
    yield query_launch(problem, 0.1, found, found, arch)[0]
    yield document_launch(problem, 0.1, found, found, arch)[0]


def forward_launch(problem: Problem, temperature: float, found: Tensor, arch: Architecture) -> Launch:
    """The launch that writes ``found [TQ, Nd]``."""
    cut = tiles(arch, len(problem.queries), problem.max_document_length, problem.dim, problem.queries.element_size())
    blocks = triton.cdiv(len(problem.queries), cut.block_m)
    slots = arch.multiprocessors * max(1, min(4, arch.shared // cut.shared))
    tiles_each = triton.cdiv(problem.max_document_length, cut.block_n)
    count = documents_each(blocks, problem.Nd, tiles_each, slots, MOST_DOCUMENTS)
    arguments = {**_arguments(problem, temperature), "found": found, "blocks": blocks, "count": count}
    constants = token_constants(problem.dim, cut)
    programs = blocks * triton.cdiv(problem.Nd, count)
    return Launch(soft_forward, programs, arguments, constants, cut.warps, cut.stages, cut.registers)


def query_launch(
    problem: Problem, temperature: float, found: Tensor, gradient: Tensor, arch: Architecture
) -> tuple[Launch, Tensor]:
    """The launch, and where it puts the gradients of queries: ``[groups, TQ, dim]``, to be added up."""
    TQ, itemsize = len(problem.queries), problem.queries.element_size()
    cut = tiles(_for_gradients(arch), TQ, problem.max_document_length, problem.dim, itemsize)
    blocks, block_d = triton.cdiv(TQ, cut.block_m), _components(problem)
    slices = triton.cdiv(problem.dim, block_d)
    wanted = triton.cdiv(2 * arch.multiprocessors, blocks * slices)
    count = triton.cdiv(problem.Nd, max(1, min(wanted, problem.Nd, GROUPS)))
    groups = triton.cdiv(problem.Nd, count)
    sums = gradient.new_empty((groups, TQ, problem.dim))
    arguments = {**_gradient_arguments(problem, temperature, found, gradient, 1), "sums": sums}
    arguments |= {"blocks": blocks, "count": count}
    return _gradients(soft_query_gradients, groups * blocks * slices, arguments, problem, cut, block_d), sums


def document_launch(
    problem: Problem, temperature: float, found: Tensor, gradient: Tensor, arch: Architecture
) -> tuple[Launch, Tensor]:
    """The launch, and where it puts the gradients of documents ``[TD, dim]``."""
    TQ, Ld, itemsize = len(problem.queries), problem.max_document_length, problem.queries.element_size()
    cut = tiles(_for_gradients(arch), Ld, TQ, problem.dim, itemsize)
    count, block_d = triton.cdiv(Ld, cut.block_m), _components(problem)
    programs = problem.Nd * count * triton.cdiv(problem.dim, block_d)
    sums = gradient.new_empty(problem.documents.shape)
    arguments = {**_gradient_arguments(problem, temperature, found, gradient, 0), "sums": sums, "tiles": count}
    return _gradients(soft_document_gradients, programs, arguments, problem, cut, block_d), sums


def _for_gradients(arch: Architecture) -> Architecture:
    """Small tiles, for sums and shares want registers and shared memory, too."""
    side = min(SIDE, arch.block_m, *arch.block_n)
    return replace(arch, block_m=side, block_n=(side,), stages=2, shared=arch.shared - SHARED)


def _gradients(
    kernel: Any, programs: int, arguments: dict[str, Any], problem: Problem, cut: Tiles, block_d: int
) -> Launch:
    constants = {**token_constants(problem.dim, cut), "BLOCK_D": block_d}
    warps = WARPS if problem.queries.element_size() == 2 else cut.warps
    return Launch(kernel, programs, arguments, constants, warps, cut.stages)


def _components(problem: Problem) -> int:
    """Of a token that a program of gradients adds up."""
    most = 64 if problem.queries.element_size() == 4 else 128
    return min(most, max(16, int(triton.next_power_of_2(problem.dim))))


def _arguments(problem: Problem, temperature: float) -> dict[str, Any]:
    """What the three kernels take."""
    TD, Ld = len(problem.documents), problem.max_document_length
    return {
        "queries": problem.queries,
        "query_factors": problem.query_inverse_norms,
        "query_weights": problem.query_weights,
        "documents": problem.documents,
        "document_offsets": None if problem.Nd * Ld == TD else problem.document_offsets,
        "document_factors": problem.document_inverse_norms,
        "document_mask": problem.document_mask,
        "TQ": len(problem.queries),
        "TD": TD,
        "Nd": problem.Nd,
        "Ld": Ld,
        "temperature": temperature,
    }


def _gradient_arguments(
    problem: Problem, temperature: float, found: Tensor, gradient: Tensor, axis: int
) -> dict[str, Any]:
    """float16 cannot hold small shares, so they are divided by about the largest of their sum, a power of two.

    ``axis``: over which of ``gradient [TQ, Nd]`` sums go.
    """
    scales = None
    if problem.queries.dtype == torch.float16:
        factors, present = problem.document_inverse_norms, problem.document_mask
        if not axis:
            factors, weights = problem.query_inverse_norms, problem.query_weights
            present = None if weights is None else weights != 0
        most = gradient.abs().amax(axis)
        if factors is not None:
            most = most * (factors if present is None else factors.where(present, 0)).amax()
        usable = (most > 1e-30) & (most < 1e30)
        scales = most.where(usable, 1.0).log2().floor().exp2()
    return {**_arguments(problem, temperature), "found": found, "gradient": gradient, "scales": scales}


def _of_tokens(gradient: Tensor, tokens: Tensor, norms: Tensor | None, present: Tensor | None) -> Tensor:
    """The gradients of tokens from those of what they are multiplied as; 0 where there is none."""
    if norms is not None:
        unit = tokens.to(torch.float32) * norms[:, None]
        along = (gradient * unit).sum(1).masked_fill_(norms >= (1 - 1e-6) / EPSILON, 0)
        gradient = norms[:, None] * (gradient - along[:, None] * unit)
    if present is not None:
        gradient = gradient.masked_fill(~present[:, None], 0)
    return gradient.to(tokens.dtype)
