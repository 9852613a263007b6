"""Which pairs of a token and a cell meet in one program."""

from typing import NamedTuple

import torch
from torch import Tensor


class TileList(NamedTuple):
    """Pairs of tokens and cells, sorted by cell, and cut into tiles of one cell.

    Attributes:
        order: ``[P]`` int64: which pairs, cell after cell.
        starts: ``[cells + 1]`` int64: where those of a cell start.
        cells: ``[tiles]`` int64: the cell of a tile; the number of cells where there is no such tile.
        firsts: ``[tiles]`` int64: its first pair.
        rows: pairs of a tile, at most.
    """

    order: Tensor
    starts: Tensor
    cells: Tensor
    firsts: Tensor
    rows: int


def tile_list(cells: Tensor, count: int, rows: int) -> TileList:
    """Of ``cells [n, m]``, each less than ``count``; as many tiles as there can be, so that nothing waits for a GPU."""
    found, order = cells.flatten().sort()
    number = torch.arange(count + 1, dtype=found.dtype, device=found.device)
    starts = torch.searchsorted(found, number)
    sizes = (starts.diff() + (rows - 1)) // rows
    ends = sizes.cumsum(0)
    tile = torch.arange(len(order) // rows + min(count, len(order)), device=found.device)
    cell = torch.searchsorted(ends, tile, right=True)
    there = cell.clamp(max=count - 1)
    return TileList(order, starts, cell, starts[there] + (tile - (ends - sizes)[there]) * rows, rows)
