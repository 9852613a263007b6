"""Whether the numbers in the arrays of an index can be: docs/format.md says what they must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import INT, Manifest, Segment

LARGEST = 1e18  # components of a mean, for scores are float32
ROWS = 1 << 20  # looked at together

Arrays = Mapping[str, NDArray[Any]]
Wrong = Iterator[tuple[str, str]]  # the name of an array, and what is wrong with it


def wrong(
    manifest: Manifest, arrays: Arrays, small: set[str], *, verify: bool, known: Arrays | None = None
) -> tuple[str, str] | None:
    """The first array whose numbers cannot be, and why; None if there is none.

    Args:
        small: names of arrays that are read whole; of others only ends are looked at.
        verify: read all of them whole.
        known: arrays that were looked at before; segments of which nothing is new are not looked at again.
    """
    whole = set(arrays) if verify else small
    new = (segment for segment in manifest.segments if not known or _is_new(segment, arrays, known))
    segments = (_of_segment(manifest, segment, arrays, whole) for segment in new)
    everywhere = _of_codec_verified(manifest, arrays), _of_ids(manifest, arrays)
    return next(chain(_of_codec(manifest, arrays), *segments, *(everywhere if verify else ())), None)


def _is_new(segment: Segment, arrays: Arrays, known: Arrays) -> bool:
    names = [f"{segment.name}/codes", *([] if segment.deleted is None else [segment.deleted.array])]
    return any(known.get(name) is not arrays[name] for name in names)


def _of_codec(manifest: Manifest, arrays: Arrays) -> Wrong:
    of = {leaf: manifest.codec_array(leaf) for leaf in ("mean", "rotation", "permutation", "cell_offsets")}
    if not (np.abs(arrays[of["mean"]]) <= LARGEST).all():
        yield of["mean"], f"must hold numbers up to {LARGEST:g} in size"
    if not np.isfinite(arrays[of["rotation"]]).all():
        yield of["rotation"], "must be finite"
    if not np.array_equal(np.sort(arrays[of["permutation"]]), np.arange(manifest.width)):
        yield of["permutation"], f"must hold each number from 0 to {manifest.width - 1} once"
    offsets = arrays[of["cell_offsets"]]
    yield from _ends(of["cell_offsets"], offsets, manifest.centroids)
    if (stuck := np.flatnonzero(offsets[1:] <= offsets[:-1])).size:  # a search finds something in any cell
        found = f"{offsets[stuck[0]]} and then {offsets[stuck[0] + 1]}"
        yield of["cell_offsets"], f"must increase at every step, found {found}"


def _of_codec_verified(manifest: Manifest, arrays: Arrays) -> Wrong:
    name = manifest.codec_array("rotation")
    for matrix in arrays[name].astype(np.float64):
        if not np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-3):
            yield name, "must hold orthogonal matrices"


def _of_segment(manifest: Manifest, segment: Segment, arrays: Arrays, whole: set[str]) -> Wrong:
    of = {leaf: f"{segment.name}/{leaf}" for leaf in ("offsets", "list_offsets", "list_documents", "centroid_ids")}
    lists = arrays[of["list_documents"]]
    yield from _rise(of["offsets"], arrays, segment.tokens, whole)
    yield from _rise(of["list_offsets"], arrays, len(lists), whole)
    if segment.lists is not None:
        yield from _ascending(f"{segment.name}/list_centroids", arrays, manifest.centroids)
    if of["list_documents"] in whole and of["list_offsets"] in whole:
        starts = arrays[of["list_offsets"]][1:-1]
        rises = lists[1:] > lists[:-1]
        rises[starts[(starts > 0) & (starts < len(lists))] - 1] = True
        if lists.size and (int(lists.max()) >= segment.documents or not rises.all()):
            yield of["list_documents"], f"must hold documents of each list, ascending and below {segment.documents}"
    if of["centroid_ids"] in whole and _largest_centroid(arrays, segment.name) >= manifest.centroids:
        yield of["centroid_ids"], f"must hold numbers of centroids, below {manifest.centroids}"
    if manifest.ids != INT:
        yield from _of_strings(segment.name, arrays, whole)
    if segment.hashed and {f"{segment.name}/id_hash", f"{segment.name}/id_row"} <= whole:
        yield from _of_table(segment, arrays)
    if segment.deleted is not None and not segment.deleted.mask:
        yield from _ascending(segment.deleted.array, arrays, segment.documents)


def _of_table(segment: Segment, arrays: Arrays) -> Wrong:
    hashes, rows = arrays[f"{segment.name}/id_hash"], arrays[f"{segment.name}/id_row"]
    if (hashes[1:] < hashes[:-1]).any():
        yield f"{segment.name}/id_hash", "must ascend"
    if not np.array_equal(np.sort(rows), np.arange(segment.documents)):
        yield f"{segment.name}/id_row", f"must hold each number from 0 to {segment.documents - 1} once"


def _ascending(name: str, arrays: Arrays, end: int) -> Wrong:
    numbers = arrays[name]
    if numbers.size and (numbers.max() >= end or (numbers[1:] <= numbers[:-1]).any()):
        yield name, f"must ascend and stay below {end}"


def _ends(name: str, offsets: NDArray[np.int64], end: int) -> Wrong:
    if offsets[0] != 0 or offsets[-1] != end:
        yield name, f"must run from 0 to {end}, found {offsets[0]} to {offsets[-1]}"


def _rise(name: str, arrays: Arrays, end: int, whole: set[str]) -> Wrong:
    offsets = arrays[name]
    yield from _ends(name, offsets, end)
    if name in whole and (fall := np.flatnonzero(offsets[1:] < offsets[:-1])).size:
        yield name, f"must not decrease, found {offsets[fall[0]]} and then {offsets[fall[0] + 1]}"


def _largest_centroid(arrays: Arrays, segment: str) -> int:
    low, high = arrays[f"{segment}/centroid_ids"], arrays.get(f"{segment}/centroid_high")
    largest = -1
    for rows in (slice(start, start + ROWS) for start in range(0, len(low), ROWS)):
        ids = low[rows] if high is None else low[rows] + (high[rows].astype(np.uint32) << 16)
        largest = max(largest, int(ids.max()))
    return largest


def _of_strings(segment: str, arrays: Arrays, whole: set[str]) -> Wrong:
    name = f"{segment}/id_bytes"
    text, offsets = arrays[name], arrays[f"{segment}/id_offsets"]
    yield from _rise(f"{segment}/id_offsets", arrays, len(text), whole)
    if {name, f"{segment}/id_offsets"} <= whole:
        try:
            text.tobytes().decode()
            cut = (text[offsets[:-1][offsets[:-1] < len(text)]] & 0xC0 == 0x80).any()  # within a character
        except UnicodeDecodeError:
            cut = True
        if cut:
            yield name, "must hold ids in UTF-8"


def _of_ids(manifest: Manifest, arrays: Arrays) -> Wrong:
    """No two documents have the same id, those deleted aside."""
    seen: set[Any] = set()
    for segment in manifest.segments:
        gone = _deleted(segment, arrays)
        if manifest.ids == INT:
            name = f"{segment.name}/ids"
            ids = arrays[name].tolist()
        else:
            name = f"{segment.name}/id_bytes"
            text, ends = arrays[name].tobytes(), arrays[f"{segment.name}/id_offsets"].tolist()
            ids = [text[first:last] for first, last in pairwise(ends)]
        for position, one in enumerate(ids):
            if position in gone:
                continue
            if one in seen:
                yield name, f"must hold an id once, found {one if isinstance(one, int) else one.decode()!r} again"
            seen.add(one)


def _deleted(segment: Segment, arrays: Arrays) -> set[int]:
    if segment.deleted is None:
        return set()
    array = arrays[segment.deleted.array]
    if segment.deleted.mask:
        array = np.flatnonzero(np.unpackbits(array, count=segment.documents, bitorder="little"))
    return set(array.tolist())
