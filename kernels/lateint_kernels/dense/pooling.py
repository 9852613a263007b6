"""Token pooling: the tokens of a document that are alike become one."""

from __future__ import annotations

import numpy as np

from lateint_kernels import _cpu
from lateint_kernels.arrays import to_float32
from lateint_kernels.ragged import Ragged

MOST = 16  # tokens that become one


def pool(documents: Ragged, factor: int, *, threads: int = 0) -> Ragged:
    """Leaves one token of ``factor``: the means of clusters, document by document.

    Ward's method merges two clusters A and B at a time, those for which
    ``|A| |B| / (|A| + |B|) |mean(A) - mean(B)|^2`` is least (of equal ones the first), until ``ceil(Ld / factor)`` are
    left. Clusters are in the order of their first tokens. Of documents of more than about 2,048 tokens, so many are
    clustered at a time. The result is the same on any machine and number of threads.

    Hierarchical pooling of late-interaction tokens: Clavié, Chaffin and Adams (2024), arXiv 2409.14683.

    Args:
        documents: of float32, float16 or bfloat16.
        factor: from 1 to 16; 1 changes nothing.
        threads: 0 for the default.

    Returns:
        Documents of float32, means as they are: where tokens have norm 1, theirs is a little less.

    Raises:
        TypeError, ValueError: tokens are int8, or ``factor`` is out of range.

    >>> tokens = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]], np.float32)
    >>> pool(Ragged.from_lengths(tokens, [4]), 2).tokens
    array([[0.95, 0.05],
           [0.05, 0.95]], dtype=float32)
    """
    if not 1 <= factor <= MOST:
        raise ValueError(f"factor must be between 1 and {MOST}, got {factor}")
    if documents.tokens.dtype == np.int8:
        raise TypeError("documents must be float32, float16 or bfloat16 to be pooled, got int8")
    tokens = np.ascontiguousarray(to_float32(documents.tokens))
    pooled = _cpu.pool(tokens, np.ascontiguousarray(documents.offsets), factor, threads)
    return Ragged.from_lengths(pooled, -(-documents.lengths // factor), allow_empty=documents.has_empty)
