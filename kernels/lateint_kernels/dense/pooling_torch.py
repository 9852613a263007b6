"""Clusters of tokens in plain torch: any device, runs beside each other, and the host never waits for a GPU."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.dense.runs import FAR, Runs, blocks, by_first_tokens
from lateint_kernels.dense.torch import BUDGET


def cluster(tokens: Tensor, runs: Runs, threads: int) -> Tensor:
    """The number of each token's cluster among those of all runs, ``[T]``: the same on every device.

    Sums run over the components in their order, and every operation is rounded by itself, as in C++.
    """
    if tokens.device.type == "mps":  # which has no float64
        return cluster(tokens.cpu(), runs, threads).to(tokens.device)
    heads = torch.arange(len(tokens) + 1, device=tokens.device)  # the last for whatever is outside
    merging = runs.merging()
    for first, last in blocks(merging, BUDGET.get(tokens.device.type, BUDGET["cpu"]), tokens.shape[1]):
        block = merging[:, first:last]
        block = block[:, np.argsort(block[2] - block[1], kind="stable")]  # most merges first
        firsts, lengths, _ = torch.from_numpy(block).to(tokens.device)[..., None]
        place = torch.arange(int(block[1].max()), device=tokens.device)
        inside = place < lengths
        rows = firsts + place
        costs = _costs(tokens[rows.masked_fill(~inside, 0)], runs.cosine)  # [runs, n, n]
        costs.masked_fill_(~(inside[:, :, None] & inside[:, None]) | (place[:, None] == place), torch.inf)
        found = firsts + _merged(costs, inside, block[1] - block[2])
        heads[rows.masked_fill(~inside, len(tokens))] = found
    return by_first_tokens(heads[:-1])


def _costs(tokens: Tensor, cosine: bool) -> Tensor:
    """Half of the squares of the distances of tokens ``[runs, n, dim]``, ``[runs, n, n]``."""
    tokens = tokens.float() if cosine else tokens.float().double()
    n = tokens.shape[1]
    sums = tokens.new_zeros((len(tokens), n, n))
    for component in tokens.unbind(2):
        left, right = component[:, :, None], component[:, None]
        apart = left if cosine else left - right
        sums += apart * (right if cosine else apart)
    if cosine:
        apart = 1 - sums.double()
        sums = apart * apart
    return _bounded(0.5 * sums)


def _merged(costs: Tensor, inside: Tensor, merges: NDArray[np.int64]) -> Tensor:
    """The first token of each token's cluster, ``[runs, n]``, after so many merges in each run, fewer and fewer.

    Costs are infinite where there is no pair: none of a cluster with itself, with one that is merged, or outside.
    """
    n = costs.shape[1]
    place = torch.arange(n, device=costs.device)
    heads, sizes = place.repeat(len(costs), 1), inside.double()
    numbers, nothing = torch.arange(len(costs), device=costs.device), costs.new_zeros(())
    nowhere = nothing + torch.inf
    for step in range(int(merges.max())):
        runs = int((merges > step).sum())
        cost, size, head, number = costs[:runs], sizes[:runs], heads[:runs], numbers[:runs]
        pair = cost.flatten(1).argmin(1)  # of equal ones the first, and that is above the diagonal
        a, b = pair // n, pair % n
        together, na, nb = (x[:, None] for x in (cost[number, a, b], size[number, a], size[number, b]))
        sums = (size + na) * cost[number, a] + (size + nb) * cost[number, b] - size * together
        others = (size > 0) & (place != a[:, None]) & (place != b[:, None])
        joined = _bounded(sums / (size + na + nb)).where(others, torch.inf)
        cost[number, a], cost[number, :, a] = joined, joined
        cost[number, b], cost[number, :, b] = nowhere, nowhere
        size[number, a], size[number, b] = (na + nb)[:, 0], nothing
        head.copy_(a[:, None].where(head == b[:, None], head))
    return heads


def _bounded(costs: Tensor) -> Tensor:
    """FAR for what is infinite or not a number."""
    return costs.where(costs < FAR, FAR)
