"""Centroids at build time: nearest ones, sums for k-means, inverted lists. All integers, all exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu

SMALL = 4  # times sqrt(K) cells are small ones: a builder makes about sqrt(K) large ones, or 16 times as many


def has_small_cells(centroids: int, cells: int) -> bool:
    """Whether so many cells of so many centroids are small ones."""
    return bool(cells > SMALL * centroids**0.5)


class Assigner:
    """Finds the nearest of K centroids for many tokens.

    Args:
        centroids: ``[K, depth]`` uint8, grouped by cell.
        cells: ``[C, depth]`` uint8, the centres of the cells.
        cell_offsets: ``[C + 1]`` int64: the centroids of cell c are rows ``cell_offsets[c]:cell_offsets[c + 1]``.
        subcells: the cells divided, by `subdivide` or otherwise; ``cell_offsets`` then says nothing.
        threads: 0 for the default.
    """

    def __init__(
        self,
        centroids: NDArray[np.uint8],
        cells: NDArray[np.uint8],
        cell_offsets: NDArray[np.int64],
        *,
        subcells: Subcells | None = None,
        threads: int = 0,
    ) -> None:
        self._assigner = _cpu.Assigner(centroids, cells, cell_offsets, subcells, threads)

    def nearest(self, tokens: NDArray[np.uint8], *, cells: int = 0, threads: int = 0) -> NDArray[np.uint32]:
        """``argmin_c |tokens[i] - centroid_c|`` for ``tokens [n, depth]``; the lowest id among equals.

        Looks into the ``cells`` nearest cells of each token only; 0: at all centroids. Where there are subcells, it
        looks into the ``cells`` nearest ones of the nearest cell, into one less of the next cell, and so on.
        """
        ids: NDArray[np.uint32] = self._assigner.nearest(tokens, cells, threads)
        return ids


class Subcells(NamedTuple):
    """Cells divided once more.

    Attributes:
        first: ``[C + 1]`` int64: the subcells of cell c are ``first[c]:first[c + 1]``, at most 16.
        centres: ``[S, depth]`` uint8.
        offsets: ``[S + 1]`` int64: the centroids of subcell s are ``members[offsets[s]:offsets[s + 1]]``, at least one.
        members: ``[K]`` uint32, ascending within a subcell.
    """

    first: NDArray[np.int64]
    centres: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    members: NDArray[np.uint32]


def subdivide(centroids: NDArray[np.uint8], cell_offsets: NDArray[np.int64], *, threads: int = 0) -> Subcells:
    """Groups the centroids ``[K, depth]`` of each cell by k-means in integers, from evenly spaced ones of them."""
    return Subcells(*_cpu.subdivide(centroids, cell_offsets, threads))


def cluster_means(
    tokens: NDArray[np.uint8], ids: NDArray[np.uint32], count: int, *, threads: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Means ``[count, depth]`` of the tokens of each id, rounded half up, and how many there are ``[count]``.

    Zeros are the mean of no tokens.
    """
    means, members = _cpu.cluster_means(tokens, ids, count, threads)
    return means, members


def invert(
    centroid_ids: NDArray[np.uint32], offsets: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Inverted lists: for each centroid the distinct documents with a token at it, ascending.

    Args:
        centroid_ids: ``[T]``, one a token.
        offsets: ``[n + 1]``: the tokens of document p are ``offsets[p]:offsets[p + 1]``.
        count: K.

    Returns:
        list_offsets ``[K + 1]`` and list_documents.

    >>> lists = invert(np.array([1, 1, 0, 1], np.uint32), np.array([0, 2, 4]), 2)
    >>> lists[0].tolist(), lists[1].tolist()
    ([0, 1, 3], [1, 0, 1])
    """
    list_offsets, list_documents = _cpu.invert(centroid_ids, offsets, count)
    return list_offsets, list_documents
