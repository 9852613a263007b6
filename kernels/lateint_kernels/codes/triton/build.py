"""The stages of a build that Triton does: what `lateint_kernels.codes.torch.build` has, with the same results."""

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from lateint_kernels.codes.index_tensors import CentreTensors
from lateint_kernels.codes.torch import build
from lateint_kernels.codes.triton import encode as coding
from lateint_kernels.codes.triton import nearest
from lateint_kernels.codes.triton.search import rotate
from lateint_kernels.codes.triton.tile_list import TileList, tile_list
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on, why_not

__all__ = ["all_launches", "all_of_cells", "best", "best_of_cells", "encode", "rotate", "why_not"]

MOST = 4  # centres that a program keeps for each token
BLOCK_M = 128  # tokens of a program
ENCODED_ROWS = 32  # likewise, where they are encoded


def best(rows: Tensor, centres: CentreTensors, count: int) -> Tensor:
    """The ``count`` nearest of ``centres`` to rows ``[n, depth]``: keys ``[n, count]`` int64, best first."""
    if count > MOST:
        return build.best(rows, centres, count)
    keys = torch.empty((len(rows), count), dtype=torch.int64, device=rows.device)
    with on(rows.device):
        nearest_launch(rows, centres, keys, architecture(rows.device)).run()
    return keys


def best_of_cells(rows: Tensor, cells: Tensor, centres: CentreTensors, offsets: Tensor) -> Tensor:
    """The nearest centre among those of each of ``cells [n, m]``: keys ``[n, m]``."""
    keys = torch.empty(cells.shape, dtype=torch.int64, device=rows.device)
    tiles = tile_list(cells, len(offsets) - 1, BLOCK_M)
    with on(rows.device):
        in_cell_launch(rows, tiles, centres, offsets, keys, architecture(rows.device)).run()
    return keys


def all_of_cells(rows: Tensor, cells: Tensor, centres: CentreTensors, offsets: Tensor) -> Tensor:
    """Every centre of each of ``cells [n, m]``, which have ``build.WIDEST`` at most: keys ``[n, m, build.WIDEST]``."""
    keys = torch.empty((*cells.shape, build.WIDEST), dtype=torch.int64, device=rows.device)
    tiles = tile_list(cells, len(offsets) - 1, BLOCK_M)
    with on(rows.device):
        all_in_cell_launch(rows, tiles, centres, offsets, keys, architecture(rows.device)).run()
    return keys


def encode(scaled: Tensor, ids: Tensor, centroids: Tensor, nbits: int) -> tuple[Tensor, Tensor]:
    """Codes ``[n, width * nbits / 8]`` and scales ``[n]``, uint8, of tokens ``[n, width]`` with centroids ``ids``."""
    if nbits == 8:
        return build.encode(scaled, ids, centroids, nbits)
    n, width = scaled.shape
    codes = torch.empty((n, width * nbits // 8), dtype=torch.uint8, device=scaled.device)
    scales = torch.empty(n, dtype=torch.uint8, device=scaled.device)
    with on(scaled.device):
        encode_launch(scaled, ids, centroids, codes, scales, nbits).run()
    return codes, scales


def all_launches(rows: Tensor, centres: CentreTensors, cells: CentreTensors, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that a build needs, with tensors that hold nothing."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device=rows.device)

    for table, count in ((cells, 1), (cells, 3)):
        yield nearest_launch(rows, table, empty(len(rows), count), arch)
    tiles = TileList(empty(3 * len(rows)), empty(len(cells.rows) + 1), empty(1 << 15), empty(1 << 15), BLOCK_M)
    offsets = empty(len(cells.rows) + 1)
    yield in_cell_launch(rows, tiles, centres, offsets, empty(len(rows), 3), arch)
    yield all_in_cell_launch(rows, tiles, centres, offsets, empty(len(rows), 3, build.WIDEST), arch)
    n, width = rows.shape
    scaled = torch.empty((n, width), device=rows.device)
    ids = torch.empty(n, dtype=torch.int32, device=rows.device)
    for nbits in (1, 2, 4):
        codes = torch.empty((n, width * nbits // 8), dtype=torch.uint8, device=rows.device)
        yield encode_launch(scaled, ids, centres.rows, codes, codes[:, 0], nbits)


def encode_launch(scaled: Tensor, ids: Tensor, centroids: Tensor, codes: Tensor, scales: Tensor, nbits: int) -> Launch:
    """Of `encode.encode`."""
    n, width = scaled.shape
    return Launch(
        coding.encode,
        triton.cdiv(n, ENCODED_ROWS),
        {"scaled": scaled, "ids": ids, "centroids": centroids, "codes": codes, "scales": scales, "T": n},
        {
            "NBITS": nbits,
            "WIDTH": width,
            "DEPTH": centroids.shape[1],
            "START": build.START[nbits],
            "ROWS": ENCODED_ROWS,
            "COLUMNS": min(32, int(triton.next_power_of_2(width * nbits // 8))),
        },
        fused=False,
    )


def nearest_launch(rows: Tensor, centres: CentreTensors, keys: Tensor, arch: Architecture) -> Launch:
    """Of `nearest.nearest`."""
    return Launch(
        nearest.nearest,
        triton.cdiv(len(rows), BLOCK_M),
        {
            "tokens": rows,
            "centres": centres.rows,
            "half_squares": centres.half_squares,
            "keys": keys,
            "T": len(rows),
            "C": len(centres.rows),
        },
        {"COUNT": keys.shape[1], **_tiles(rows.shape[1], keys.shape[1], arch)},
        warps=8,
    )


def in_cell_launch(
    rows: Tensor, tiles: TileList, centres: CentreTensors, offsets: Tensor, keys: Tensor, arch: Architecture
) -> Launch:
    """Of `nearest.nearest_in_cell`."""
    arguments = _of_cells(rows, tiles, centres, offsets, keys)
    constants = {"SEARCHED": keys.shape[1], **_tiles(rows.shape[1], 1, arch)}
    return Launch(nearest.nearest_in_cell, len(tiles.cells), arguments, constants, warps=8)


def all_in_cell_launch(
    rows: Tensor, tiles: TileList, centres: CentreTensors, offsets: Tensor, keys: Tensor, arch: Architecture
) -> Launch:
    """Of `nearest.all_in_cell`."""
    arguments = _of_cells(rows, tiles, centres, offsets, keys)
    sizes = {**_tiles(rows.shape[1], 1, arch), "BLOCK_N": keys.shape[2]}
    del sizes["STAGES"]
    return Launch(nearest.all_in_cell, len(tiles.cells), arguments, {"SEARCHED": keys.shape[1], **sizes}, warps=8)


def _of_cells(
    rows: Tensor, tiles: TileList, centres: CentreTensors, offsets: Tensor, keys: Tensor
) -> dict[str, Tensor | int]:
    """What kernels that compare tokens with the centres of their cells are given."""
    return {
        "tokens": rows,
        "order": tiles.order,
        "starts": tiles.starts,
        "tile_cells": tiles.cells,
        "tile_firsts": tiles.firsts,
        "offsets": offsets,
        "centres": centres.rows,
        "half_squares": centres.half_squares,
        "keys": keys,
        "C": len(centres.rows),
        "cells": len(offsets) - 1,
    }


def _tiles(depth: int, count: int, arch: Architecture) -> dict[str, int]:
    """A product and its column have to fit into 32 bits; tokens of up to 256 components stay where they are.

    >>> from lateint_kernels.gpu.launch import INTERPRETER
    >>> [_tiles(depth, 1, INTERPRETER)["BLOCK_N"] for depth in (64, 128, 640, 704, 1344, 2048, 4096)]
    [128, 128, 128, 64, 64, 32, 16]
    """
    sizes = (128, 64, 32, 16) if count == 1 else (64, 32, 16)  # finding more than one takes more registers
    block_n = next(size for size in sizes if size * depth * 24576 < 1 << 31)
    block_k = depth if depth in (64, 128, 256) else 128 if depth % 128 == 0 else 64
    return {"DEPTH": depth, "BLOCK_M": BLOCK_M, "BLOCK_N": block_n, "BLOCK_K": block_k, "STAGES": arch.stages}
