"""One state of an index, which does not change: what a search holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk import layout
from lateint.disk.files import HEADER_BYTES
from lateint.disk.manifest import INT, Manifest
from lateint.disk.store import Arrays
from lateint.ids import Ids
from lateint.indexing.clustering import Centroids
from lateint.indexing.codec import Codec, Rotation
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint_kernels.codes.engines import engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.devices import HOST, Place


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Arrays under a manifest, and the engine that searches them.

    Attributes:
        segments: the arrays of each.
        firsts: ``[segments + 1]``, the position of the first document of each, and how many there are.
        everything: the documents that are not deleted.
        place: where the engine is.
    """

    manifest: Manifest
    arrays: Arrays
    codec: Codec
    segments: list[SegmentArrays]
    firsts: NDArray[np.int64]
    everything: Selection
    ids: Ids
    engine: AnyEngine
    place: Place

    @classmethod
    def of(cls, manifest: Manifest, arrays: Arrays, place: Place = HOST) -> Snapshot:
        """Raises what `lateint_kernels.codes.engines.engine` raises."""
        codec = Codec(
            Rotation(arrays["mean"], arrays["rotation"], arrays["permutation"], manifest.step),
            Centroids(arrays["centroids"], arrays["cells"], arrays["cell_offsets"]),
            manifest.nbits,
        )
        segments = [_segment(arrays, segment.name) for segment in manifest.segments]
        firsts = np.concatenate([[0], np.cumsum([segment.documents for segment in manifest.segments])]).astype(np.int64)
        live = _live(manifest, arrays, firsts)
        return cls(
            manifest,
            arrays,
            codec,
            segments,
            firsts,
            Selection([segment.offsets for segment in segments], live),
            Ids([_ids(arrays, segment.name, manifest.ids) for segment in manifest.segments], live),
            engine(_codec_arrays(codec), segments, place),
            place,
        )

    def __len__(self) -> int:
        return len(self.ids) if self.everything.live is None else int(self.everything.live.sum())

    @cached_property
    def tokens(self) -> int:
        """Of all documents, deleted ones included."""
        return sum(segment.tokens for segment in self.manifest.segments)

    @property
    def live(self) -> NDArray[np.int64]:
        """Positions of the documents that are not deleted."""
        live = self.everything.live
        return np.arange(len(self.ids)) if live is None else np.flatnonzero(live)

    def subset(self, ids: Iterable[Any]) -> Selection:
        """The documents of these ids.

        Raises:
            UnknownIdError: one of them is not there.
        """
        positions = np.unique(self.ids.positions(ids, "subset"))
        return Selection(self.everything.offsets, self.everything.live, positions)

    def decoded(self, id: Any) -> NDArray[np.uint8]:
        """The tokens of a document as bytes ``[Ld, width]``.

        Raises:
            UnknownIdError: there is none.
        """
        position = int(self.ids.positions([id], "id")[0])
        number = int(np.searchsorted(self.firsts, position, side="right")) - 1
        local = position - int(self.firsts[number])
        first, last = (int(offset) for offset in self.segments[number].offsets[local : local + 2])
        return self.engine.decode(number, first, last - first)

    def sizes(self) -> dict[str, int]:
        """Bytes of the files by the part of the index that they hold; the manifest is not counted."""
        sizes = dict.fromkeys(layout.PARTS, 0)
        for name, kind in layout.kinds(self.manifest).items():
            sizes[kind.part] += self.arrays[name].nbytes + HEADER_BYTES
        return sizes


def _live(manifest: Manifest, arrays: Arrays, firsts: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """``[n]``, zero where a document is deleted; None if none is."""
    if all(segment.deleted is None for segment in manifest.segments):
        return None
    live = np.ones(int(firsts[-1]), np.uint8)
    for first, segment in zip(firsts[:-1], manifest.segments, strict=True):
        if segment.deleted is not None:
            live[first + arrays[f"{segment.name}/{segment.deleted}"].astype(np.int64)] = 0
    return live


def _segment(arrays: Arrays, name: str) -> SegmentArrays:
    return SegmentArrays(
        arrays[f"{name}/offsets"],
        arrays[f"{name}/codes"],
        arrays.get(f"{name}/scales"),
        arrays[f"{name}/centroid_ids"],
        arrays.get(f"{name}/centroid_high"),
        arrays[f"{name}/list_offsets"],
        arrays[f"{name}/list_documents"],
    )


def _ids(arrays: Arrays, name: str, kind: str) -> Any:
    if kind == INT:
        return arrays[f"{name}/ids"]
    return arrays[f"{name}/id_bytes"], arrays[f"{name}/id_offsets"]


def _codec_arrays(codec: Codec) -> CodecArrays:
    rotation, centroids = codec.rotation, codec.centroids
    return CodecArrays(
        rotation.mean,
        rotation.blocks,
        rotation.permutation,
        centroids.rows,
        centroids.cells,
        centroids.cell_offsets,
        rotation.step,
        codec.nbits,
    )
