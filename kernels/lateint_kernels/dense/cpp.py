"""MaxSim with gradients, and clusters of tokens, on the CPU: torch tensors in and out, the compiled kernels between."""

from typing import TYPE_CHECKING

from lateint_kernels import _cpu

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lateint_kernels.dense.problem import Problem
    from lateint_kernels.dense.runs import Runs

DTYPES = ("float32", "float16", "bfloat16")  # as csrc/platform/dtype.hpp counts them


def maxsim(problem: "Problem", need_argmax: bool) -> "tuple[Tensor, Tensor | None]":
    """Scores, and where each maximum was found if asked for."""
    import torch

    scores = torch.empty(problem.scores_shape, dtype=torch.float32)
    argmax = torch.empty(problem.argmax_shape, dtype=problem.argmax_dtype) if need_argmax else None
    size = argmax.element_size() if argmax is not None else 0
    _native(problem).forward(scores.data_ptr(), _address(argmax), size, 0)
    return scores, argmax


def maxsim_backward(
    problem: "Problem", grad_scores: "Tensor", argmax: "Tensor", needs: tuple[bool, bool, bool]
) -> "tuple[Tensor | None, Tensor | None, Tensor | None]":
    """Gradients of queries, documents and query weights; None for those not needed."""
    import torch

    need_queries, need_documents, need_weights = needs
    grad_queries = torch.empty_like(problem.queries) if need_queries else None
    grad_documents = torch.empty_like(problem.documents) if need_documents else None
    grad_weights = torch.empty(len(problem.queries), dtype=torch.float32) if need_weights else None
    grad_scores = grad_scores.contiguous()
    _native(problem).backward(
        grad_scores.data_ptr(),
        argmax.data_ptr(),
        argmax.element_size(),
        _address(grad_queries),
        _address(grad_documents),
        _address(grad_weights),
        0,
    )
    return grad_queries, grad_documents, grad_weights


def cluster(tokens: "Tensor", runs: "Runs", threads: int) -> "Tensor":
    """The number of each token's cluster among those of all runs, ``[T]``."""
    import torch

    found, _ = _cpu.cluster(tokens.float().contiguous().numpy(), runs.cuts, runs.counts, runs.cosine, False, threads)
    return torch.from_numpy(runs.numbered(found))


def soft_maxima(problem: "Problem", temperature: float) -> "Tensor":
    """``T log sum_t exp(<q_s, d_t> / T)`` of query tokens and documents ``[TQ, Nd]``; 0 for an absent query token."""
    import torch

    found = torch.empty((len(problem.queries), problem.Nd), dtype=torch.float32)
    _native(problem).smooth_forward(temperature, found.data_ptr(), 0)
    return found


def soft_maxima_backward(
    problem: "Problem", temperature: float, found: "Tensor", gradient: "Tensor", needs: tuple[bool, bool]
) -> "tuple[Tensor | None, Tensor | None]":
    """Gradients of queries and documents; None for those not needed."""
    import torch

    sides = zip((problem.queries, problem.documents), needs, strict=True)
    both = [torch.empty_like(side) if need else None for side, need in sides]
    left, right = (_address(side) for side in both)
    _native(problem).smooth_backward(temperature, found.data_ptr(), gradient.data_ptr(), left, right, 0)
    return both[0], both[1]


def retrieved(problem: "Problem", k: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Maxima ``[TQ, Nd]``, where they are ``[Nd, TQ]``, and the last of the k largest similarities ``[TQ]``."""
    import torch

    rows = len(problem.queries)
    best, least = torch.empty((rows, problem.Nd), dtype=torch.float32), torch.empty(rows, dtype=torch.float32)
    argmax = torch.empty((problem.Nd, rows), dtype=problem.argmax_dtype)
    _native(problem).retrieve(k, best.data_ptr(), argmax.data_ptr(), argmax.element_size(), least.data_ptr(), 0)
    return best, argmax, least


def _native(problem: "Problem") -> _cpu.TrainProblem:
    """The same problem by its addresses; valid as long as ``problem`` is."""
    return _cpu.TrainProblem(
        dtype=DTYPES.index(_name(problem.queries.dtype)),
        dim=problem.dim,
        query_count=problem.Nq,
        document_count=problem.Nd,
        max_query_length=problem.max_query_length,
        pairs=0 if problem.query_index is None else len(problem.query_index),
        queries=problem.queries.data_ptr(),
        query_offsets=problem.query_offsets.data_ptr(),
        documents=problem.documents.data_ptr(),
        document_offsets=problem.document_offsets.data_ptr(),
        query_weights=_address(problem.query_weights),
        query_inverse_norms=_address(problem.query_inverse_norms),
        document_inverse_norms=_address(problem.document_inverse_norms),
        document_scales=_address(problem.document_scales),
        document_mask=_address(problem.document_mask),
        query_index=_address(problem.query_index),
        document_index=_address(problem.document_index),
    )


def _address(tensor: "Tensor | None") -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")
