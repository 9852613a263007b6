"""The stages of a search that Triton does: what `lateint_kernels.codes.torch.search` has, with the same results."""

from collections.abc import Iterator
from functools import lru_cache

import torch
import triton
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors, RotationTensors
from lateint_kernels.codes.triton import codes
from lateint_kernels.codes.triton.probe import all_launches as probe_launches
from lateint_kernels.codes.triton.probe import probe, probe_cells
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on, why_not

__all__ = ["all_launches", "best_products", "probe", "probe_cells", "rotate", "weighted", "why_not"]

RESIDENT = 512  # a tile of tokens has all components up to so many
SHORT = 48  # documents of so few tokens on average are taken in tiles of 32, others in tiles of 64


def rotate(tokens: Tensor, rotation: RotationTensors) -> Tensor:
    """Query tokens ``[n, dim]`` float32 permuted and turned, ``[n, width]``, with the bits of `Engine`."""
    rotated = tokens.new_empty((len(tokens), len(rotation.permutation)))
    with on(tokens.device):
        rotation_launch(tokens, rotation, rotated).run()
    return rotated


def best_products(index: IndexTensors, queries: QueryTensors, positions: Tensor) -> Tensor:
    """``[Nq, C, longest]`` int32: ``max_j <q_i, x_j>`` over the tokens of the documents at ``positions [Nq, C]``.

    A negative position stands for none. What belongs to no query token or to no document token is any number.
    """
    best = torch.empty((*positions.shape, queries.longest), dtype=torch.int32, device=positions.device)
    with on(positions.device):
        scoring_launch(index, queries, positions.contiguous(), best, architecture(positions.device)).run()
    return best


def weighted(best: Tensor, scales: Tensor, constants: Tensor) -> Tensor:
    """``constants[q] + sum_i scales[q, i] * best[q, c, i]``: ``[Nq, C]`` float64, i in order."""
    sums = torch.empty(best.shape[:2], dtype=torch.float64, device=best.device)
    with on(best.device):
        sums_launch(best, scales.contiguous(), constants, sums).run()
    return sums


def all_launches(index: IndexTensors, queries: QueryTensors, C: int, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that a search with C candidates needs, with tensors that hold nothing."""

    def empty(*shape: int, of: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=of, device=index.codes.device)

    Nq, T = len(queries.constants), len(queries.bytes)
    best = empty(Nq, C, queries.longest)
    blocks = RotationTensors(empty(1, index.width, index.width, of=torch.float32), empty(index.width))
    tokens, rotated = (empty(T, index.width, of=torch.float32) for _ in range(2))
    yield rotation_launch(tokens, blocks, rotated)
    yield from probe_launches(index, queries.bytes, count=32, cells=24, arch=arch)
    yield scoring_launch(index, queries, empty(Nq, C, of=torch.int64), best, arch)
    scales = empty(Nq, queries.longest, of=torch.float64)
    yield sums_launch(best, scales, queries.constants, empty(Nq, C, of=torch.float64))


def rotation_launch(tokens: Tensor, rotation: RotationTensors, rotated: Tensor) -> Launch:
    """Of `codes.rotate`."""
    blocks, block = rotation.blocks.shape[:2]
    columns = int(triton.next_power_of_2(block))
    rows = max(1, 1024 // columns)
    return Launch(
        codes.rotate,
        blocks * triton.cdiv(len(tokens), rows),
        {
            "tokens": tokens,
            "blocks": rotation.blocks,
            "permutation": rotation.permutation,
            "rotated": rotated,
            "T": len(tokens),
            "dim": tokens.shape[1],
        },
        {"BLOCKS": blocks, "BLOCK": block, "ROWS": rows, "COLUMNS": columns},
        fused=False,
    )


def scoring_launch(
    index: IndexTensors, queries: QueryTensors, positions: Tensor, best: Tensor, arch: Architecture
) -> Launch:
    """Of `codes.best_products`."""
    Nq, C, longest = best.shape
    average = int(index.cuts[-1]) // max(1, index.documents)
    block_m, block_n, block_k = scoring_tiles(longest, average, index.width)
    pieces = triton.cdiv(longest, block_m)
    count = max(1, min(16, Nq * pieces * C // (16 * arch.multiprocessors)))
    return Launch(
        codes.best_products,
        Nq * pieces * triton.cdiv(C, count),
        {
            "queries": queries.bytes,
            "query_offsets": queries.offsets,
            "positions": positions,
            "offsets": index.offsets,
            "codes": index.codes,
            "scales": index.scales,
            "centroid_low": index.centroid_low,
            "centroid_high": index.centroid_high,
            "centroids": index.centroids,
            "best": best,
            "C": C,
            "longest": longest,
            "pieces": pieces,
            "count": count,
        },
        {
            "NBITS": index.nbits,
            "WIDTH": index.width,
            "DEPTH": index.centroids.shape[1],
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
            "STAGES": 2,
        },
        warps=8 if block_m * block_n > 4096 or block_n * block_k > 8192 else 4,
    )


def sums_launch(best: Tensor, scales: Tensor, constants: Tensor, sums: Tensor) -> Launch:
    """Of `codes.weighted_sums`."""
    Nq, C, longest = best.shape
    assert best.stride(2) == 1 and (Nq == 1 or best.stride(0) == C * best.stride(1))
    block = 128
    blocks = triton.cdiv(C, block)
    return Launch(
        codes.weighted_sums,
        Nq * blocks,
        {
            "scales": scales,
            "best": best,
            "constants": constants,
            "sums": sums,
            "C": C,
            "stride": best.stride(1),
            "longest": longest,
            "blocks": blocks,
        },
        {"BLOCK": block},
        fused=False,
    )


@lru_cache
def scoring_tiles(longest: int, average: int, width: int) -> tuple[int, int, int]:
    """Query tokens of a program, document tokens and components of a tile.

    Every piece of a query decodes the documents again, which costs as much as about 64 query tokens.

    >>> [scoring_tiles(longest, 128, 128)[0] for longest in (1, 32, 100, 320, 1024)]
    [16, 32, 128, 128, 256]
    """
    sizes = (16, 32, 64, 128, 256)
    block_m = min(sizes, key=lambda size: triton.cdiv(longest, size) * (size + 64))
    components = _components(width)
    return block_m, 32 if average <= SHORT or components > 256 else 64, components if components <= RESIDENT else 128


def _components(width: int) -> int:
    """A power of two, at least the 32 that a product of bytes needs."""
    return max(32, int(triton.next_power_of_2(width)))
