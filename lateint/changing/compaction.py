"""Which segments to join, and the arrays of several as those of one: codes are copied, nothing is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import ids as ids_module
from lateint.disk.manifest import FormatError
from lateint.disk.segment_files import Rows
from lateint.fields import stored
from lateint.fields.groups import GROUPS
from lateint.state import Part, out_of_range
from lateint_kernels.codes.centroids import invert

TIER = 1 << 10  # tokens of a segment of the lowest tier; those of the next have up to FACTOR times as many
FACTOR = 8  # segments of a tier that become one
MOST_DELETED = 0.2  # share of a segment's tokens, beyond which it is written anew
MOST_TOKENS = 1 << 26  # of a segment that compaction writes

Run = tuple[int, int]  # of segments, which are neighbours: compaction keeps the order of documents
Piece = tuple[Part, int, int]  # documents of a segment, which are neighbours


def next_run(parts: Sequence[Part], most: int = MOST_TOKENS) -> Run | None:
    """The next segments to be written as one, of at most so many tokens; None: all is well."""
    for number, part in enumerate(parts):
        if part.tokens <= most and part.entry.tokens - part.tokens > MOST_DELETED * part.entry.tokens:
            return number, number + 1
        if part.documents == 0:
            return number, number + 1
    tiers = [_tier(part.tokens) for part in parts]
    for tier in sorted(set(tiers)):
        for first, last in _runs(np.array(tiers) <= tier):
            while last - first >= FACTOR:
                start = last - FACTOR
                if sum(part.tokens for part in parts[start:last]) <= most:
                    return start, last
                last -= 1
    return None


def full_runs(parts: Sequence[Part]) -> list[Run]:
    """All segments in as few as `MOST_TOKENS` allows, but for those that are as they should be."""
    runs, first, tokens = [], 0, 0
    for number, part in enumerate(parts):
        if number > first and tokens + part.tokens > MOST_TOKENS:
            runs.append((first, number))
            first, tokens = number, 0
        tokens += part.tokens
    runs.append((first, len(parts)))
    return [(a, b) for a, b in runs if b - a > 1 or (b - a == 1 and parts[a].live is not None)]


def _tier(tokens: int) -> int:
    tier = 0
    while tokens > TIER:
        tokens, tier = tokens // FACTOR, tier + 1
    return tier


def _runs(flags: NDArray[np.bool_]) -> list[Run]:
    """Where flags are set, as ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class Joined:
    """Documents of segments as those of one segment.

    Args:
        parts: the segments.
        pieces: runs of their documents, in the order in which they are to be; None: all that are not deleted.
    """

    def __init__(self, parts: Sequence[Part], pieces: Sequence[Piece] | None = None) -> None:
        self.parts = parts
        self.pieces = list(_live(parts)) if pieces is None else pieces
        lengths = [part.lengths[first:last] for part, first, last in self.pieces]
        self.offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))])
        self.tokens = int(self.offsets[-1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def ids(self) -> NDArray[np.int64] | list[str]:
        """Of the documents."""
        rows = [part.ids.at(np.arange(first, last)) for part, first, last in self.pieces]
        if self.parts[0].ids.strings:
            return [name for names in rows for name in names.tolist()]
        return np.concatenate([np.empty(0, np.int64), *rows])

    def centroid_ids(self) -> NDArray[np.uint32]:
        """``[T]``: of each token."""
        pieces = [part.centroid_ids(slice(first, last)) for part, first, last in self._tokens()]
        return np.concatenate([np.empty(0, np.uint32), *pieces])

    def rows(self) -> dict[str, Rows]:
        """The arrays with a row for each token, which are copied, a piece at a time."""
        names = ["codes", "scales", "centroid_ids", "centroid_high"]
        return {name: self._copied(name) for name in names if getattr(self.parts[0].arrays, name) is not None}

    def groups(self) -> dict[str, list[stored.Piece]]:
        """What the documents carry, for each group."""
        return of_groups(self.pieces)

    def _copied(self, name: str) -> Rows:
        array = getattr(self.parts[0].arrays, name)

        def parts() -> Iterator[NDArray[Any]]:
            return (getattr(part.arrays, name)[first:last] for part, first, last in self._tokens())

        return Rows(array.dtype, (self.tokens, *array.shape[1:]), parts)

    def _tokens(self) -> Iterator[tuple[Part, int, int]]:
        for part, first, last in self.pieces:
            yield part, int(part.arrays.offsets[first]), int(part.arrays.offsets[last])


def _live(parts: Sequence[Part]) -> Iterator[Piece]:
    for part in parts:
        runs = [(0, part.entry.documents)] if part.live is None else _runs(part.live != 0)
        yield from ((part, first, last) for first, last in runs)


def of_groups(pieces: Sequence[Piece]) -> dict[str, list[stored.Piece]]:
    """What the documents of pieces carry, for each group."""
    each = [part.fields.pieces(first, last) for part, first, last in pieces]
    return {name: [one[name] for one in each] for name in GROUPS}


def runs_of(parts: Sequence[Part], numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Piece]:
    """Documents by their segments and rows there, in any order, neighbours as one run."""
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(rows) != 1)) + 1
    firsts, lasts = np.append(0, breaks), np.append(breaks, len(rows))
    return [
        (parts[int(numbers[first])], int(rows[first]), int(rows[first]) + int(last - first))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def segment_rows(
    offsets: NDArray[np.int64],
    lists: tuple[NDArray[np.int64], NDArray[np.uint32]],
    ids: NDArray[np.int64] | list[str],
    tokens: dict[str, Rows],
) -> tuple[dict[str, Rows], int | None, bool]:
    """All arrays of a segment, how many lists it has if it leaves out empty ones, and whether ids have a table."""
    list_offsets, list_documents = lists
    arrays: dict[str, NDArray[Any]] = {"offsets": offsets}
    filled = np.flatnonzero(np.diff(list_offsets))
    sparse = len(filled) < (len(list_offsets) - 1) / 4
    if sparse:
        arrays["list_centroids"] = filled.astype(np.uint32)
        list_offsets = np.append(list_offsets[filled], list_offsets[-1:])
    arrays |= {"list_offsets": list_offsets, "list_documents": list_documents}
    names = ids_module.columns(ids)
    rows = {name: Rows.of(array) for name, array in (arrays | names).items()}
    return tokens | rows, len(filled) if sparse else None, "id_hash" in names


def join(
    parts: Sequence[Part], count: int, pieces: Sequence[Piece] | None = None
) -> tuple[Joined, dict[str, Rows], int | None, bool]:
    """Segments as one, or some of their documents, with ``count`` centroids; see `Joined` and `segment_rows`.

    Raises:
        FormatError: a segment leads to places that are not there.
    """
    for part in parts:
        if wrong := out_of_range(part, count):
            raise FormatError(f"{wrong}; the index is damaged")
    joined = Joined(parts, pieces)
    lists = invert(joined.centroid_ids(), joined.offsets, count)
    return joined, *segment_rows(joined.offsets, lists, joined.ids(), joined.rows())


def residual_norm(parts: Sequence[Part]) -> float | None:
    """Of the tokens of several segments, if it is known of all of them."""
    known = [(part.tokens, part.entry.residual_norm) for part in parts]
    total = sum(tokens for tokens, _ in known)
    if not total or any(norm is None for _, norm in known):
        return None
    return sum(tokens * norm for tokens, norm in known if norm is not None) / total
