"""Token pooling as other libraries define it: Ward's method with their distances and their numbers of clusters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.dense.pooling import cluster, cluster_means, means


def pooled(matrices: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """The means of ``counts[i]`` clusters of each ``[n_i, dim]``, with gradients; tokens are ``1 - <a, b>`` apart."""
    import torch

    points = [matrix.detach().float().cpu().numpy() for matrix in matrices]
    offsets, sizes = np.cumsum([0, *map(len, points)]), np.array(counts)
    tokens = points[0] if len(points) == 1 else np.concatenate(points)
    if not (torch.is_grad_enabled() and any(matrix.requires_grad for matrix in matrices)):
        every = torch.from_numpy(cluster_means(tokens, offsets, sizes, cosine=True)).split(list(counts))
        return [part.to(matrix) for part, matrix in zip(every, matrices, strict=True)]
    found = cluster(tokens, offsets, sizes, cosine=True)
    parts = zip(matrices, np.split(found, offsets[1:-1]), counts, strict=True)
    return [means(matrix, part, count) for matrix, part, count in parts]


def pooled_by_rows(tokens: Any, rows: Any, count: int) -> tuple[Any, NDArray[np.int64]]:
    """The means of ``count`` clusters of tokens ``[n, dim]``, and which each token is in; they are as far apart as
    ``rows [n, k]``."""
    found = cluster(np.ascontiguousarray(rows.numpy()), np.array([0, len(rows)]), np.array([count]))
    return means(tokens, found, count), found
