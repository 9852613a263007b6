"""What every operator means, in float64 and loops; all fast code is measured against this."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.arrays import Array, to_float32


def maxsim(queries: Iterable[Array], documents: Iterable[Array]) -> NDArray[np.float64]:
    """``S(q, d) = sum_i max_j <q_i, d_j>`` of each ``[Lq, dim]`` with each ``[Ld, dim]``: ``[Nq, n]``.

    >>> maxsim([np.eye(2)], [np.array([[-1.0, 0.0]]), np.eye(2)])
    array([[-1.,  2.]])
    """
    matrices = [_numbers(document) for document in documents]
    return np.array([[_score(_numbers(query), document) for document in matrices] for query in queries])


def _score(query: NDArray[np.float64], document: NDArray[np.float64]) -> float:
    return sum(max(float(token @ other) for other in document) for token in query)


def _numbers(tokens: Array) -> NDArray[np.float64]:
    return tokens if tokens.dtype == np.float64 else to_float32(tokens).astype(np.float64)
