"""What an index consists of: every array with its dtype and shape, as docs/format.md lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import INT, Manifest, Segment
from lateint_kernels.codes.residual import depth_of

SHORT_IDS = 1 << 16  # with more centroids than that, their ids have a third byte
PARTS = ("codes", "scales", "centroid_ids", "lists", "documents", "codec")  # what arrays belong to


@dataclass(frozen=True)
class Kind:
    """What an array must be.

    Attributes:
        name: with the folder of its segment, without ``.npy``.
        dtype: as numpy writes it, byte order first.
        shape: -1 stands for any length.
        part: one of `PARTS`.
        end: for offsets, which begin with 0: their last number, or the array whose length it is.
        filled: for offsets: nothing that they bound is empty.
        below: for positions, which ascend: what they are less than.
        permuted: each number from 0 on is there once.
        most: no number is larger, be it positive or negative, and each is finite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    part: str
    end: int | str | None = None
    filled: bool = False
    below: int | None = None
    permuted: bool = False
    most: float | None = None

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('n' if size < 0 else str(size) for size in self.shape)}]"

    def fits(self, dtype: str, shape: Sequence[int]) -> bool:
        """Whether an array of this dtype and shape will do."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                [
                    type(got) is int and want in (got, -1) and got >= 0
                    for want, got in zip(self.shape, shape, strict=True)
                ]
            )
        )

    def wrong(self, array: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> str | None:
        """What is wrong with the numbers of an array among those of an index; None: nothing that is looked at."""
        end = len(arrays[self.end]) if isinstance(self.end, str) else self.end
        if end is not None and (array[0] != 0 or array[-1] != end):
            return f"must run from 0 to {end}, found {array[0]} to {array[-1]}"
        if self.filled and (stuck := np.flatnonzero(array[1:] <= array[:-1])).size:
            return f"must increase at every step, found {array[stuck[0]]} and then {array[stuck[0] + 1]}"
        if self.below is not None and array.size and (array.max() >= self.below or (array[1:] <= array[:-1]).any()):
            return f"must ascend and stay below {self.below}"
        if self.permuted and not np.array_equal(np.sort(array), np.arange(len(array))):
            return f"must hold each number from 0 to {len(array) - 1} once"
        if self.most is not None and not (np.abs(array) <= self.most).all():
            return f"must hold numbers up to {self.most:g}"
        return None


def kinds(manifest: Manifest) -> dict[str, Kind]:
    """Every array that an index with this manifest has, by name."""
    codec = {manifest.codec_array(kind.name): kind for kind in codec_kinds(manifest)}
    of_segments = (kind for segment in manifest.segments for kind in segment_kinds(segment, manifest))
    return codec | {kind.name: kind for kind in of_segments}


def codec_kinds(manifest: Manifest) -> Iterator[Kind]:
    """Every array of the codec, without its folder."""
    dim, width, block, count, cells = (
        manifest.dim, manifest.width, manifest.block, manifest.centroids, manifest.cells
    )  # fmt: skip
    depth = depth_of(width)
    yield Kind("mean", "<f4", (dim,), "codec", most=1e18)
    yield Kind("rotation", "<f4", (width // block, block, block), "codec", most=1.01)  # orthogonal, but for rounding
    yield Kind("permutation", "<i4", (width,), "codec", permuted=True)
    yield Kind("centroids", "|u1", (count, depth), "codec")
    yield Kind("cells", "|u1", (cells, depth), "codec")
    # A search finds something in any cell.
    yield Kind("cell_offsets", "<i8", (cells + 1,), "codec", end=count, filled=True)


def segment_kinds(segment: Segment, manifest: Manifest) -> Iterator[Kind]:
    """Every array of a segment."""
    name, documents, tokens = segment.name, segment.documents, segment.tokens
    yield Kind(f"{name}/offsets", "<i8", (documents + 1,), "documents", end=tokens)
    yield Kind(f"{name}/codes", "|u1", (tokens, manifest.width * manifest.nbits // 8), "codes")
    if manifest.nbits < 8:
        yield Kind(f"{name}/scales", "|u1", (tokens,), "scales")
    yield Kind(f"{name}/centroid_ids", "<u2", (tokens,), "centroid_ids")
    if manifest.centroids > SHORT_IDS:
        yield Kind(f"{name}/centroid_high", "|u1", (tokens,), "centroid_ids")
    lists = manifest.centroids if segment.lists is None else segment.lists
    if segment.lists is not None:
        yield Kind(f"{name}/list_centroids", "<u4", (lists,), "lists", below=manifest.centroids)
    yield Kind(f"{name}/list_offsets", "<i8", (lists + 1,), "lists", end=f"{name}/list_documents")
    yield Kind(f"{name}/list_documents", "<u4", (-1,), "lists")
    if manifest.ids == INT:
        yield Kind(f"{name}/ids", "<i8", (documents,), "documents")
    else:
        yield Kind(f"{name}/id_bytes", "|u1", (-1,), "documents")
        yield Kind(f"{name}/id_offsets", "<i8", (documents + 1,), "documents", end=f"{name}/id_bytes")
    if segment.hashed:
        yield Kind(f"{name}/id_hash", "<u8", (documents,), "documents")
        yield Kind(f"{name}/id_row", "<u4", (documents,), "documents")
    if (deleted := segment.deleted) is not None:
        if deleted.mask:
            yield Kind(deleted.array, "|u1", (-(-documents // 8),), "documents")
        else:
            many = -1 if deleted.documents is None else deleted.documents
            yield Kind(deleted.array, "<u4", (many,), "documents", below=documents)
