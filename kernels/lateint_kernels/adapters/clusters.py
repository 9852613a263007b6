"""Token pooling as other libraries define it: Ward's method with their distances and their numbers of clusters."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.dense.pooling import cluster, means


def pooled(tokens: Any, count: int, *, distances: Any = None) -> tuple[Any, NDArray[np.int64]]:
    """The means of ``count`` clusters of tokens ``[n, dim]``, with gradients, and which each token is in.

    Tokens are ``1 - <a, b>`` apart; or as far as the rows of ``distances [n, k]``.
    """
    points = (tokens if distances is None else distances).detach().float().cpu().contiguous().numpy()
    found = cluster(points, np.array([0, len(points)]), np.array([count]), cosine=distances is None)
    return means(tokens, found, count), found
