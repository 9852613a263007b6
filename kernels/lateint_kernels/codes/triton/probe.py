"""The best centroids of query tokens: what `lateint_kernels.codes.torch.search` has of that, with the same results.

The best ``count`` centres are in the ``count`` groups of neighbours whose best centre is best (the first group among
equals), so that only these are looked at one by one.
"""

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors
from lateint_kernels.codes.torch.search import LEAST
from lateint_kernels.codes.triton import centroids
from lateint_kernels.codes.triton.tile_list import TileList, tile_list
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on

GROUP = 64  # centres of which only the best is kept at first
MAXIMA = 1 << 26  # of groups, at a time


def probe(rows: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.codes.torch.search.probe`."""
    K, device, found = len(centres), centres.device, []
    groups = triton.cdiv(K, GROUP)
    last_group = groups - 1 - torch.arange(groups, device=device)
    with on(device):
        for part in rows.split(max(1, MAXIMA // groups)):
            maxima = torch.empty((len(part), groups), dtype=torch.int32, device=device)
            maxima_launch(part, centres, maxima, architecture(device)).run()
            firsts = _best_places(maxima, last_group, min(count, groups)) * GROUP
            found.append(_best_of_groups(part, centres, firsts, (firsts + GROUP).clamp(max=K), count))
    return _split(torch.cat(found), K)


def probe_cells(index: IndexTensors, rows: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.codes.torch.search.probe_cells`: each cell is read once for all tokens that look into it."""
    K, device, found = len(index.centroids), rows.device, []
    groups = triton.cdiv(index.largest_cell, GROUP)
    step = max(1, MAXIMA // (cells.shape[1] * groups))
    with on(device):
        for part, some in zip(rows.split(step), cells.split(step), strict=True):
            maxima = torch.full((*some.shape, groups), LEAST, dtype=torch.int32, device=device)
            tiles = tile_list(some, len(index.cells), rows_of_tile(some.numel(), len(index.cells)))
            cell_maxima_launch(part, tiles, index, maxima, architecture(device)).run()
            firsts = index.cell_offsets[some][:, :, None] + GROUP * torch.arange(groups, device=device)
            lasts = index.cell_offsets[some + 1][:, :, None].minimum(firsts + GROUP).flatten(1)
            firsts = firsts.flatten(1)
            best = _best_places(maxima.flatten(1), K - 1 - firsts.clamp(max=K - 1), min(count, firsts.shape[1]))
            found.append(_best_of_groups(part, index.centroids, firsts.gather(1, best), lasts.gather(1, best), count))
    return _split(torch.cat(found), K)


def _best_places(maxima: Tensor, order: Tensor, count: int) -> Tensor:
    """``[n, count]`` int64: where the largest are; among equals, where ``order`` is largest."""
    return ((maxima.to(torch.int64) << 24) + order).topk(count, dim=1).indices


def _best_of_groups(rows: Tensor, centres: Tensor, firsts: Tensor, lasts: Tensor, count: int) -> Tensor:
    """Keys ``[n, count]`` of the best centres ``firsts[i, p]:lasts[i, p]``, GROUP of them at most, for all p."""
    K, device = len(centres), centres.device
    products = torch.empty((*firsts.shape, GROUP), dtype=torch.int32, device=device)
    products_launch(rows, centres, firsts, lasts, products).run()
    ids = (firsts[:, :, None] + torch.arange(GROUP, device=device)).clamp(max=K - 1)
    keys = ((products.to(torch.int64) << 24) + (K - 1 - ids)).flatten(1)
    if keys.shape[1] < count:  # of cells that hold fewer
        keys = torch.nn.functional.pad(keys, (0, count - keys.shape[1]), value=LEAST << 24)
    return keys.topk(count, dim=1).values


def _split(keys: Tensor, K: int) -> tuple[Tensor, Tensor]:
    return (keys >> 24).to(torch.int32), K - 1 - (keys & 0xFFFFFF)


def rows_of_tile(pairs: int, cells: int) -> int:
    """So many as there are pairs of a token and a cell on average: what is empty of a tile is multiplied in vain.

    >>> [rows_of_tile(32 * 24 * queries, 1050) for queries in (1, 64, 640)]
    [16, 64, 128]
    """
    return min(128, max(16, int(triton.next_power_of_2(triton.cdiv(pairs, cells)))))


def all_launches(index: IndexTensors, rows: Tensor, count: int, cells: int, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that looks for ``count`` centroids, in all and in cells, with tensors that hold nothing."""
    T, C = len(rows), len(index.cells)

    def empty(*shape: int, of: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=of, device=rows.device)

    yield maxima_launch(rows, index.centroids, empty(T, triton.cdiv(len(index.centroids), GROUP), of=torch.int32), arch)
    tiles = TileList(empty(T * cells), empty(C + 1), empty(C), empty(C), rows_of_tile(T * cells, C))
    maxima = empty(T, cells, triton.cdiv(index.largest_cell, GROUP), of=torch.int32)
    yield cell_maxima_launch(rows, tiles, index, maxima, arch)
    chosen = empty(T, count)
    yield products_launch(rows, index.centroids, chosen, chosen, empty(T, count, GROUP, of=torch.int32))


def maxima_launch(rows: Tensor, centres: Tensor, maxima: Tensor, arch: Architecture) -> Launch:
    """Of `centroids.group_maxima`."""
    T, K = len(rows), len(centres)
    block_m = min(128, max(16, int(triton.next_power_of_2(T))))
    blocks, tiles = triton.cdiv(T, block_m), _tiles(centres, block_m, arch)
    return Launch(
        centroids.group_maxima,
        blocks * triton.cdiv(K, tiles["BLOCK_N"]),
        {
            "queries": rows,
            "centres": centres,
            "maxima": maxima,
            "T": T,
            "K": K,
            "groups": maxima.shape[1],
            "blocks": blocks,
        },
        tiles,
        warps=_warps(tiles),
    )


def cell_maxima_launch(
    rows: Tensor, tiles: TileList, index: IndexTensors, maxima: Tensor, arch: Architecture
) -> Launch:
    """Of `centroids.cell_maxima`."""
    constants = _tiles(index.centroids, tiles.rows, arch)
    return Launch(
        centroids.cell_maxima,
        len(tiles.cells),
        {
            "queries": rows,
            "order": tiles.order,
            "starts": tiles.starts,
            "tile_cells": tiles.cells,
            "tile_firsts": tiles.firsts,
            "offsets": index.cell_offsets,
            "centres": index.centroids,
            "maxima": maxima,
            "cells": len(index.cells),
            "looked_into": maxima.shape[1],
            "groups": maxima.shape[2],
        },
        constants,
        warps=_warps(constants),
    )


def products_launch(rows: Tensor, centres: Tensor, firsts: Tensor, lasts: Tensor, products: Tensor) -> Launch:
    """Of `centroids.group_products`."""
    depth = centres.shape[1]
    return Launch(
        centroids.group_products,
        firsts.numel(),
        {
            "queries": rows,
            "centres": centres,
            "firsts": firsts,
            "lasts": lasts,
            "products": products,
            "members": firsts.shape[1],
        },
        {"DEPTH": depth, "GROUP": GROUP, "BLOCK_K": _components(depth)},
    )


def _tiles(centres: Tensor, block_m: int, arch: Architecture) -> dict[str, int]:
    depth = centres.shape[1]
    sizes = {"BLOCK_M": block_m, "BLOCK_N": 2 * GROUP, "BLOCK_K": _components(depth)}
    return {"DEPTH": depth, "GROUP": GROUP, **sizes, "STAGES": arch.stages}


def _components(depth: int) -> int:
    """Of a tile: a power of two, at least the 32 that a product of bytes needs."""
    return min(128, max(32, int(triton.next_power_of_2(depth))))


def _warps(tiles: dict[str, int]) -> int:
    return 8 if tiles["BLOCK_M"] * tiles["BLOCK_N"] > 8192 else 4
