"""Exact MaxSim of dense tokens: checks, then one call of the compiled kernels."""

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.arrays import DTYPE_CODES, as_array
from lateint_kernels.ragged import Ragged

MAX_DIM = 32768  # int8 sums of products stay inside int32


def maxsim(queries: object, documents: object, *, threads: int | None = None) -> NDArray[np.float32]:
    """Late-interaction score of every query with every document.

    ``S(q, d) = sum_i max_j <q_i, d_j>``  (ColBERT, Khattab & Zaharia 2020, eq. 3)

    Args:
        queries: ``[Nq, Lq, dim]``, or ``[Lq, dim]`` for one query, or a `Ragged` or list of ``[Lq_i, dim]``.
        documents: a `Ragged` or list of ``[Ld_j, dim]``, or ``[n, Ld, dim]``; none is empty.
        threads: how many to use at most; None for ``LATEINT_NUM_THREADS`` or else every CPU there is.

    Either side may be float32, float16 or bfloat16, whatever the other is; the numbers are taken as they are, products
    accumulated in float32 or better, and the maxima summed in float64. int8 documents take float queries too. With int8
    on both sides everything is integer, so the score is the exact sum, rounded once to float32.

    A score depends on its query, its document and the instruction set alone: not on the rest of the batch, nor on the
    number of threads. Values must be finite (`check_finite` tells), their products too.

    Returns:
        ``[Nq, n]`` float32, or ``[n]`` for one query given as ``[Lq, dim]``.

    Raises:
        TypeError: a dtype is none of these, or queries are int8 and documents are not.
        ValueError: a shape or dim does not match, or a query or document is empty.

    >>> documents = Ragged.pack([[[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> maxsim([[1.0, 0.0], [0.0, 1.0]], documents)
    array([-1.,  2.], dtype=float32)
    """
    left, single = _queries(queries)
    right = _documents(documents)
    _check_pair(left, right)
    scores = _cpu.maxsim(*_parts(left), *_parts(right), _threads(threads))
    return scores[0] if single else scores


def maxsim_pairs(
    queries: object, documents: object, query_index: object, document_index: object, *, threads: int | None = None
) -> NDArray[np.float32]:
    """Late-interaction score of chosen pairs, such as each query with its own candidates.

    ``S_p = sum_i max_j <q_i, d_j>`` of query ``query_index[p]`` and document ``document_index[p]``; the same numbers as
    `maxsim` gives, bit for bit.

    Args:
        queries: as for `maxsim`.
        documents: as for `maxsim`.
        query_index: ``[P]`` integers, which query; best grouped by query.
        document_index: ``[P]`` integers, which document.
        threads: how many to use at most; None for ``LATEINT_NUM_THREADS`` or else every CPU there is.

    Returns:
        ``[P]`` float32.

    Raises:
        TypeError: a dtype does not fit, or an index is not a list of integers.
        ValueError: a shape or dim does not match, something is empty, or an index is out of range.

    >>> documents = Ragged.pack([[[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> maxsim_pairs([[1.0, 0.0], [0.0, 1.0]], documents, [0, 0], [1, 0])
    array([ 2., -1.], dtype=float32)
    """
    left, _ = _queries(queries)
    right = _documents(documents)
    _check_pair(left, right)
    first = _index(query_index, "query_index", len(left), "queries")
    second = _index(document_index, "document_index", len(right), "documents")
    if len(first) != len(second):
        raise ValueError(f"query_index and document_index must have one length, got {len(first)} and {len(second)}")
    return _cpu.maxsim_pairs(*_parts(left), *_parts(right), first, second, _threads(threads))


def _queries(queries: object) -> tuple[Ragged, bool]:
    """The queries, and whether they are one query given without a batch axis."""
    if isinstance(queries, Ragged):
        return queries, False
    if isinstance(queries, list | tuple) and queries and as_array(queries[0], "queries[0]", int8=True).ndim == 2:
        return Ragged.pack(queries, name="query"), False
    array = as_array(queries, "queries", int8=True)
    if array.ndim == 2 and len(array):
        return Ragged.from_offsets(array, [0, len(array)]), True
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"queries must be [Lq, dim], [Nq, Lq, dim], Ragged or a list of [Lq, dim], got {array.shape}")
    return Ragged.from_padded(array), False


def _documents(documents: object) -> Ragged:
    if isinstance(documents, Ragged):
        return documents
    if isinstance(documents, list | tuple):
        return Ragged.pack(documents)
    array = as_array(documents, "documents", int8=True)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"documents must be Ragged, a list of [Ld, dim] or [n, Ld, dim], got {array.shape}")
    return Ragged.from_padded(array)


def _check_pair(queries: Ragged, documents: Ragged) -> None:
    if queries.dim != documents.dim:
        raise ValueError(f"queries and documents must share dim, got {queries.dim} and {documents.dim}")
    if queries.dim > MAX_DIM:
        raise ValueError(f"dim must be at most {MAX_DIM}, got {queries.dim}")
    if queries.dtype == np.int8 and documents.dtype != np.int8:
        raise TypeError(f"int8 queries need int8 documents, got {documents.dtype}")
    for side, name in ((queries, "query"), (documents, "document")):
        if side.has_empty:
            i = int(np.flatnonzero(side.lengths == 0)[0])
            raise ValueError(f"{name} {i} is empty: MaxSim is not defined for it")


def _parts(side: Ragged) -> tuple[NDArray[np.generic], int, NDArray[np.int64]]:
    return side.tokens, DTYPE_CODES[side.tokens.dtype], side.offsets


def _threads(threads: int | None) -> int:
    if threads is None:
        return 0
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return threads


def _index(values: object, name: str, size: int, what: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a list of integers, got {array.dtype} {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise ValueError(f"{name} must be from 0 to {size - 1}, for there are {size} {what}")
    return np.ascontiguousarray(array, dtype=np.int64)
