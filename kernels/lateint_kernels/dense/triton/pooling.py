"""Clusters of tokens by Triton, and the launches that they are made of."""

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from lateint_kernels.dense.runs import Runs, blocks, by_first_tokens
from lateint_kernels.dense.triton.ward import fill_costs, merge
from lateint_kernels.gpu.launch import Launch, on, why_not

__all__ = ["cluster", "why_not"]

BUDGET = 1 << 26  # costs in memory at a time, 512 MB, unless one run has more: at most 32 MB
SIDE = 32  # of a tile of costs, at most
NUMBERS = 256  # of a row of costs for a warp: less of a program makes its minima wait for other warps
TILE = 2048  # costs at a time of a warp that looks for the nearest of each token


def cluster(tokens: Tensor, runs: Runs, threads: int) -> Tensor:
    """The number of each token's cluster among those of all runs, ``[T]``: the same on every device."""
    heads = torch.arange(len(tokens), device=tokens.device)
    with on(tokens.device):
        for launch in all_launches(tokens, runs, heads):
            launch.run()
    return by_first_tokens(heads)


def all_launches(tokens: Tensor, runs: Runs, heads: Tensor) -> Iterator[Launch]:
    """Those that write into ``heads [T]`` the first token of each token's cluster, where tokens are merged."""
    merging = runs.merging()
    if not merging.size:
        return
    T, dim = tokens.shape
    kind = torch.float32 if runs.cosine else torch.float64  # of differences: widened once, not for each tile
    turned = tokens.new_empty((dim, T), dtype=kind).copy_(tokens.float().T)
    firsts, lengths, counts = torch.from_numpy(merging).to(tokens.device)
    cuts = blocks(merging, BUDGET)
    room = max((last - first) * int(merging[1, first]) ** 2 for first, last in cuts)
    rows = max((last - first) * int(merging[1, first]) for first, last in cuts)
    costs, least = (tokens.new_empty(size, dtype=torch.float64) for size in (room, rows))
    nearest = tokens.new_empty(rows, dtype=torch.int32)
    for first, last in cuts:
        longest = int(merging[1, first])
        N = max(16, triton.next_power_of_2(longest))
        shared = {"firsts": firsts, "lengths": lengths, "costs": costs, "begin": first, "stride": longest}
        block = min(SIDE, N)
        tiles = triton.cdiv(longest, block)
        arguments = {**shared, "tokens": turned, "T": T, "dim": dim, "tiles": tiles}
        constants = {"COSINE": runs.cosine, "BLOCK": block}
        yield Launch(fill_costs, (last - first) * tiles**2, arguments, constants, warps=4, fused=False)
        arguments = {**shared, "counts": counts, "least": least, "nearest": nearest, "heads": heads}
        warps = max(1, N // NUMBERS)
        constants = {"N": N, "ROWS": max(1, min(16, warps * TILE // N))}
        yield Launch(merge, last - first, arguments, constants, warps=warps, fused=False)
