"""What an index consists of at one time: segments under a manifest, which are deleted, and how ids are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk import layout
from lateint.disk.files import HEADER_BYTES
from lateint.disk.manifest import INT, Deletion, FormatError, Manifest, Segment
from lateint.disk.store import Arrays
from lateint.fields.segment import SegmentFields
from lateint.ids import Ids, SegmentIds
from lateint_kernels.codes.index_arrays import SegmentArrays

ROWS = 1 << 16  # looked at together


@dataclass(frozen=True, eq=False)
class Part:
    """One segment: an immutable run of documents, and which of them are deleted.

    Attributes:
        live: ``[n]``, zero where a document is deleted; None: none is.
        fields: what its documents carry besides tokens.
    """

    entry: Segment
    arrays: SegmentArrays
    ids: SegmentIds
    live: NDArray[np.uint8] | None
    fields: SegmentFields

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """``[n]``: tokens of each document, deleted ones included."""
        return np.diff(self.arrays.offsets)

    @cached_property
    def documents(self) -> int:
        """How many are not deleted."""
        return self.entry.documents if self.live is None else int(np.count_nonzero(self.live))

    @cached_property
    def tokens(self) -> int:
        """Of documents that are not deleted."""
        return self.entry.tokens if self.live is None else int(self.lengths[self.live != 0].sum())

    @property
    def has_vectors(self) -> bool:
        """Whether a document that is not deleted has a sparse vector."""
        documents = self.fields.sparse.posting_documents
        if self.live is None:
            return len(documents) > 0
        some = (documents[first : first + ROWS] for first in range(0, len(documents), ROWS))
        return any(self.live.take(one, mode="clip").any() for one in some)

    def centroid_ids(self, rows: Any = slice(None)) -> NDArray[np.uint32]:
        """Of all tokens, or of some."""
        found: NDArray[np.uint32] = self.arrays.centroid_ids[rows].astype(np.uint32)
        if self.arrays.centroid_high is not None:
            found |= self.arrays.centroid_high[rows].astype(np.uint32) << np.uint32(16)
        return found


def out_of_range(part: Part, count: int) -> str | None:
    """What in a segment leads to places that are not there, with ``count`` centroids; None: nothing does."""
    name, arrays = part.entry.name, part.arrays
    if (np.diff(arrays.offsets) < 0).any():
        return f"{name}/offsets must not decrease"
    if (np.diff(arrays.list_offsets) < 0).any():
        return f"{name}/list_offsets must not decrease"
    if int(part.centroid_ids().max(initial=0)) >= count:
        return f"{name}/centroid_ids must stay below {count}"
    if int(arrays.list_documents.max(initial=0)) >= max(1, part.entry.documents):
        return f"{name}/list_documents must stay below {part.entry.documents}"
    return None


@dataclass(frozen=True, eq=False)
class State:
    """Arrays under a manifest; nothing in it changes."""

    manifest: Manifest
    arrays: Arrays
    parts: Sequence[Part]

    @classmethod
    def of(cls, manifest: Manifest, arrays: Arrays, previous: State | None = None) -> State:
        """Of a manifest and its arrays; what is as it was before is taken from there.

        Raises:
            FormatError: more documents are deleted than the manifest says.
        """
        known: Mapping[str, Part] = {} if previous is None else {part.entry.name: part for part in previous.parts}
        parts = []
        for segment in manifest.segments:
            part = known.get(segment.name)
            if previous is None or part is None or part.arrays.codes is not arrays[f"{segment.name}/codes"]:
                part = _part(segment, manifest, arrays)
            elif segment.deleted is not None and (
                part.entry.deleted != segment.deleted
                or previous.arrays[segment.deleted.array] is not arrays[segment.deleted.array]
            ):
                part = replace(part, entry=segment, live=_live(segment, segment.deleted, arrays))
            parts.append(part if part.entry == segment else replace(part, entry=segment))
        return cls(manifest, arrays, parts)

    def __len__(self) -> int:
        return self._documents

    @cached_property
    def _documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @cached_property
    def tokens(self) -> int:
        """Of documents that are not deleted."""
        return sum(part.tokens for part in self.parts)

    @cached_property
    def ids(self) -> Ids:
        """All ids, found by position and back."""
        live = [part.live for part in self.parts]
        return Ids([part.ids for part in self.parts], self.manifest.ids != INT, live)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """``[segments + 1]``: the position of the first document of each, and how many there are."""
        return np.concatenate([[0], np.cumsum([part.entry.documents for part in self.parts])]).astype(np.int64)

    @cached_property
    def live(self) -> NDArray[np.uint8] | None:
        """``[N]``, zero where a document is deleted; None if none is."""
        if all(part.live is None for part in self.parts):
            return None
        live = np.concatenate(
            [np.ones(part.entry.documents, np.uint8) if part.live is None else part.live for part in self.parts]
        )
        live.flags.writeable = False  # so that a device may keep it
        return live

    def sizes(self) -> dict[str, int]:
        """Bytes of the files by the part of the index that they hold; the manifest is not counted."""
        sizes = dict.fromkeys(layout.PARTS, 0)
        for name, kind in layout.kinds(self.manifest).items():
            sizes[kind.part] += self.arrays[name].nbytes + HEADER_BYTES
        return sizes


def _part(entry: Segment, manifest: Manifest, arrays: Arrays) -> Part:
    name = entry.name
    live = None if entry.deleted is None else _live(entry, entry.deleted, arrays)
    table = (arrays[f"{name}/id_hash"], arrays[f"{name}/id_row"]) if entry.hashed else None
    names = arrays[f"{name}/ids"] if manifest.ids == INT else (arrays[f"{name}/id_bytes"], arrays[f"{name}/id_offsets"])
    groups = {group: {leaf: arrays[f"{name}/{leaf}"] for leaf, *_ in layout.GROUPS[group]} for group in entry.groups}
    return Part(
        entry, _segment_arrays(arrays, name), SegmentIds(names, table), live, SegmentFields(groups, entry.documents)
    )


def _segment_arrays(arrays: Arrays, name: str) -> SegmentArrays:
    return SegmentArrays(
        arrays[f"{name}/offsets"],
        arrays[f"{name}/codes"],
        arrays.get(f"{name}/scales"),
        arrays[f"{name}/centroid_ids"],
        arrays.get(f"{name}/centroid_high"),
        arrays[f"{name}/list_offsets"],
        arrays[f"{name}/list_documents"],
        arrays.get(f"{name}/list_centroids"),
    )


def _live(entry: Segment, deleted: Deletion, arrays: Arrays) -> NDArray[np.uint8]:
    array = arrays[deleted.array]
    if deleted.mask:
        live = 1 - np.unpackbits(array, count=entry.documents, bitorder="little")
    else:
        live = np.ones(entry.documents, np.uint8)
        live[array] = 0
    if deleted.documents is not None and np.count_nonzero(live) != entry.documents - deleted.documents:
        raise FormatError(f"{deleted.array}.npy must name {deleted.documents} documents; the index is damaged")
    return live


def deletion(live: NDArray[np.uint8], name: str) -> tuple[Deletion, NDArray[np.generic]]:
    """How it is stored which documents are deleted, in an array of this name: whatever takes less room."""
    deleted = live == 0
    count = int(np.count_nonzero(deleted))
    if count <= len(live) // 32:
        return Deletion(name, count), np.flatnonzero(deleted).astype(np.uint32)
    return Deletion(name, count, mask=True), np.packbits(deleted, bitorder="little")


def same_codec(one: State, other: State) -> bool:
    """Whether two states of an index have the same codec."""
    names = [state.manifest.codec_array("centroids") for state in (one, other)]
    return one.arrays[names[0]] is other.arrays[names[1]]
