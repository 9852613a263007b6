"""MaxSim of numpy arrays: checks, then one call of the compiled kernels.

Masks, weights and normalisation are brought into the tokens first: a masked document token is left out, a masked query
token becomes zero and so adds nothing, and ``w max <q, d> = sign(w) max <|w| q, d>``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.arrays import DTYPE_CODES, Array, as_array, to_float32, unmasked
from lateint_kernels.backends import BackendError
from lateint_kernels.dense import edge
from lateint_kernels.dense.options import Options
from lateint_kernels.dense.sketch import sketch_of
from lateint_kernels.integers import integers, positive
from lateint_kernels.ragged import Ragged

MAX_DIM = 32768  # int8 sums of products stay inside int32
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Documents:
    """What is left of documents after masking."""

    tokens: Ragged
    positions: NDArray[np.int64] | None  # [T], where each token stood in its document; None: where it still does
    empty: NDArray[np.bool_] | None  # [n], which have no token left; a token stands in for them


def maxsim(queries: object, documents: object, options: Options, threads: int | None) -> Any:
    """`lateint_kernels.maxsim` of arrays."""
    left, query_shape, query_grid = _queries(queries)
    right, document_shape, document_grid = _documents(documents, candidates=True)
    shape = edge.shape_of_scores(query_shape, document_shape)
    pairs = None
    if len(document_shape) == 2:
        Nq, K = document_shape
        pairs = np.repeat(np.arange(Nq), K), np.arange(Nq * K)
    return _run(left, right, (query_grid, document_grid), pairs, shape, options, threads)


def maxsim_pairs(
    queries: object,
    documents: object,
    query_index: object,
    document_index: object,
    options: Options,
    threads: int | None,
) -> Any:
    """`lateint_kernels.maxsim_pairs` of arrays."""
    left, _, query_grid = _queries(queries)
    right, _, document_grid = _documents(documents, candidates=False)
    _check_pair(left, right)
    edge.check_indices(query_index, document_index, len(left), len(right))
    if query_index is None:
        query_index = document_index = np.arange(len(left))
    first = _index(query_index, "query_index", len(left), "queries")
    second = _index(document_index, "document_index", len(right), "documents")
    edge.check_pairs(len(first), len(second))
    return _run(left, right, (query_grid, document_grid), (first, second), first.shape, options, threads)


def _run(
    left: Ragged,
    right: Ragged,
    grids: tuple[tuple[int, ...], tuple[int, ...]],
    pairs: Pairs | None,
    shape: tuple[int, ...],
    options: Options,
    threads: int | None,
) -> Any:
    if options.backend not in (None, "cpp"):
        raise BackendError(
            f"cannot run maxsim of numpy arrays on {options.backend}: arrays run on cpp, tensors on others"
        )
    _check_pair(left, right)
    factors = _query_factors(left, grids[0], options)
    kept = _masked_documents(right, grids[1], options)
    if options.normalize:
        left, kept = _normalized(left), Documents(_normalized(kept.tokens), kept.positions, kept.empty)
    scores = _scores(_times(left, factors), kept.tokens, pairs, threads)
    if factors is not None and (factors < 0).any():
        scores = _scores(_times(left, factors.clip(0)), kept.tokens, pairs, threads) - _scores(
            _times(left, -factors.clip(max=0)), kept.tokens, pairs, threads
        )
    if kept.empty is not None:
        scores[..., kept.empty if pairs is None else kept.empty[pairs[1]]] = -np.inf
    scores = scores.reshape(shape)
    if not options.return_argmax:
        return scores
    found = _positions(left, kept, None if factors is None else factors != 0, pairs)
    return scores, found.reshape(*shape, found.shape[-1])


def _scores(queries: Ragged, documents: Ragged, pairs: Pairs | None, threads: int | None) -> NDArray[np.float32]:
    if pairs is None:
        return _cpu.maxsim(*_parts(queries), *_parts(documents), _threads(threads), *sketch_of(documents))
    return _cpu.maxsim_pairs(*_parts(queries), *_parts(documents), *pairs, _threads(threads), *sketch_of(documents))


def _positions(
    queries: Ragged, documents: Documents, present: NDArray[np.bool_] | None, pairs: Pairs | None
) -> NDArray[np.int64]:
    """``[Nq, n, Lq]`` or ``[P, Lq]``; -1 where the query token or the whole document is absent."""
    Nq, n, Lq = len(queries), len(documents.tokens), int(queries.lengths.max(initial=0))
    first, second = (np.repeat(np.arange(Nq), n), np.tile(np.arange(n), Nq)) if pairs is None else pairs
    found = np.full((len(first), Lq), -1, np.int64)
    for row, i, j in zip(found, first, second, strict=True):
        if documents.empty is not None and documents.empty[j]:
            continue
        best = (to_float32(queries[i]) @ to_float32(documents.tokens[j]).T).argmax(1)
        if documents.positions is not None:
            best = documents.positions[documents.tokens.offsets[j] + best]
        if present is not None:
            best = np.where(present[queries.offsets[i] : queries.offsets[i + 1]], best, -1)
        row[: len(best)] = best
    return found.reshape(Nq, n, Lq) if pairs is None else found


def _query_factors(queries: Ragged, grid: tuple[int, ...], options: Options) -> NDArray[np.float32] | None:
    """Weights ``[T]``, 0 where the mask leaves a token out."""
    mask = _per_token(options.query_mask, grid, "query_mask")
    weights = _per_token(options.query_weights, grid, "query_weights")
    if weights is not None:
        edge.check_weights(weights.dtype.kind == "f", weights.dtype)
    if mask is None:
        return None if weights is None else weights.astype(np.float32)
    keep = mask != 0
    if options.check and options.masking == "exclude":
        _check_kept(_counts(keep, queries.offsets), "query")
    return keep.astype(np.float32) if weights is None else np.where(keep, weights, 0).astype(np.float32)


def _masked_documents(documents: Ragged, grid: tuple[int, ...], options: Options) -> Documents:
    mask = _per_token(options.document_mask, grid, "document_mask")
    if mask is None:
        return Documents(documents, None, None)
    keep = mask != 0
    if options.masking == "multiply":
        return Documents(Ragged.from_offsets(_zeroed(documents.tokens, keep), documents.offsets), None, None)
    counts = _counts(keep, documents.offsets)
    if options.check:
        _check_kept(counts, "document")
    empty = counts == 0
    keep = keep.copy()
    keep[documents.offsets[:-1][empty]] = True
    positions = np.arange(len(keep)) - np.repeat(documents.offsets[:-1], documents.lengths)
    left = Ragged.from_lengths(documents.tokens[keep], np.maximum(counts, 1))
    return Documents(left, positions[keep], empty if empty.any() else None)


def _times(queries: Ragged, factors: NDArray[np.float32] | None) -> Ragged:
    """Tokens times factors; what stood at a factor of 0 is gone, even NaN."""
    if factors is None:
        return queries
    tokens = _zeroed(queries.tokens, factors != 0)
    if not np.isin(factors, (0, 1)).all():
        tokens = to_float32(tokens) * factors[:, None]
    return Ragged.from_offsets(tokens, queries.offsets)


def _zeroed(tokens: Array, keep: NDArray[np.bool_]) -> Array:
    tokens = tokens.copy()
    tokens[~keep] = np.zeros((), tokens.dtype)
    return tokens


def _normalized(side: Ragged) -> Ragged:
    tokens = to_float32(side.tokens)
    norms = np.linalg.norm(tokens, axis=1, keepdims=True)
    return Ragged.from_offsets(tokens / np.maximum(norms, 1e-12), side.offsets)


def _counts(keep: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(np.concatenate([[0], np.cumsum(keep)])[offsets])


def _check_kept(counts: NDArray[np.int64], what: str) -> None:
    if not counts.all():
        raise edge.nothing_left(what, int(np.flatnonzero(counts == 0)[0]))


def _per_token(numbers: Any, grid: tuple[int, ...], name: str) -> Array | None:
    if numbers is None:
        return None
    array = unmasked(numbers, name)
    edge.check_per_token(name, array.shape, grid)
    return array.reshape(-1)


def _queries(queries: object) -> tuple[Ragged, tuple[int, ...], tuple[int, ...]]:
    """The queries, the shape of their batch, and of a mask for them."""
    if isinstance(queries, list | tuple) and queries and as_array(queries[0], "queries[0]", int8=True).ndim == 2:
        queries = Ragged.pack(queries, name="query")
    if isinstance(queries, Ragged):
        return queries, (len(queries),), (len(queries.tokens),)
    array = as_array(queries, "queries", int8=True)
    if array.ndim == 2 and len(array):
        return Ragged.from_offsets(array, [0, len(array)]), (), array.shape[:1]
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"queries must be [Lq, dim], [Nq, Lq, dim], Ragged or a list of [Lq, dim], got {array.shape}")
    return Ragged.from_padded(array), array.shape[:1], array.shape[:2]


def _documents(documents: object, candidates: bool) -> tuple[Ragged, tuple[int, ...], tuple[int, ...]]:
    if isinstance(documents, list | tuple):
        documents = Ragged.pack(documents)
    if isinstance(documents, Ragged):
        return documents, (len(documents),), (len(documents.tokens),)
    array = as_array(documents, "documents", int8=True)
    if array.ndim not in ((3, 4) if candidates else (3,)) or 0 in array.shape[-2:]:
        more = " or [Nq, K, Ld, dim]" if candidates else ""
        raise ValueError(f"documents must be Ragged, a list of [Ld, dim], [Nd, Ld, dim]{more}, got {array.shape}")
    return Ragged.from_padded(array.reshape(-1, *array.shape[-2:])), array.shape[:-2], array.shape[:-1]


def _check_pair(queries: Ragged, documents: Ragged) -> None:
    edge.check_dims(queries.dim, documents.dim)
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
    return 0 if threads is None else positive(threads, "threads")


def _index(values: object, name: str, size: int, what: str) -> NDArray[np.int64]:
    array = integers(values, name)
    if array.size and (array.min() < 0 or array.max() >= size):
        raise edge.out_of_range(name, size, what)
    return array
