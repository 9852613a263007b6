"""One index of several that have the same codec: their segments, listed one part after another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.changing.copying import link_file
from lateint.disk import layout, store
from lateint.disk.manifest import MANIFEST, Bundle, File, Manifest, Segment
from lateint.ids import hashed
from lateint.indexing.codec import Codec
from lateint.state import State

MOST_DOCUMENTS = (1 << 32) - 1


@dataclass(frozen=True)
class Source:
    """One of the indexes.

    Attributes:
        what: it is, for messages.
        folder: of its files; None: it is in memory.
    """

    what: str
    folder: Path | None
    state: State


def merge(sources: Sequence[Source], target: Path, *, overwrite: bool) -> None:
    """Writes the index of all documents of ``sources``, in their order, to ``target``, whole or not at all.

    Files are linked, or copied where a file system cannot link; nothing is encoded.

    Raises:
        ValueError: there is no source, one has another codec, another analyzer or another kind of ids, an id is in two
            of them, or there are too many documents.
        OSError: as `store.writing`.
    """
    if not sources:
        raise ValueError("parts must hold at least one index, got none")
    _check_alike(sources)
    check_ids(sources, "parts")
    encoder = _encoder(sources)
    first = sources[0].state.manifest
    files: dict[str, File | Bundle] = {}
    segments: list[Segment] = []
    with store.writing(target, overwrite=overwrite) as written:
        codec = [first.codec_array(kind.name) for kind in layout.codec_kinds(first)]
        files |= _taken(sources[0], {name: name for name in codec}, written)
        for source in sources:
            for segment in source.state.manifest.segments:
                renamed = _renamed(segment, f"segments/{len(segments):06d}")
                kinds = zip(
                    layout.segment_kinds(segment, source.state.manifest),
                    layout.segment_kinds(renamed, first),
                    strict=True,
                )
                files |= _taken(source, {old.name: new.name for old, new in kinds}, written)
                segments.append(renamed)
        files |= {f"{name}.npy": column.finish() for name, column in written.columns.items()}
        following = [m.next_id for source in sources if (m := source.state.manifest).next_id is not None]
        manifest = replace(
            first,
            segments=tuple(segments),
            files=dict(sorted(files.items())),
            generation=0,
            next_segment=len(segments),
            next_id=max(following) if following else None,
            encoder=encoder,
            calibration=None,
        )
        (written.folder / MANIFEST).write_text(json.dumps(manifest.to_json()), encoding="utf-8")
        written.committed = True


def _renamed(segment: Segment, name: str) -> Segment:
    deleted = segment.deleted
    if deleted is not None:
        deleted = replace(deleted, array=f"{name}.del-000000")
    return replace(segment, name=name, deleted=deleted)


def _taken(source: Source, names: dict[str, str], written: store.FolderStore) -> dict[str, File | Bundle]:
    """Links the files of arrays under new names, or writes arrays that are in memory; returns what was linked."""
    linked: dict[str, File | Bundle] = {}
    if source.folder is None:
        for old, new in names.items():
            store.put(written, new, source.state.arrays[old])
        return linked
    files = source.state.manifest.files
    for old, new in names.items():
        file, target = f"{old}.npy", f"{new}.npy"
        if file not in files:  # it lies in a file of all arrays of its segment
            file, target = f"{old.rpartition('/')[0]}.seg", f"{new.rpartition('/')[0]}.seg"
        if target not in linked:
            link_file(source.folder / file, written.folder / target)
            linked[target] = files[file]
    return linked


def _check_alike(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        for what, one, other in zip(("dim", "nbits", "centroids"), _sizes(first), _sizes(source), strict=True):
            if one != other:
                raise ValueError(
                    f"parts must have the same codec, but {source.what} has {what} {other} and {first.what} has {one}"
                )
        if _codec_crc32(source) != _codec_crc32(first):
            raise ValueError(
                f"parts must have the same codec, but that of {source.what} has crc32 {_codec_crc32(source):08x} and "
                f"that of {first.what} {_codec_crc32(first):08x}; build parts with codec="
            )
        kinds = source.state.manifest.ids, first.state.manifest.ids
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"parts must have ids of one kind, but those of {source.what} are {kinds[0]} and those of {first.what} "
                f"{kinds[1]}"
            )
        if source.state.manifest.analyzer != first.state.manifest.analyzer:
            raise ValueError(
                f"parts must have the same analyzer of texts, but that of {source.what} is "
                f"{source.state.manifest.analyzer} and that of {first.what} {first.state.manifest.analyzer}"
            )
    if (documents := sum(part.entry.documents for source in sources for part in source.state.parts)) > MOST_DOCUMENTS:
        raise ValueError(f"an index holds up to {MOST_DOCUMENTS:,} documents, got {documents:,} with deleted ones")


def _encoder(sources: Sequence[Source]) -> Mapping[str, Any] | None:
    """That of all parts that know theirs."""
    known = [source for source in sources if source.state.manifest.encoder is not None]
    for source in known[1:]:
        if (one := source.state.manifest.encoder) != (other := known[0].state.manifest.encoder):
            raise ValueError(
                f"parts must have one encoder, but that of {source.what} is {one} and that of {known[0].what} {other}"
            )
    return known[0].state.manifest.encoder if known else None


def _sizes(source: Source) -> tuple[int, int, int]:
    manifest: Manifest = source.state.manifest
    return manifest.dim, manifest.nbits, manifest.centroids


def _codec_crc32(source: Source) -> int:
    manifest = source.state.manifest
    return Codec.of(manifest, source.state.arrays).crc32 if manifest.codec_crc32 is None else manifest.codec_crc32


def check_ids(sources: Sequence[Source], argument: str) -> None:
    """Refuses a document that is in two of them: two of one id have one hash, and those of one hash are looked at.

    Raises:
        ValueError: names the id and both.
    """
    hashes = [np.empty(0, np.uint64)]
    for source in sources:
        live = [None if part.live is None else part.live != 0 for part in source.state.parts]
        for part, there in zip(source.state.parts, live, strict=True):
            found = hashed(part.ids.names)
            hashes.append(found if there is None else found[there])
    ordered = np.sort(np.concatenate(hashes))
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not twice.size:
        return
    owners: dict[object, str] = {}
    for source, name in _named(sources, twice):
        if name in owners:
            raise ValueError(
                f"ids must differ between {argument}, but {name!r} is in {owners[name]} and in {source.what}"
            )
        owners[name] = source.what


def _named(sources: Sequence[Source], hashes: NDArray[np.uint64]) -> Iterator[tuple[Source, object]]:
    """The ids of documents whose hash is one of these."""
    for source in sources:
        for part in source.state.parts:
            rows = np.flatnonzero(np.isin(hashed(part.ids.names), hashes))
            if part.live is not None:
                rows = rows[part.live[rows] != 0]
            yield from ((source, name) for name in part.ids.at(rows).tolist())
