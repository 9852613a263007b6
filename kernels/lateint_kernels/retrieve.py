"""The best documents of each query among dense tokens, without a score for every document at once."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.integers import positive
from lateint_kernels.maxsim import maxsim
from lateint_kernels.ragged import Ragged

# At a time: how many scores, by kind of device, and how many numbers of documents where these may have to be copied.
SCORES = {"cpu": 1 << 20, "cuda": 1 << 23}
NUMBERS = 1 << 24

LOW = (1 << 32) - 1  # the lower half of a key


class TopK(NamedTuple):
    """The best documents of each query, best first.

    Args:
        scores: ``[Nq, k]`` float32.
        indices: ``[Nq, k]`` int64, which document.
    """

    scores: Any
    indices: Any


def retrieve(
    queries: Any,
    documents: Any,
    k: int,
    *,
    query_mask: Any = None,
    document_mask: Any = None,
    query_weights: Any = None,
    normalize: bool = False,
    check: bool = True,
    backend: str | None = None,
    threads: int | None = None,
    chunk: int | None = None,
) -> TopK:
    """The ``k`` documents of the highest late-interaction score, for each query; exact.

    The top k by ``S(q, d) = sum_i max_j <q_i, d_j>``  (ColBERT, Khattab & Zaharia 2020, eq. 3). Of equal scores the
    document of the lowest index comes first, so the result does not depend on how the work is cut. A score that
    is NaN comes last; arrays must not hold NaN, as for `maxsim`.

    Documents are scored ``chunk`` at a time and only the best are kept. Beside inputs and result that takes 40 bytes
    for each score of a chunk (1 M scores on a CPU, 8 M on a GPU, unless ``chunk`` says otherwise), and a copy of the
    chunk (16 M numbers) unless documents are tensors on the device of the queries.

    Args:
        queries: as for `maxsim`: numpy or torch; ``[Nq, Lq, dim]``, ``[Lq, dim]``, a list, or packed.
        documents: ``[Nd, Ld, dim]``, a list of ``[Ld, dim]``, or packed; numpy arrays may be memory maps. Tensors
            may stay on the CPU while queries are on a GPU: each chunk is sent there.
        k: how many to find, at least 1; all of them if there are fewer.
        query_mask: as for `maxsim`.
        document_mask: ``[Nd, Ld]``, for padded documents.
        query_weights: as for `maxsim`.
        normalize: as for `maxsim`.
        check: as for `maxsim`.
        backend: as for `maxsim`.
        threads: as for `maxsim`.
        chunk: how many documents to score at a time; None for as many as fit the memory stated above.

    Returns:
        `TopK` of ``[Nq, min(k, Nd)]``, or ``[min(k, Nd)]`` for one query given as ``[Lq, dim]``; numpy arrays for
        numpy, or tensors on the device of the queries, without gradient.

    Raises:
        TypeError, ValueError: as for `maxsim`; k or chunk is not positive, or there is no document.

    >>> documents = np.array([[[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]], np.float32)
    >>> retrieve(np.array([[1.0, 0.0]], np.float32), documents, 2).indices
    array([1, 2])
    """
    k = positive(k, "k")
    if chunk is not None:
        chunk = positive(chunk, "chunk")
    if len(documents) == 0:
        raise ValueError("documents must not be empty")
    torch = _torch_of(queries)
    best = None
    with torch.no_grad() if torch else nullcontext():
        for first, part, mask in _chunks(torch, queries, documents, document_mask, chunk):
            scores = maxsim(
                queries,
                part,
                query_mask=query_mask,
                document_mask=mask,
                query_weights=query_weights,
                normalize=normalize,
                check=check,
                backend=backend,
                threads=threads,
            )
            keys = _keys(torch or np, scores, first)
            best = _largest(torch, keys if best is None else (torch or np).concatenate([best, keys], -1), k)
        return _unpacked(torch or np, best)


def _chunks(torch: Any, queries: Any, documents: Any, mask: Any, chunk: int | None) -> Iterator[tuple[int, Any, Any]]:
    """The number of the first document of each chunk, its documents where the queries are, and their mask."""
    offsets = _offsets(documents)
    n_queries = 1 if getattr(queries, "ndim", 3) == 2 else len(queries)
    kind = _device(queries).type if torch else "cpu"
    n_documents = chunk or max(1, SCORES.get(kind, SCORES["cpu"]) // max(1, n_queries))
    n_tokens = NUMBERS // int(_tokens(documents).shape[-1])
    if chunk or (torch and not isinstance(documents, list | tuple) and _device(documents) == _device(queries)):
        n_tokens = int(offsets[-1])
    for first, last in _cuts(offsets, n_documents, n_tokens):
        part, part_mask = _part(documents, offsets, first, last), _mask_part(documents, mask, offsets, first, last)
        if torch:
            part, part_mask = _moved(part, _device(queries)), _moved(part_mask, _device(queries))
        yield first, part, part_mask


def _torch_of(queries: Any) -> Any:
    """The torch module if ``queries`` are its tensors, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(_tokens(queries), torch.Tensor) else None


def _tokens(side: Any) -> Any:
    """An array that says what kind of numbers these are: of the first matrix of a list."""
    return side[0] if isinstance(side, list | tuple) else getattr(side, "tokens", side)


def _device(side: Any) -> Any:
    return _tokens(side).device


def _offsets(documents: Any) -> NDArray[np.int64]:
    """``[Nd + 1]``: how many tokens come before each document."""
    if hasattr(documents, "offsets"):
        offsets = documents.offsets.cpu() if hasattr(documents.offsets, "cpu") else documents.offsets
        return np.asarray(offsets, dtype=np.int64)
    if isinstance(documents, list | tuple):
        return np.cumsum([0, *map(len, documents)], dtype=np.int64)
    if documents.ndim != 3:
        raise ValueError(
            f"documents must be [Nd, Ld, dim], packed or a list of [Ld, dim], got {tuple(documents.shape)}"
        )
    return np.arange(len(documents) + 1, dtype=np.int64) * int(documents.shape[1])


def _cuts(offsets: NDArray[np.int64], n_documents: int, n_tokens: int) -> Iterator[tuple[int, int]]:
    """First and last document of each chunk: at most so many documents and tokens, but at least one document."""
    first = 0
    while first < len(offsets) - 1:
        fits = int(np.searchsorted(offsets, offsets[first] + n_tokens, side="right")) - 1
        last = max(first + 1, min(first + n_documents, fits, len(offsets) - 1))
        yield first, last
        first = last


def _part(documents: Any, offsets: NDArray[np.int64], first: int, last: int) -> Any:
    if not hasattr(documents, "offsets"):
        return documents[first:last]
    tokens = documents.tokens[offsets[first] : offsets[last]]
    cut = documents.offsets[first : last + 1] - int(offsets[first])
    if isinstance(documents, Ragged):
        return Ragged.from_offsets(tokens, cut)
    return dataclasses.replace(documents, tokens=tokens, offsets=cut)


def _mask_part(documents: Any, mask: Any, offsets: NDArray[np.int64], first: int, last: int) -> Any:
    if mask is None or not hasattr(documents, "offsets") or isinstance(mask, list | tuple):
        return None if mask is None else mask[first:last]
    return mask[offsets[first] : offsets[last]]


def _moved(part: Any, device: Any) -> Any:
    """Tensors, or lists or packs of them, on ``device``."""
    if part is None or _device(part) == device:
        return part
    if isinstance(part, list | tuple):
        return [matrix.to(device, non_blocking=True) for matrix in part]
    if not hasattr(part, "offsets"):
        return part.to(device, non_blocking=True)
    moved = {name: getattr(part, name).to(device, non_blocking=True) for name in ("tokens", "offsets")}
    return dataclasses.replace(part, **moved)


def _keys(xp: Any, scores: Any, first: int) -> Any:
    """``[..., n]`` int64 that rise with the score and, for equal scores, fall with the document's index.

    The upper half is the score's bits, with those of a negative score turned so that they rise, too; the lower half is
    ``LOW - index``. Being all different, they have one order whatever sorts them.
    """
    scores = xp.asarray(scores, dtype=xp.float32) + 0.0  # no negative zero
    bits = xp.asarray(scores.view(xp.int32), dtype=xp.int64)
    rising = xp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    rising = xp.where(xp.isnan(scores), -(1 << 31), rising)
    return rising * (1 << 32) + (LOW - first) - _count(xp, scores)


def _count(xp: Any, scores: Any) -> Any:
    """0, 1, 2, ... for the last axis."""
    n = scores.shape[-1]
    return np.arange(n) if xp is np else xp.arange(n, device=scores.device)


def _largest(torch: Any, keys: Any, k: int) -> Any:
    """The ``k`` largest keys, largest first."""
    k = min(k, keys.shape[-1])
    if torch:
        return keys.topk(k, dim=-1).values
    largest = np.partition(keys, -k, axis=-1)[..., -k:]
    largest.sort(axis=-1)
    return largest[..., ::-1]


def _unpacked(xp: Any, keys: Any) -> TopK:
    rising = keys >> 32
    bits = xp.asarray(xp.where(rising < 0, rising ^ 0x7FFFFFFF, rising), dtype=xp.int32)
    return TopK(bits.view(xp.float32), LOW - (keys & LOW))
