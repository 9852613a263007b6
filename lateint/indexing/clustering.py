"""k-means in integer arithmetic, two levels deep.

Tokens come as bytes on one common step, so distances are integer dot products: exact, the same on every instruction
set, thread count and device, and fast enough that centroids need no other library. Centroids are grouped into about
sqrt(K) cells (k-means of the centroids themselves); assignment and search look into the cells nearest to a token first,
which turns K products a token into about 4 sqrt(K).

Where cells would be large, each is divided into 16 small ones, which are the cells of the codec. A search looks into
many of these, and reads an eighth of the centroids that it would read in large ones. For assignment 16 of them, one
after the other, are a region: a token looks into the nearest cells of the nearest few regions.

What is random is drawn on the host, so that it is the same wherever the `Operators` compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.codes.building import HostOperators, Operators
from lateint_kernels.codes.centroids import Subcells, cluster_means, has_small_cells, subdivide

CELLS_SEARCHED = 3  # cells that a token looks into for its centroid; docs/design.md has what that misses
DIVIDED = 384  # centroids of a cell, on average, from which cells are divided
DIVIDED_SEARCHED = 4  # CELLS_SEARCHED where they are: 4 subcells of the nearest cell, 3 of the next, then 2 and 1
OF_REGION = 16  # small cells that a large one becomes: as many subcells as it may have


@dataclass(frozen=True)
class Centroids:
    """K centroids grouped by cell: arrays on the host, or tensors of `Operators` on a device, which are int8.

    Attributes:
        rows: ``[K, depth]`` uint8, value = (byte - 128) * step.
        cells: ``[C, depth]`` uint8, the centres of the cells.
        cell_offsets: ``[C + 1]`` int64 on the host; the centroids of cell c are
            ``rows[cell_offsets[c]:cell_offsets[c + 1]]``.
    """

    rows: Any
    cells: Any
    cell_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def small_cells(self) -> bool:
        """Whether the cells are what `train` divided large ones into."""
        return has_small_cells(len(self.rows), len(self.cells))

    def on_host(self, operators: Operators) -> Centroids:
        """As they are stored."""
        return Centroids(operators.host(self.rows), operators.host(self.cells), self.cell_offsets)

    def on_place(self, operators: Operators) -> Centroids:
        """Stored ones where ``operators`` compute."""
        return Centroids(operators.rows(self.rows), operators.rows(self.cells), self.cell_offsets)


def train(
    tokens: Any,
    count: int,
    *,
    iterations: int,
    seed: int,
    cells_searched: int | None = None,
    operators: Operators | None = None,
    report: Callable[[], object] = lambda: None,
) -> Centroids:
    """Lloyd's algorithm on rows ``tokens [S, depth]`` of ``operators`` (None: of the CPU), from random distinct tokens.

    Each iteration assigns every token as `assigner` does, and moves the centroids to the means. Centroids that lose all
    tokens restart at a random token of a large cluster. In the end large cells are divided.
    """
    operators = HostOperators() if operators is None else operators
    rng = np.random.default_rng(seed)
    count = min(count, len(tokens))
    rows = operators.take(tokens, np.sort(rng.choice(len(tokens), count, replace=False)))
    centroids = group(rows, None, rng, operators)
    for _ in range(iterations):
        ids = assigner(centroids, operators, cells_searched)(tokens)
        rows = _means(tokens, ids, count, rng, operators)
        report()
        centroids = group(rows, centroids.cells, rng, operators)
    return divided(centroids, operators) if _large_cells(centroids) else centroids


def assigner(centroids: Centroids, operators: Operators, cells_searched: int | None = None) -> Callable[[Any], Any]:
    """Finds the nearest of these centroids: ids ``[n]`` for rows ``[n, depth]``.

    Args:
        centroids: where ``operators`` compute.
        operators: of the rows.
        cells_searched: look into so many cells of a token, as a whole (0: at all centroids). None: as a build does,
            into 3, or where cells are large, or regions of small ones, into parts of 4.
    """
    cells, parts = centroids.cells, None
    if cells_searched is None:
        cells_searched = CELLS_SEARCHED
        if centroids.small_cells:
            cells_searched = DIVIDED_SEARCHED
            centres, parts = regions(centroids, operators)
            cells = operators.rows(centres)
        elif _large_cells(centroids):
            cells_searched = DIVIDED_SEARCHED
            parts = subdivide(operators.host(centroids.rows), centroids.cell_offsets)
    nearest = operators.assigner(centroids.rows, cells, centroids.cell_offsets, parts)
    return lambda rows: nearest(rows, cells_searched)


def _large_cells(centroids: Centroids) -> bool:
    return not centroids.small_cells and len(centroids) >= DIVIDED * len(centroids.cells)


def divided(centroids: Centroids, operators: Operators) -> Centroids:
    """The same centroids in small cells, 16 for each large one, none of them empty; what has fewer dissolves first."""
    whole = centroids.on_host(operators)
    rows, offsets = _without_tiny(whole.rows, whole.cells, whole.cell_offsets)
    found, parts = subdivide(rows, offsets), list[NDArray[np.uint32]]()
    for cell in itertools.pairwise(found.first):
        its = [found.members[found.offsets[s] : found.offsets[s + 1]] for s in range(*cell)]
        while len(its) < OF_REGION:
            largest = max(range(len(its)), key=lambda s: len(its[s]))
            its[largest : largest + 1] = np.array_split(its[largest], 2)
        parts += its
    sizes = np.array([len(part) for part in parts])
    rows = rows[np.concatenate(parts)]
    cells, _ = cluster_means(rows, np.repeat(np.arange(len(parts), dtype=np.uint32), sizes), len(parts))
    return Centroids(operators.rows(rows), operators.rows(cells), np.concatenate([[0], np.cumsum(sizes)]))


def _without_tiny(
    rows: NDArray[np.uint8], cells: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Centroids of cells with fewer than 16 join the nearest of the other cells: all of them by cell, and offsets."""
    sizes = np.diff(offsets)
    kept = sizes >= OF_REGION
    if kept.all() or not kept.any():
        return rows, offsets
    lost = np.repeat(~kept, sizes)
    owner = np.repeat(np.cumsum(kept) - 1, sizes)
    owner[lost] = _nearest(rows[lost], cells[kept], HostOperators())
    rows, sizes = HostOperators().sort(rows, owner, int(kept.sum()))
    return rows, np.concatenate([[0], np.cumsum(sizes)])


def regions(centroids: Centroids, operators: Operators) -> tuple[NDArray[np.uint8], Subcells]:
    """The large cells that became small ones, on the host: their centres, and their parts."""
    offsets, cells = centroids.cell_offsets, operators.host(centroids.cells)
    first = np.append(np.arange(0, len(cells), OF_REGION), len(cells))
    sizes = np.diff(offsets[first])
    region_of = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)
    centres, _ = cluster_means(operators.host(centroids.rows), region_of, len(sizes))
    return centres, Subcells(first, cells, offsets, np.arange(len(centroids), dtype=np.uint32))


def group(rows: Any, cells: Any, rng: np.random.Generator, operators: Operators, iterations: int = 4) -> Centroids:
    """Sorts centroids ``[K, depth]`` into about sqrt(K) cells, none of them empty, starting from ``cells`` if given."""
    if cells is None:
        n_cells = max(1, round(len(rows) ** 0.5))
        cells = operators.take(rows, np.sort(rng.choice(len(rows), n_cells, replace=False)))
    for _ in range(iterations):
        cells = _means(rows, _nearest(rows, cells, operators), len(cells), rng, operators)
    ids = _nearest(rows, cells, operators)
    rows, members = operators.sort(rows, ids, len(cells))
    filled = np.flatnonzero(members)
    offsets = np.concatenate([[0], np.cumsum(members[filled])]).astype(np.int64)
    return Centroids(rows, operators.take(cells, filled), offsets)


def _nearest(rows: Any, centres: Any, operators: Operators) -> Any:
    whole = np.array([0, len(centres)], np.int64)
    return operators.assigner(centres, centres[:1], whole, None)(rows, 0)


def _means(tokens: Any, ids: Any, count: int, rng: np.random.Generator, operators: Operators) -> Any:
    """A token that is drawn falls into a large cluster with a probability in proportion to the cluster's size."""
    return operators.means(tokens, ids, count, partial(_draw, rng, len(tokens)))


def _draw(rng: np.random.Generator, most: int, size: int) -> NDArray[np.int64]:
    return rng.integers(most, size=size)
