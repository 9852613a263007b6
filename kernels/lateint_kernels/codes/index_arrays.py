"""The arrays of an index, as engines take them; docs/format.md says what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CodecArrays:
    """What all segments share; see docs/format.md.

    Attributes:
        mean: ``[dim]`` float32.
        rotation: ``[blocks, block, block]`` float32.
        permutation: ``[width]`` int32.
        centroids: ``[K, depth]`` uint8.
        cells: ``[C, depth]`` uint8.
        cell_offsets: ``[C + 1]`` int64.
        step: what one unit of a byte means.
        nbits: 1, 2, 4 or 8.
    """

    mean: NDArray[np.float32]
    rotation: NDArray[np.float32]
    permutation: NDArray[np.int32]
    centroids: NDArray[np.uint8]
    cells: NDArray[np.uint8]
    cell_offsets: NDArray[np.int64]
    step: float
    nbits: int


class SegmentArrays(NamedTuple):
    """One immutable run of documents: offsets ``[n + 1]``, codes ``[T, bytes]``, scales ``[T]`` (None with 8 bits),
    centroid_ids ``[T]`` uint16, centroid_high ``[T]`` uint8 (None up to 65,536 centroids), and its inverted lists:
    list_offsets ``[K + 1]``, or ``[U + 1]`` where only the centroids list_centroids ``[U]`` uint32 have a list."""

    offsets: NDArray[np.int64]
    codes: NDArray[np.uint8]
    scales: NDArray[np.uint8] | None
    centroid_ids: NDArray[np.uint16]
    centroid_high: NDArray[np.uint8] | None
    list_offsets: NDArray[np.int64]
    list_documents: NDArray[np.uint32]
    list_centroids: NDArray[np.uint32] | None = None

    def dense_list_offsets(self, count: int) -> NDArray[np.int64]:
        """``[count + 1]``: where the list of each centroid begins and ends."""
        if self.list_centroids is None:
            return self.list_offsets
        sizes = np.zeros(count, np.int64)
        sizes[self.list_centroids] = np.diff(self.list_offsets)
        return np.concatenate([[0], np.cumsum(sizes)])
