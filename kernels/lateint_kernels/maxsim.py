"""Exact MaxSim of dense tokens, as arrays or as tensors that train."""

import sys
from typing import Any

from lateint_kernels.dense import array_edge
from lateint_kernels.dense.options import Options


def maxsim(
    queries: object,
    documents: object,
    *,
    query_mask: object = None,
    document_mask: object = None,
    query_weights: object = None,
    normalize: bool = False,
    masking: str = "exclude",
    return_argmax: bool = False,
    check: bool = True,
    backend: str | None = None,
    threads: int | None = None,
) -> Any:
    """Late-interaction score of every query with every document, or with its own candidates.

    ``S(q, d) = sum_i max_j <q_i, d_j>``  (ColBERT, Khattab & Zaharia 2020, eq. 3)

    Padding never takes part: a masked query token adds nothing, and a masked document token never wins, not even over
    negative similarities; whatever they hold, NaN too, changes nothing. With torch tensors the score has gradients to
    queries, documents and weights: the same bits every time, in the dtype of the inputs, once differentiable. Saved for
    them is one or two bytes for each query token and document, besides the inputs. Forward-mode derivatives, of any
    order, take plain torch, and memory for the winning tokens.

    Args:
        queries: ``[Nq, Lq, dim]``, or ``[Lq, dim]`` for one query, or a list of ``[Lq_i, dim]``, `Ragged` or
            `RaggedTensor`.
        documents: ``[Nd, Ld, dim]``, or a list of ``[Ld_j, dim]``, `Ragged` or `RaggedTensor`; or ``[Nq, K, Ld, dim]``:
            K candidates of each query. None is empty.
        query_mask: ``[Nq, Lq]`` like queries without their dim, or ``[T]`` for packed ones; bool, or any numbers of
            which 0 leaves a token out.
        document_mask: ``[Nd, Ld]``, ``[Nq, K, Ld]`` or ``[T]``, likewise.
        query_weights: floats of the shape of query_mask, multiplied onto the maxima. A token of weight 0 is absent: its
            weight has no gradient.
        normalize: whether tokens are divided by their length, or by 1e-12 if they are shorter.
        masking: ``"exclude"``, or ``"multiply"`` for what PyLate does: similarities of masked document tokens become 0,
            which wins over negative ones.
        return_argmax: whether to tell which document token each query token found; the first one among equals.
        check: whether to look for queries or documents that a mask leaves no token, which costs a wait for the GPU.
            Without, such a document scores minus infinity, and such a query 0. Must be False inside a CUDA graph.
        backend: ``"cuda"``, ``"triton"``, ``"cpp"`` or ``"torch"``; None for the best one here (`explain` tells).
        threads: how many to use at most; None for ``LATEINT_NUM_THREADS`` or else every CPU there is. For arrays only.

    Arrays are scored on the CPU. Either side may be float32, float16 or bfloat16, whatever the other is; the numbers
    are taken as they are, products accumulated in float32 or better, and the maxima summed in float64. int8 documents
    take float queries too. With int8 on both sides everything is integer, so the score is the exact sum, rounded once
    to float32. A score depends on its query, its document and the instruction set alone: not on the rest of the batch,
    nor on the number of threads. Values must be finite (`check_finite` tells), their products too.

    Tensors are scored where they are; both sides share device and dtype, float32, float16 or bfloat16 (or what autocast
    makes of them), and everything is accumulated in float32. float64 runs on ``"torch"``. A NaN in a token that takes
    part makes the score NaN.

    Returns:
        ``[Nq, Nd]`` float32, ``[Nd]`` for one query given as ``[Lq, dim]``, ``[Nq, K]`` for candidates; float64 for
        float64 tensors. With ``return_argmax`` a pair: scores, and positions in the document, int64 ``[..., Lq]``, with
        -1 for absent query tokens (Lq is that of the longest query).

    Raises:
        TypeError: a dtype is none of these or does not fit the other side, or only one side is torch.
        ValueError: a shape, dim or device does not match, or a query or document is empty.
        BackendError: the backend asked for cannot run here.

    >>> documents = [[[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]
    >>> maxsim([[1.0, 0.0], [0.0, 1.0]], documents)
    array([-1.,  2.], dtype=float32)
    """
    options = Options(query_mask, document_mask, query_weights, normalize, masking, return_argmax, check, backend)
    if _is_torch(queries) or _is_torch(documents):
        _refuse_threads(threads)
        from lateint_kernels.dense import tensor_edge

        return tensor_edge.maxsim(queries, documents, options)
    return array_edge.maxsim(queries, documents, options, threads)


def maxsim_pairs(
    queries: object,
    documents: object,
    query_index: object = None,
    document_index: object = None,
    *,
    query_mask: object = None,
    document_mask: object = None,
    query_weights: object = None,
    normalize: bool = False,
    masking: str = "exclude",
    return_argmax: bool = False,
    check: bool = True,
    backend: str | None = None,
    threads: int | None = None,
) -> Any:
    """Late-interaction score of chosen pairs, such as each query with its own candidates.

    ``S_p = sum_i max_j <q_i, d_j>`` of query ``query_index[p]`` and document ``document_index[p]``; for arrays the same
    numbers as `maxsim` gives, bit for bit. Without indices pair p is query p with document p.

    Args:
        queries: as for `maxsim`.
        documents: as for `maxsim`, but no ``[Nq, K, Ld, dim]``.
        query_index: ``[P]`` integers, which query; best grouped by query.
        document_index: ``[P]`` integers, which document.
        check: as for `maxsim`, and whether indices on a GPU are looked at.
        query_mask, document_mask, query_weights, normalize, masking, return_argmax, backend, threads: as for `maxsim`.

    Returns:
        ``[P]`` float32; with ``return_argmax`` also positions ``[P, Lq]``.

    Raises:
        TypeError: a dtype does not fit, or an index is not a list of integers.
        ValueError: a shape or dim does not match, something is empty, or an index is out of range.
        BackendError: the backend asked for cannot run here.

    >>> documents = [[[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]
    >>> maxsim_pairs([[1.0, 0.0], [0.0, 1.0]], documents, [0, 0], [1, 0])
    array([ 2., -1.], dtype=float32)
    """
    options = Options(query_mask, document_mask, query_weights, normalize, masking, return_argmax, check, backend)
    if _is_torch(queries) or _is_torch(documents):
        _refuse_threads(threads)
        from lateint_kernels.dense import tensor_edge

        return tensor_edge.maxsim_pairs(queries, documents, query_index, document_index, options)
    return array_edge.maxsim_pairs(queries, documents, query_index, document_index, options, threads)


def _is_torch(tokens: object) -> bool:
    if sys.modules.get("torch") is None:
        return False
    import torch

    from lateint_kernels.ragged_tensor import RaggedTensor

    if isinstance(tokens, list | tuple) and tokens:
        tokens = tokens[0]
    return isinstance(tokens, torch.Tensor | RaggedTensor)


def _refuse_threads(threads: int | None) -> None:
    if threads is not None:
        raise ValueError(f"threads is for arrays, got {threads} with tensors: LATEINT_NUM_THREADS sets it for both")
