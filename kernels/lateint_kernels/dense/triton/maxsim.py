"""MaxSim and its gradients with Triton: what is launched, on what."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import triton
from torch import Tensor

from lateint_kernels.dense.problem import Problem
from lateint_kernels.dense.triton.backward import document_gradients, query_gradients, sort_winners
from lateint_kernels.dense.triton.forward import forward
from lateint_kernels.dense.triton.sizes import Tiles, documents_each, gather_tiles, piece_size, scatter_tiles, tiles
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on
from lateint_kernels.gpu.launch import why_not as unfit

MOST_DIM = 8192  # a row of so many numbers is in the registers of a program
MOST_DOCUMENTS = 32  # of one program: as many as a warp has lanes
LIST_BYTES = 96 << 20  # of winning rows, at least; documents are taken in groups that need no more
TOGETHER_BYTES = 8 << 20  # of queries that meet the same documents at the same time


def maxsim(problem: Problem, need_argmax: bool) -> tuple[Tensor, Tensor | None]:
    """Scores ``[Nq, Nd]`` or ``[P]`` float32, and where each maximum was found if asked for."""
    argmax = problem.queries.new_empty(problem.argmax_shape, dtype=problem.argmax_dtype) if need_argmax else None
    if _nothing(problem):
        nothing = 0.0 if not len(problem.queries) else -torch.inf
        scores = problem.queries.new_full(problem.scores_shape, nothing, dtype=torch.float32)
        return scores, None if argmax is None else argmax.zero_()
    with on(problem.queries.device):
        launch, sums = forward_launch(problem, argmax, architecture(problem.queries.device))
        launch.run()
        return (sums.sum(1) if sums.shape[1] > 1 else sums[:, 0]), argmax


def maxsim_backward(
    problem: Problem, grad_scores: Tensor, argmax: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of queries, documents and query weights; None for those not needed."""
    queries, documents, weights = needs
    nothing = _nothing(problem)
    new = problem.queries.new_zeros if nothing else problem.queries.new_empty
    grad_queries = new(problem.queries.shape) if queries else None
    grad_documents = new(problem.documents.shape) if documents else None
    grad_weights = new(len(problem.queries), dtype=torch.float32) if weights else None
    if nothing:
        return grad_queries, grad_documents, grad_weights
    grad_scores, arch = grad_scores.contiguous(), architecture(problem.queries.device)
    with on(problem.queries.device):
        if queries or weights:
            query_launch(problem, grad_scores, argmax, grad_queries, grad_weights, arch).run()
        if documents:
            for step in document_launches(problem, grad_scores, argmax, grad_documents, arch):
                step.run()
    return grad_queries, grad_documents, grad_weights


def warmup(dim: int, dtype: torch.dtype = torch.bfloat16, *, Lq: int = 32, Ld: int = 180, device: str = "cuda") -> None:
    """Compiles, or loads from Triton's cache, what the first calls need: so that they take milliseconds.

    That is for training with 256 queries and documents of about so many tokens, masked or not, and for one query with
    thousands of documents. How many there are is not compiled in, but few sizes of tiles follow from it.
    """
    arch = architecture(torch.device(device))

    def empty(*shape: int, of: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    with on(torch.device(device)):
        for Nq, Nd, masked in ((256, 256, False), (256, 256, True), (1, 4096, False)):
            problem = Problem(
                queries=empty(Nq * Lq, dim, of=dtype),
                query_offsets=empty(Nq + 1, of=torch.int64),
                documents=empty(Nd * Ld, dim, of=dtype),
                document_offsets=empty(Nd + 1, of=torch.int64),
                max_query_length=Lq,
                max_document_length=Ld,
                query_weights=empty(Nq * Lq) if masked else None,
                document_mask=empty(Nd * Ld, of=torch.bool) if masked else None,
            )
            for launch in all_launches(problem, arch):
                launch.compile()


def all_launches(problem: Problem, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that a problem needs: forward alone, forward before a backward, and one group of the backward."""
    argmax = problem.queries.new_empty(problem.argmax_shape, dtype=problem.argmax_dtype)
    grad_scores = problem.queries.new_empty(problem.scores_shape, dtype=torch.float32)
    yield forward_launch(problem, None, arch)[0]
    yield forward_launch(problem, argmax, arch)[0]
    yield query_launch(problem, grad_scores, argmax, problem.queries, None, arch)
    yield from islice(document_launches(problem, grad_scores, argmax, problem.documents, arch), 2)


def why_not(op: str, device: torch.device | str, dtype: torch.dtype | None, dim: int | None) -> str | None:
    """Why these kernels cannot run on a device with tokens of such dim; None if they can."""
    if dim is not None and dim > MOST_DIM:
        return f"takes dim up to {MOST_DIM}, not {dim}"
    return unfit(op, device)


def forward_launch(problem: Problem, argmax: Tensor | None, arch: Architecture) -> tuple[Launch, Tensor]:
    """The launch, and where it puts the sums of pieces: ``[Nq, pieces, Nd]`` or ``[P, pieces]``."""
    pairs = problem.query_index is not None
    Lq, Ld, itemsize = problem.max_query_length, problem.max_document_length, problem.queries.element_size()
    if pairs:
        cut = tiles(arch, Lq, Ld, problem.dim, itemsize)
        piece = cut.block_m
    else:
        piece = piece_size(Lq, arch.float32_block if itemsize == 4 else arch.block_m)
        cut = tiles(arch, problem.Nq * triton.cdiv(Lq, piece) * piece, Ld, problem.dim, itemsize)
        piece = min(piece, cut.block_m)
    pieces = triton.cdiv(Lq, piece)
    uniform_queries, uniform_documents = _uniform(problem)
    piece_query, piece_number = (None, None) if pairs or uniform_queries or pieces == 1 else _pieces(problem, piece)
    total = problem.Nq * pieces if piece_query is None else len(piece_query)
    blocks = triton.cdiv(total * piece, cut.block_m)
    if pairs:
        programs, count = len(problem.query_index) * pieces, 1  # type: ignore[arg-type]
        sums = problem.queries.new_empty((len(problem.query_index), pieces), dtype=torch.float32)  # type: ignore[arg-type]
    else:
        slots = arch.multiprocessors * max(1, min(4, arch.shared // cut.shared))
        count = documents_each(blocks, problem.Nd, triton.cdiv(Ld, cut.block_n), slots, MOST_DOCUMENTS)
        programs = blocks * triton.cdiv(problem.Nd, count)
        empty = torch.empty if piece_query is None else torch.zeros
        sums = empty((problem.Nq, pieces, problem.Nd), dtype=torch.float32, device=problem.queries.device)
    arguments = {
        "queries": problem.queries,
        "query_offsets": None if uniform_queries else problem.query_offsets,
        "row_factors": problem.query_factors,
        "documents": problem.documents,
        "document_offsets": None if uniform_documents else problem.document_offsets,
        "token_factors": problem.document_factors,
        "token_mask": problem.document_mask,
        "query_index": problem.query_index,
        "document_index": problem.document_index,
        "piece_query": piece_query,
        "piece_number": piece_number,
        "scores": sums,
        "argmax": argmax,
        "TQ": len(problem.queries),
        "TD": len(problem.documents),
        "Nq": problem.Nq,
        "Nd": problem.Nd,
        "Lq": Lq,
        "Ld": Ld,
        "pieces": pieces,
        "blocks": blocks,
        "together": max(1, min(blocks, TOGETHER_BYTES // (cut.block_m * problem.dim * itemsize))),
        "count": count,
    }
    constants = {**token_constants(problem.dim, cut), "PIECE": piece, "MOST": MOST_DOCUMENTS}
    return Launch(forward, programs, arguments, constants, cut.warps, cut.stages, cut.registers), sums


def query_launch(
    problem: Problem,
    grad_scores: Tensor,
    argmax: Tensor,
    grad_queries: Tensor | None,
    grad_weights: Tensor | None,
    arch: Architecture,
) -> Launch:
    """The launch that writes the gradients of queries and their weights."""
    uniform_queries, uniform_documents = _uniform(problem)
    order, starts = _group(problem.query_index, problem.Nq)
    block_d, rows, lanes = gather_tiles(arch, len(problem.queries), problem.dim)
    blocks = triton.cdiv(problem.max_query_length, rows)
    arguments = {
        "queries": problem.queries,
        "query_offsets": None if uniform_queries else problem.query_offsets,
        "query_weights": problem.query_weights,
        "query_norms": problem.query_inverse_norms,
        "documents": problem.documents,
        "document_offsets": None if uniform_documents else problem.document_offsets,
        "token_factors": problem.document_factors,
        "token_mask": problem.document_mask,
        "document_index": problem.document_index,
        "pair_order": order,
        "pair_starts": starts,
        "grad_scores": grad_scores,
        "argmax": argmax,
        "grad_queries": grad_queries,
        "grad_weights": grad_weights,
        "TQ": len(problem.queries),
        "Nd": problem.Nd,
        "Lq": problem.max_query_length,
        "Ld": problem.max_document_length,
        "blocks": blocks,
    }
    constants = {"DIM": problem.dim, "BLOCK_D": block_d, "ROWS": rows, "LANES": lanes}
    return Launch(query_gradients, problem.Nq * blocks, arguments, constants)


def document_launches(
    problem: Problem, grad_scores: Tensor, argmax: Tensor, grad_documents: Tensor, arch: Architecture
) -> Iterator[Launch]:
    """The launches that write the gradients of documents, two for each group of documents."""
    uniform_queries, uniform_documents = _uniform(problem)
    order, pair_starts = _group(problem.document_index, problem.Nd)
    pairs, TQ = order is not None, len(problem.queries)
    cut = scatter_tiles(arch, problem.max_document_length, problem.dim, problem.queries.element_size())
    entries = len(order) * problem.max_query_length if order is not None else TQ
    segment = max(cut.segment, triton.cdiv(entries, 64))
    segments = 1 if pairs else triton.cdiv(entries, segment)
    budget = max(LIST_BYTES, argmax.numel() * argmax.element_size() // 8)
    together = problem.Nd if pairs else max(1, min(problem.Nd, budget // (entries * (8 + argmax.element_size()))))
    listed = entries if pairs else entries * together
    rows = torch.empty(listed, dtype=torch.int32, device=grad_scores.device)
    places = torch.empty(listed, dtype=argmax.dtype, device=grad_scores.device)
    factors = torch.empty(listed, dtype=torch.float32, device=grad_scores.device)
    starts = torch.empty((2, together * segments, cut.buckets), dtype=torch.int32, device=grad_scores.device)
    scales = torch.empty(together * segments, dtype=torch.float32, device=grad_scores.device)
    shared = {
        "pair_starts": pair_starts,
        "rows": rows,
        "places": places,
        "factors": factors,
        "starts": starts,
        "scales": scales,
        "TQ": TQ,
        "Lq": problem.max_query_length,
        "segments": segments,
        "segment": segment,
    }
    sorting = {
        **shared,
        "query_offsets": None if uniform_queries else problem.query_offsets,
        "row_factors": problem.query_factors,
        "row_query": None if uniform_queries or pairs else problem.query_of_token.int(),
        "query_index": problem.query_index,
        "pair_order": order,
        "grad_scores": grad_scores,
        "argmax": argmax,
        "Nd": problem.Nd,
    }
    adding = {
        **shared,
        "queries": problem.queries,
        "documents": problem.documents,
        "document_offsets": None if uniform_documents else problem.document_offsets,
        "token_factors": problem.document_factors,
        "document_norms": problem.document_inverse_norms,
        "token_mask": problem.document_mask,
        "grad_documents": grad_documents,
        "Ld": problem.max_document_length,
        "tiles": triton.cdiv(problem.max_document_length, cut.block_t),
    }
    buckets = {"WIDTH": cut.width, "BUCKETS": cut.buckets}
    sizes = {"DIM": problem.dim, "BLOCK_D": cut.block_d, "BLOCK_T": cut.block_t, "BLOCK_K": cut.block_k}
    registers = 128 if problem.queries.element_size() == 2 else None  # so that a multiprocessor has two programs
    for first in range(0, problem.Nd, together):
        count = min(together, problem.Nd - first)
        here = {"first_document": first}
        yield Launch(sort_winners, count * segments, sorting | here, {**buckets, "ENTRIES": cut.entries}, 8)
        here["programs"] = count * segments
        constants = {**buckets, **sizes, "STAGES": cut.stages}
        arguments = adding | here
        yield Launch(document_gradients, count * adding["tiles"], arguments, constants, 8, cut.stages, registers)


def token_constants(dim: int, cut: Tiles) -> dict[str, Any]:
    """How tokens are cut up, known when a kernel is compiled."""
    return {
        "DIM": dim,
        "FIRST": cut.first,
        "REST": cut.rest,
        "RESIDENT": cut.resident,
        "BLOCK_M": cut.block_m,
        "BLOCK_N": cut.block_n,
        "STAGES": cut.stages,
    }


def _nothing(problem: Problem) -> bool:
    """Whether there is no token to multiply with another."""
    return 0 in (len(problem.queries), len(problem.documents), *problem.scores_shape)


def _uniform(problem: Problem) -> tuple[bool, bool]:
    """Whether all queries, and all documents, have one length: then their number times that makes up the tokens."""
    return (
        len(problem.queries) == problem.Nq * problem.max_query_length,
        len(problem.documents) == problem.Nd * problem.max_document_length,
    )


def _pieces(problem: Problem, size: int) -> tuple[Tensor, Tensor]:
    """The query of every piece, Nq where there is none, and which of its pieces it is; both ``[n]`` int32.

    How many there are is known to the device alone, so n is an upper bound.
    """
    lengths = problem.query_offsets.diff()
    ends = ((lengths + size - 1) // size).cumsum(0)
    most = len(problem.queries) // size + problem.Nq
    piece = torch.arange(triton.cdiv(most, 256 // size) * (256 // size), device=ends.device)  # whole blocks
    query = torch.searchsorted(ends, piece, right=True)
    before = torch.nn.functional.pad(ends, (1, 0))
    return query.int(), (piece - before[query]).int()


def _group(index: Tensor | None, count: int) -> tuple[Tensor | None, Tensor | None]:
    """Pairs in order of their query (or document), and where each of ``count`` begins: ``[P]``, ``[count + 1]``."""
    if index is None:
        return None, None
    ordered, order = index.sort(stable=True)
    return order, torch.searchsorted(ordered, torch.arange(count + 1, device=index.device))
