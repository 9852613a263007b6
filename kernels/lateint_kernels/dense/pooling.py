"""Token pooling: the tokens of a document that are alike become one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.arrays import to_float32
from lateint_kernels.integers import integer
from lateint_kernels.ragged import Ragged

if TYPE_CHECKING:
    from torch import Tensor

    from lateint_kernels.ragged_tensor import RaggedTensor

MOST = 16  # tokens that become one
LONGEST = 2048  # of longer documents so many tokens are clustered at a time


@overload
def pool(documents: Ragged, factor: int, *, protected: int = 0, threads: int = 0) -> Ragged: ...


@overload
def pool(
    documents: RaggedTensor | Sequence[Tensor], factor: int, *, protected: int = 0, threads: int = 0
) -> RaggedTensor: ...


def pool(documents: Any, factor: int, *, protected: int = 0, threads: int = 0) -> Any:
    """Leaves one token of ``factor``: the means of clusters, document by document.

    Ward's method merges two clusters A and B at a time, those for which
    ``|A| |B| / (|A| + |B|) |mean(A) - mean(B)|^2`` is least (of equal ones the first), until ``ceil(Ld / factor)`` are
    left. Clusters are in the order of their first tokens. Of documents of more than about 2,048 tokens, so many are
    clustered at a time. The result is the same on any machine and number of threads.

    Hierarchical pooling of late-interaction tokens: Clavié, Chaffin and Adams (2024), arXiv 2409.14683.

    Args:
        documents: `Ragged` of float32, float16 or bfloat16; or `RaggedTensor` or a list of ``[Ld, dim]`` tensors, whose
            means have gradients: which tokens are alike has none, and is found on the CPU.
        factor: from 1 to 16; 1 changes nothing.
        protected: tokens at the start of each document that stay as they are, such as ``[CLS]``; ``Ld`` above is
            without them.
        threads: 0 for the default.

    Returns:
        `Ragged` of float32, or `RaggedTensor` of the dtype of the tensors; means as they are: where tokens have norm 1,
        theirs is a little less.

    Raises:
        TypeError, ValueError: tokens are int8, or ``factor`` or ``protected`` is out of range.

    >>> tokens = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]], np.float32)
    >>> pool(Ragged.from_lengths(tokens, [4]), 2).tokens
    array([[0.95, 0.05],
           [0.05, 0.95]], dtype=float32)
    """
    if not 1 <= integer(factor, "factor") <= MOST:
        raise ValueError(f"factor must be between 1 and {MOST}, got {factor}")
    if integer(protected, "protected") < 0:
        raise ValueError(f"protected must be at least 0, got {protected}")
    if _is_torch(documents):
        return _pooled_tensors(documents, factor, protected, threads)
    if documents.tokens.dtype == np.int8:
        raise TypeError("documents must be float32, float16 or bfloat16 to be pooled, got int8")
    tokens, offsets = np.ascontiguousarray(to_float32(documents.tokens)), np.ascontiguousarray(documents.offsets)
    if protected:
        clusters, counts = _clusters(tokens, offsets, factor, protected, threads)
        sums = np.zeros((int(counts.sum()), tokens.shape[1]))
        np.add.at(sums, clusters, tokens)
        means = (sums / np.bincount(clusters, minlength=len(sums))[:, None]).astype(np.float32)
        return Ragged.from_lengths(means, counts, allow_empty=documents.has_empty)
    pooled = _cpu.pool(tokens, offsets, factor, threads)
    return Ragged.from_lengths(pooled, -(-documents.lengths // factor), allow_empty=documents.has_empty)


def cluster(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], counts: NDArray[np.int64], *, cosine: bool = False
) -> NDArray[np.int64]:
    """Which of the ``counts[i]`` clusters each token of matrix i is in, ``[T]``: 0, 1, ... as their first tokens come.

    Args:
        tokens: ``[T, dim]``.
        offsets: ``[n + 1]``.
        counts: ``[n]``, from 1 (0 for no token) to the tokens of a matrix.
        cosine: tokens are ``1 - <a, b>`` apart, as in PyLate and sentence-transformers, instead of ``|a - b|``.

    >>> cluster(np.array([[0.0], [5.0], [1.0]], np.float32), np.array([0, 3]), np.array([2])).tolist()
    [0, 1, 0]
    """
    return _cpu.cluster(tokens, offsets, counts, cosine, False, 0)[0]


def cluster_means(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], counts: NDArray[np.int64], *, cosine: bool = False
) -> NDArray[np.float32]:
    """The mean of the tokens of each cluster, ``[sum of counts, dim]``; as `cluster` has them."""
    return _cpu.cluster(tokens, offsets, counts, cosine, True, 0)[1]


def means(tokens: Tensor, clusters: NDArray[np.int64], count: int) -> Tensor:
    """``[count, dim]``: the mean of the tokens of each cluster, differentiable, the same bits every time."""
    import torch

    order, sizes = np.argsort(clusters, kind="stable"), np.bincount(clusters, minlength=count)
    order, sizes = (torch.from_numpy(numbers).to(tokens.device) for numbers in (order, sizes))
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    found = torch.segment_reduce(wide[order], "mean", lengths=sizes, axis=0, unsafe=True)
    return found.to(tokens.dtype)


def _is_torch(documents: object) -> bool:
    torch = sys.modules.get("torch")
    first = documents[0] if isinstance(documents, list | tuple) and documents else getattr(documents, "tokens", None)
    return torch is not None and isinstance(first, torch.Tensor)


def _pooled_tensors(documents: Any, factor: int, protected: int, threads: int) -> RaggedTensor:
    from lateint_kernels.ragged_tensor import RaggedTensor

    packed = documents if isinstance(documents, RaggedTensor) else RaggedTensor.pack(documents)
    tokens = packed.tokens.detach().float().cpu().contiguous().numpy()
    clusters, counts = _clusters(tokens, packed.offsets.cpu().numpy(), factor, protected, threads)
    return RaggedTensor.from_lengths(means(packed.tokens, clusters, int(counts.sum())), counts)


def _clusters(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], factor: int, protected: int, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each token's cluster among those of all documents ``[T]``, and how many each document has ``[n]``.

    A protected token is a cluster of its own.
    """
    run = LONGEST // factor * factor
    cuts: list[int] = [0]
    counts, kept = [], []  # of runs, and of documents
    for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        start = min(first + protected, last)
        runs = [1] * (start - first) + [min(run, last - begin) for begin in range(start, last, run)]
        cuts += (first + np.cumsum(runs, dtype=np.int64)).tolist()
        sizes = [1] * (start - first) + [-(-size // factor) for size in runs[start - first :]]
        counts += sizes
        kept.append(sum(sizes))
    bounds, of_runs = np.array(cuts, np.int64), np.array(counts, np.int64)
    within, _ = _cpu.cluster(tokens, bounds, of_runs, False, False, threads)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(of_runs)])[:-1]
    return within + np.repeat(before, np.diff(bounds)), np.array(kept, np.int64)
