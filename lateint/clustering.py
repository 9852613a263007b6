"""k-means in integer arithmetic, two levels deep.

Tokens come as unsigned bytes on one common step, so distances are integer dot products: exact, the same on every
instruction set and thread count, and fast enough that centroids need no other library. Centroids are grouped into
about sqrt(K) cells (k-means of the centroids themselves); assignment and search look into the cells nearest to a
token first, which turns K products a token into about 4 sqrt(K).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.centroids import Assigner, cluster_sums

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Centroids:
    """K centroids grouped by cell.

    Attributes:
        rows: ``[K, depth]`` uint8, value = (byte - 128) * step.
        cells: ``[C, depth]`` uint8, the centres of the cells.
        cell_offsets: ``[C + 1]`` int64; the centroids of cell c are ``rows[cell_offsets[c]:cell_offsets[c + 1]]``.
    """

    rows: Bytes
    cells: Bytes
    cell_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def train(
    tokens: Bytes,
    count: int,
    *,
    iterations: int,
    seed: int,
    cells_searched: int,
    threads: int,
    report: Callable[[], object] = lambda: None,
) -> Centroids:
    """Lloyd's algorithm on ``tokens [S, depth]`` uint8, from random distinct tokens.

    Each iteration assigns every token through its ``cells_searched`` nearest cells (0: all centroids) and moves the
    centroids to the means. Centroids that lose all tokens restart at a random token of a large cluster.
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(tokens))
    rows = tokens[np.sort(rng.choice(len(tokens), count, replace=False))]
    centroids = group(rows, None, rng, threads)
    for _ in range(iterations):
        ids = assigner(centroids, threads).nearest(tokens, cells=cells_searched, threads=threads)
        rows = _means(tokens, ids, centroids.rows, rng, threads)
        report()
        centroids = group(rows, centroids.cells, rng, threads)
    return centroids


def assigner(centroids: Centroids, threads: int) -> Assigner:
    """Finds the nearest of these centroids."""
    return Assigner(centroids.rows, centroids.cells, centroids.cell_offsets, threads=threads)


def group(rows: Bytes, cells: Bytes | None, rng: np.random.Generator, threads: int, iterations: int = 4) -> Centroids:
    """Sorts centroids ``[K, depth]`` into about sqrt(K) cells, none of them empty, starting from ``cells`` if given."""
    if cells is None:
        n_cells = max(1, round(len(rows) ** 0.5))
        cells = rows[np.sort(rng.choice(len(rows), n_cells, replace=False))]
    for _ in range(iterations):
        cells = _means(rows, _nearest(rows, cells, threads), cells, rng, threads)
    ids = _nearest(rows, cells, threads)
    members = np.bincount(ids, minlength=len(cells))
    offsets = np.concatenate([[0], np.cumsum(members[members > 0])]).astype(np.int64)
    return Centroids(np.ascontiguousarray(rows[np.argsort(ids, kind="stable")]), cells[members > 0], offsets)


def _nearest(rows: Bytes, centres: Bytes, threads: int) -> NDArray[np.uint32]:
    whole = np.array([0, len(centres)], np.int64)
    return Assigner(centres, centres[:1], whole, threads=threads).nearest(rows, threads=threads)


def _means(tokens: Bytes, ids: NDArray[np.uint32], rows: Bytes, rng: np.random.Generator, threads: int) -> Bytes:
    sums, members = cluster_sums(tokens, ids, len(rows), threads=threads)
    counts = np.maximum(members, 1)[:, None]
    means: Bytes = ((2 * sums.astype(np.int64) + counts) // (2 * counts)).astype(np.uint8)
    empty = np.flatnonzero(members == 0)
    if empty.size:
        # A token falls into a large cluster with a probability in proportion to the cluster's size.
        means[empty] = tokens[rng.integers(len(tokens), size=empty.size)]
    return means
