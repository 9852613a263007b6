"""Gradients of MaxSim by the kernels document_gradient.cu and query_gradient.cu.

Both gather rows in a fixed order and use no atomics: the same bits every time. Nothing is synchronised; buffers beside
the gradients are lists of pairs at most.
"""

import ctypes
from ctypes import c_int, c_void_p

import torch
from torch import Tensor

from lateint_kernels.dense.problem import Problem
from lateint_kernels.gpu import program
from lateint_kernels.gpu.arguments import TOKEN, aligned, pointer

# document_gradient: threads of a block, and bytes of shared memory for each: two entries and two picked rows.
DOCUMENT_THREADS = 512
BYTES_PER_THREAD = 2 * 12 + 64 * 2 // 32
BLOCKS_PER_MULTIPROCESSOR = 2
RESERVED = 1024  # bytes of shared memory the system takes from every block

QUERY_THREADS = 256


class Backward(ctypes.Structure):
    """csrc/cuda/backward.cuh, byte for byte."""

    _fields_ = (
        ("queries", c_void_p),
        ("query_offsets", c_void_p),
        ("documents", c_void_p),
        ("document_offsets", c_void_p),
        ("query_weights", c_void_p),
        ("query_inverse_norms", c_void_p),
        ("document_inverse_norms", c_void_p),
        ("document_scales", c_void_p),
        ("grad_scores", c_void_p),
        ("argmax", c_void_p),
        ("row_query", c_void_p),
        ("pair_query", c_void_p),
        ("pair_document", c_void_p),
        ("pair_order", c_void_p),
        ("pair_begin", c_void_p),
        ("grad_queries", c_void_p),
        ("grad_weights", c_void_p),
        ("grad_documents", c_void_p),
        ("query_tokens", c_int),
        ("query_count", c_int),
        ("document_count", c_int),
        ("max_query_length", c_int),
        ("dim", c_int),
        ("position_bytes", c_int),
        ("slice", c_int),
    )


def maxsim_backward(
    problem: Problem, grad_scores: Tensor, argmax: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the scores' weighted sum: of queries, documents and query weights, those needed.

    ``u_s = sum_j g_ij c_a id_a d_a``, ``dq_s = w_s iq_s (u_s - iq_s^2 <u_s, q_s> q_s)``, ``dw_s = iq_s <u_s, q_s>``;
    ``v_t = sum_{(i, s): a = t} g_ij w_s iq_s q_s``, ``dd_t = c_t id_t (v_t - id_t^2 <v_t, d_t> d_t)``; the projections
    only where tokens are normalised.

    Args:
        problem: what was scored.
        grad_scores: ``[Nq, Nd]``, of pairs ``[P]``, float32.
        argmax: ``[Nd, TQ]``, of pairs ``[P, max_query_length]``, from the forward pass.
        needs: which of the three are wanted.

    Returns:
        ``[TQ, dim]`` and ``[TD, dim]`` in the tokens' dtype, ``[TQ]`` float32; None where not needed. Sums are float32.
        An absent query token, one of weight 0, gets 0 in all of them.
    """
    queries, documents = aligned(problem.queries), aligned(problem.documents)
    dq = torch.empty_like(queries) if needs[0] else None
    dd = torch.empty_like(documents) if needs[1] else None
    dw = torch.empty(len(queries), dtype=torch.float32, device=queries.device) if needs[2] else None
    if not grad_scores.numel():  # nothing was scored, and no pairs look like all pairs to the kernels
        return tuple(None if gradient is None else gradient.zero_() for gradient in (dq, dd, dw))  # type: ignore[return-value]
    common, kept = _common(problem, queries, documents, grad_scores, argmax)
    if len(queries) and (needs[0] or needs[2]):
        common.grad_queries, common.grad_weights = pointer(dq), pointer(dw)
        kept += _sort_pairs(problem, common, problem.query_index, problem.query_offsets)
        _launch_queries(queries, common)
    if dd is not None and len(documents):
        common.grad_documents = pointer(dd)
        kept += _sort_pairs(problem, common, problem.document_index, problem.document_offsets)
        _launch_documents(documents, common, problem.max_document_length)
    return dq, dd, dw


def _launch_queries(queries: Tensor, arguments: Backward) -> None:
    loads = -(-arguments.dim * queries.element_size() // 16)  # of 16 bytes, in a row
    lanes = min(32, 1 << (loads - 1).bit_length())
    defines = (("TOKEN", TOKEN[str(queries.dtype)]), ("LANES", str(lanes)), ("BLOCKS", str(-(-loads // lanes))))
    blocks = -(-arguments.query_tokens // (QUERY_THREADS // 32))
    kernel = program.load("query_gradient", defines, queries.get_device())
    kernel.launch((blocks, 1, 1), QUERY_THREADS, 0, arguments)


def _launch_documents(documents: Tensor, arguments: Backward, max_document_length: int) -> None:
    gpu = program.gpu(documents.get_device())
    arguments.slice = _slice(gpu, arguments.document_count, max_document_length, arguments.dim * 4)
    shared = DOCUMENT_THREADS * BYTES_PER_THREAD + arguments.slice * arguments.dim * 4
    slices = -(-max_document_length // arguments.slice)
    kernel = program.load("document_gradient", (("TOKEN", TOKEN[str(documents.dtype)]),), documents.get_device())
    kernel.launch((arguments.document_count, slices, 1), DOCUMENT_THREADS, shared, arguments)


def _slice(gpu: program.Gpu, documents: int, max_document_length: int, row_bytes: int) -> int:
    """Document tokens of a block: as many as fit, but enough blocks for the whole GPU."""
    room = min(gpu.shared_per_multiprocessor // BLOCKS_PER_MULTIPROCESSOR - RESERVED, gpu.shared_per_block)
    staged = DOCUMENT_THREADS * BYTES_PER_THREAD
    fitting = (room - staged) // row_bytes
    if fitting < 1:  # rows too long for two blocks side by side
        fitting = (gpu.shared_per_block - staged) // row_bytes
    least_slices = -(-gpu.multiprocessors * BLOCKS_PER_MULTIPROCESSOR // documents)
    slices = max(-(-max_document_length // fitting), min(least_slices, -(-max_document_length // 16)))
    return -(-max_document_length // slices)


def _common(
    problem: Problem, queries: Tensor, documents: Tensor, grad_scores: Tensor, argmax: Tensor
) -> tuple[Backward, list[Tensor | None]]:
    """The arguments both kernels share, and the tensors they point into."""
    rows = None
    if len(queries) != problem.Nq * problem.max_query_length:
        lengths = problem.query_offsets.diff()
        numbers = torch.arange(problem.Nq, dtype=torch.int32, device=queries.device)
        rows = torch.repeat_interleave(numbers, lengths, output_size=len(queries))
    tensors = {
        "queries": queries,
        "query_offsets": problem.query_offsets,
        "documents": documents,
        "document_offsets": problem.document_offsets,
        "query_weights": problem.query_weights,
        "query_inverse_norms": problem.query_inverse_norms,
        "document_inverse_norms": problem.document_inverse_norms,
        "document_scales": problem.document_scales,
        "grad_scores": grad_scores.contiguous(),
        "argmax": argmax.contiguous(),
        "row_query": rows,
        "pair_query": problem.query_index,
        "pair_document": problem.document_index,
    }
    arguments = Backward(
        **{name: pointer(tensor) for name, tensor in tensors.items()},
        query_tokens=len(queries),
        query_count=problem.Nq,
        document_count=problem.Nd,
        max_query_length=problem.max_query_length,
        dim=problem.dim,
        position_bytes=argmax.element_size(),
    )
    return arguments, list(tensors.values())


def _sort_pairs(problem: Problem, arguments: Backward, index: Tensor | None, offsets: Tensor) -> list[Tensor | None]:
    """Points the arguments to the pairs of each query, or document, in order; returns what they point into."""
    if index is None:
        return []
    ordered, order = torch.sort(index, stable=True)
    begin = torch.searchsorted(ordered, torch.arange(len(offsets), device=index.device))
    arguments.pair_order, arguments.pair_begin = pointer(order), pointer(begin)
    return [order, begin]
