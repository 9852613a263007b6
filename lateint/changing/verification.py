"""Whether an index is what docs/format.md says, read to the last byte.

`lateint.disk.checks` says whether each array can be; here they are compared with one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lateint.disk import store
from lateint.disk.manifest import FormatError, Manifest
from lateint.fields.groups import GROUPS
from lateint.ids import hashed
from lateint.indexing.codec import Codec
from lateint.state import Part, State


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        problems: a sentence for each; empty: all is well.
        documents: how many there are, deleted ones aside.
        tokens: theirs.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    version: int = 0
    generation: int = 0
    segments: int = 0
    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return not self.problems


def verify(path: Path) -> Report:
    """Reads all of an index.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
    """
    try:
        manifest, arrays = store.load(path, verify=True)
        state = State.of(manifest, arrays)
        problems = [problem for part in state.parts for problem in _of_segment(part, manifest.centroids)]
        problems += (
            _of_codec(state) + _of_ids(state) + [problem for part in state.parts for problem in _of_groups(part)]
        )
    except FormatError as error:
        return Report(path, [str(error)])
    return Report(
        path,
        problems,
        manifest.version,
        manifest.generation,
        len(state.parts),
        len(state),
        sum(part.tokens for part in state.parts),
        _size(manifest),
    )


def _of_segment(part: Part, count: int) -> Iterator[str]:
    name, arrays, documents = part.entry.name, part.arrays, part.entry.documents
    # The pairs of centroid and document, as the tokens have them, and as the lists do.
    of_tokens = np.repeat(np.arange(documents), part.lengths)
    pairs = np.unique(part.centroid_ids().astype(np.int64) * documents + of_tokens)
    centroids = np.arange(count) if arrays.list_centroids is None else arrays.list_centroids.astype(np.int64)
    listed = np.repeat(centroids, np.diff(arrays.list_offsets)) * documents + arrays.list_documents
    if not np.array_equal(pairs, listed):
        yield f"{name}/list_documents must hold the documents of each centroid once, ascending"


def check_groups(state: State) -> None:
    """Raises FormatError if something is wrong with texts, metadata and the like."""
    for part in state.parts:
        for problem in _of_groups(part):
            raise FormatError(f"{problem}; the index is damaged")


def _of_groups(part: Part) -> Iterator[str]:
    """What is wrong with texts, metadata and the like."""
    for name, leaves in part.fields.groups.items():
        for problem in GROUPS[name].problems(leaves, part.entry.documents):
            yield f"{part.entry.name}/{problem}"


def _of_codec(state: State) -> list[str]:
    said, manifest = state.manifest.codec_crc32, state.manifest
    if said is None or Codec.of(manifest, state.arrays).crc32 == said:
        return []
    return ["the codec is another one than the manifest says, by its checksum"]


def _of_ids(state: State) -> list[str]:
    for part in state.parts:
        name = part.entry.name
        if part.entry.hashed:
            hashes, rows = state.arrays[f"{name}/id_hash"], state.arrays[f"{name}/id_row"]
            if (hashed(part.ids.names)[rows] != hashes).any():
                return [f"{name}/id_hash and id_row must find every id"]
    return []


def _size(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files.values())
