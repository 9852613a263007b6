"""Token pooling as other libraries define it: Ward's method with their distances and their numbers of clusters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lateint_kernels.dense.pooling import cluster_means, clusters_of, means
from lateint_kernels.dense.runs import Runs


def pooled(matrices: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """The means of ``counts[i]`` clusters of each ``[n_i, dim]``, with gradients; tokens are ``1 - <a, b>`` apart.

    All are on one device, and found there.
    """
    import torch

    tokens = matrices[0] if len(matrices) == 1 else torch.cat(list(matrices))
    runs = Runs(np.cumsum([0, *map(len, matrices)]), np.array(counts), cosine=True)
    if tokens.device.type == "cpu" and not (torch.is_grad_enabled() and tokens.requires_grad):
        found = cluster_means(tokens.detach().float().contiguous().numpy(), runs.cuts, runs.counts, cosine=True)
        every = torch.from_numpy(found).to(tokens.dtype)
    else:
        every = means(tokens, clusters_of(tokens, runs), runs.total)
    return list(every.split(list(counts)))


def pooled_by_rows(tokens: Any, rows: Any, count: int) -> tuple[Any, Any]:
    """The means of ``count`` clusters of tokens ``[n, dim]``, and which each token is in; they are as far apart as
    ``rows [n, k]``."""
    found = clusters_of(rows, Runs(np.array([0, len(rows)]), np.array([count])))
    return means(tokens, found, count), found
