"""Token pooling: the tokens of a document that are alike become one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu, backends
from lateint_kernels.arrays import to_float32
from lateint_kernels.backends import BackendError
from lateint_kernels.dense.runs import LONGEST, Runs
from lateint_kernels.integers import integer
from lateint_kernels.ragged import Ragged

if TYPE_CHECKING:
    from torch import Tensor

    from lateint_kernels.ragged_tensor import RaggedTensor

MOST = 16  # tokens that become one


@overload
def pool(
    documents: Ragged, factor: int, *, protected: int = 0, threads: int = 0, backend: str | None = None
) -> Ragged: ...


@overload
def pool(
    documents: RaggedTensor | Sequence[Tensor],
    factor: int,
    *,
    protected: int = 0,
    threads: int = 0,
    backend: str | None = None,
) -> RaggedTensor: ...


def pool(documents: Any, factor: int, *, protected: int = 0, threads: int = 0, backend: str | None = None) -> Any:
    """Leaves one token of ``factor``: the means of clusters, document by document.

    Ward's method merges two clusters A and B at a time, those for which
    ``|A| |B| / (|A| + |B|) |mean(A) - mean(B)|^2`` is least (of equal ones the first), until ``ceil(Ld / factor)`` are
    left. Clusters are in the order of their first tokens. Of documents of more than about 2,048 tokens, so many are
    clustered at a time. A cost that is infinite or not a number counts as the largest number.

    Clusters are the same with every backend, on every device and with any number of threads: costs are float64 made of
    tokens in float32, sums have one order, and no operation is fused with another. Means of arrays are sums in float64
    and so the same bits, too; those of tensors are sums in float32, whose last bits are torch's on that device.

    Hierarchical pooling of late-interaction tokens: Clavié, Chaffin and Adams (2024), arXiv 2409.14683.

    Args:
        documents: `Ragged` of float32, float16 or bfloat16; or `RaggedTensor` or a list of ``[Ld, dim]`` tensors, whose
            means have gradients: which tokens are alike has none, and is found where the tensors are. The host waits
            for a GPU only to read the offsets of a `RaggedTensor` that was made without its functions.
        factor: from 1 to 16; 1 changes nothing.
        protected: tokens at the start of each document that stay as they are, such as ``[CLS]``; ``Ld`` above is
            without them.
        threads: of the CPU, 0 for the default.
        backend: ``"triton"``, ``"cpp"`` or ``"torch"``; None for the best one here. Arrays run on ``"cpp"``.

    Returns:
        `Ragged` of float32, or `RaggedTensor` of the dtype of the tensors; means as they are: where tokens have norm 1,
        theirs is a little less.

    Raises:
        TypeError, ValueError: tokens are int8, or ``factor`` or ``protected`` is out of range, or there is no backend
            of that name.
        BackendError: the backend asked for cannot run here.

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
        return _pooled_tensors(documents, factor, protected, threads, backend)
    if backend not in (None, "cpp"):
        raise BackendError(f"cannot run pool of numpy arrays on {backend}: arrays run on cpp, tensors on others")
    if documents.tokens.dtype == np.int8:
        raise TypeError("documents must be float32, float16 or bfloat16 to be pooled, got int8")
    tokens, offsets = np.ascontiguousarray(to_float32(documents.tokens)), np.ascontiguousarray(documents.offsets)
    if protected:
        runs, counts = Runs.of_documents(offsets, factor, protected)
        within, _ = _cpu.cluster(tokens, runs.cuts, runs.counts, False, False, threads)
        clusters = runs.numbered(within)
        sums = np.zeros((runs.total, tokens.shape[1]))
        np.add.at(sums, clusters, tokens)
        means = (sums / np.bincount(clusters, minlength=len(sums))[:, None]).astype(np.float32)
        return Ragged.from_lengths(means, counts, allow_empty=documents.has_empty)
    pooled = _cpu.pool(tokens, offsets, factor, threads)
    return Ragged.from_lengths(pooled, -(-documents.lengths // factor), allow_empty=documents.has_empty)


def cluster_means(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], counts: NDArray[np.int64], *, cosine: bool = False
) -> NDArray[np.float32]:
    """The mean of the tokens of each of the ``counts[i]`` clusters of matrix i, as their first tokens come.

    ``[sum of counts, dim]``.

    Args:
        tokens: ``[T, dim]``.
        offsets: ``[n + 1]``.
        counts: ``[n]``, from 1 (0 for no token) to the tokens of a matrix.
        cosine: tokens are ``1 - <a, b>`` apart, as in PyLate and sentence-transformers, instead of ``|a - b|``.
    """
    return _cpu.cluster(tokens, offsets, counts, cosine, True, 0)[1]


def clusters_of(tokens: Tensor, runs: Runs, *, threads: int = 0, backend: str | None = None) -> Tensor:
    """The number of each token's cluster among those of all runs, ``[T]`` int64, on the device of ``tokens [T, dim]``.

    Raises:
        BackendError: the backend asked for cannot run here.
    """
    if backend is None and backends.chosen("cluster", tokens.device) == "triton" and runs.longest > LONGEST:
        backend = "torch"  # for a Triton program has a run in its registers
    run = backends.resolve("cluster", tokens.device, backend=backend)
    found: Tensor = run(tokens.detach(), runs, threads)
    return found


def means(tokens: Tensor, clusters: Tensor, count: int) -> Tensor:
    """``[count, dim]``: the mean of the tokens of each cluster, differentiable, the same bits every time."""
    import torch

    ordered, order = clusters.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(count + 1, device=tokens.device))
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    found = torch.segment_reduce(wide[order], "mean", lengths=starts.diff(), axis=0, unsafe=True)
    return found.to(tokens.dtype)


def _is_torch(documents: object) -> bool:
    torch = sys.modules.get("torch")
    first = documents[0] if isinstance(documents, list | tuple) and documents else getattr(documents, "tokens", None)
    return torch is not None and isinstance(first, torch.Tensor)


def _pooled_tensors(documents: Any, factor: int, protected: int, threads: int, backend: str | None) -> RaggedTensor:
    from lateint_kernels.ragged_tensor import RaggedTensor

    packed = documents if isinstance(documents, RaggedTensor) else RaggedTensor.pack(documents)
    runs, counts = Runs.of_documents(packed.host_offsets, factor, protected)
    clusters = clusters_of(packed.tokens, runs, threads=threads, backend=backend)
    return RaggedTensor.from_lengths(means(packed.tokens, clusters, runs.total), counts)
