"""Document ids: int64 numbers or strings, stable for the life of an index, found by position and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.disk.store import Store
from lateint.disk.store import put as put_array


def check(ids: Any, documents: int) -> NDArray[np.int64] | list[str]:
    """Makes ids for ``documents`` documents out of what a user passed (None: their positions).

    Raises:
        TypeError: ids are neither all integers nor all strings.
        ValueError: there are not as many ids as documents, an id occurs twice, or one cannot be stored.
    """
    if ids is None:
        return np.arange(documents, dtype=np.int64)
    if isinstance(ids, np.ndarray) and ids.shape == (documents,) and ids.dtype.kind in "iu" and _differ(ids):
        return ids.astype(np.int64)  # as below, but without an object for each
    names = listed(ids, "ids")
    if len(names) != documents:
        raise ValueError(f"ids must name each document once, got {len(names)} ids for {documents} documents")
    if all(isinstance(name, str) for name in names):
        _refuse_duplicates(names)
        for name in names:
            if _encoded(name) is None:
                raise ValueError(f"ids must be text that utf-8 can write, but {name!r} holds half a character")
        return names
    if any(isinstance(name, bool) or not isinstance(name, int) for name in names):
        kinds = sorted({type(name).__name__ for name in names})
        raise TypeError(f"ids must be all int64 or all strings, got {', '.join(kinds)}")
    _refuse_duplicates(names)
    try:
        return np.array(names, np.int64)
    except OverflowError as error:
        raise ValueError("ids must fit into int64") from error


def _differ(numbers: NDArray[Any]) -> bool:
    """Whether all of them differ, and fit into int64."""
    ascending = numbers if (numbers[1:] > numbers[:-1]).all() else np.sort(numbers)
    return bool((ascending[1:] > ascending[:-1]).all()) and int(ascending[-1]) <= np.iinfo(np.int64).max


def listed(ids: Any, name: str) -> list[Any]:
    """Ids as a list of Python objects."""
    items = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise TypeError(f"{name} must be a list of ids, got {type(ids).__name__} {ids!r}")
    return [_plain(one) for one in items]


def _plain(one: Any) -> Any:
    return one.item() if isinstance(one, np.generic) else one


def _refuse_duplicates(names: Sequence[Any]) -> None:
    hashes = np.sort(np.fromiter(map(hash, names), np.int64, len(names)))  # a set takes four times as much memory
    if (hashes[1:] != hashes[:-1]).all():
        return
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"ids must differ, but {name!r} occurs more than once")
        seen.add(name)


def columns(ids: NDArray[np.int64] | list[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a segment that hold its ids and, where these do not ascend, find them."""
    if isinstance(ids, np.ndarray):
        return {"ids": ids} if ascending(ids) else {"ids": ids, **_table(hashed(ids))}
    data, offsets = packed(ids)
    return {"id_bytes": data, "id_offsets": offsets, **_table(hashed((data, offsets)))}


def put(store: Store, segment: str, ids: NDArray[np.int64] | list[str]) -> bool:
    """Writes the ids of one segment; returns whether they have a table of hashes."""
    arrays = columns(ids)
    for name, array in arrays.items():
        put_array(store, f"{segment}/{name}", array)
    return "id_hash" in arrays


def following(ids: NDArray[np.int64] | list[str]) -> int | None:
    """The id of a document that comes later without one: one more than the largest; None where ids are strings."""
    return int(ids.max(initial=-1)) + 1 if isinstance(ids, np.ndarray) else None


def packed(ids: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return _joined([name.encode() for name in ids])


def _joined(encoded: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(list(map(len, encoded)), out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def ascending(ids: NDArray[np.int64]) -> bool:
    """Whether each id is larger than the one before it."""
    return bool((ids[1:] > ids[:-1]).all())


# ``[n]`` int64, or the bytes and offsets of strings
Names = NDArray[np.int64] | tuple[NDArray[np.uint8], NDArray[np.int64]]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_STEP = 1 << 16  # strings hashed at a time
FEW = 64  # ids that are looked up one by one


def hashed(ids: Names) -> NDArray[np.uint64]:
    """``[n]`` uint64: the hash of each id, as docs/format.md has it."""
    if not isinstance(ids, tuple):
        return _mixed(ids.view(np.uint64))
    data, offsets = ids
    parts = [_hashed_strings(data, offsets[first : first + _STEP + 1]) for first in range(0, len(offsets) - 1, _STEP)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _hashed_strings(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """``sum_i (byte_i + 1) factor^i``, mixed."""
    lengths = np.diff(offsets)
    if (lengths < 0).any() or offsets[0] < 0 or offsets[-1] > len(data):
        raise FormatError("where ids begin and end cannot be; the index is damaged")
    longest = int(lengths.max(initial=0))
    powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(longest, _FACTOR)]), dtype=np.uint64)
    begin, end = int(offsets[0]), int(offsets[-1])
    places = np.arange(begin, end) - np.repeat(offsets[:-1], lengths)
    terms = (data[begin:end].astype(np.uint64) + np.uint64(1)) * powers[places]
    sums = np.concatenate([[np.uint64(0)], np.cumsum(terms, dtype=np.uint64)])
    return _mixed(sums[offsets[1:] - begin] - sums[offsets[:-1] - begin])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The last steps of splitmix64, a bijection."""
    mixed: NDArray[np.uint64] = values + _FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    last: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return last


def _table(hashes: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
    order = np.argsort(hashes, kind="stable")
    return {"id_hash": hashes[order], "id_row": order.astype(np.uint32)}


class SegmentIds:
    """The ids of one segment, found by row and back.

    Args:
        names: the ids.
        table: their hashes, ascending, and the row of each; None: they ascend, or the table is made when it is needed.
    """

    def __init__(self, names: Names, table: tuple[NDArray[np.uint64], NDArray[np.uint32]] | None = None) -> None:
        self.names, self.strings = names, isinstance(names, tuple)
        self._given = table

    def __len__(self) -> int:
        return len(self.names[1]) - 1 if isinstance(self.names, tuple) else len(self.names)

    def at(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The ids of rows: int64, or objects of type str."""
        if not isinstance(self.names, tuple):
            return np.asarray(self.names[rows])
        names = np.empty(len(rows), object)
        names[:] = [self._string(row) for row in rows.tolist()]
        return names

    def find(self, keys: Names) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which keys there are and the rows that have them: pairs of numbers. A key may have several rows."""
        if not isinstance(self.names, tuple) and self._table is None:
            assert not isinstance(keys, tuple)
            rows = np.minimum(np.searchsorted(self.names, keys), max(0, len(self.names) - 1))
            found = np.flatnonzero(self.names[rows] == keys) if len(self.names) else np.empty(0, np.int64)
            return found, rows[found]
        hashes, of = hashed(keys), self._table
        assert of is not None
        order = np.argsort(hashes)  # neighbours are looked up one after another
        hashes = hashes[order]
        first, last = np.searchsorted(of[0], hashes), np.searchsorted(of[0], hashes, side="right")
        counts = np.maximum(last - first, 0)  # negative in a table that does not ascend
        which = np.repeat(order, counts)
        entries = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        rows = of[1][entries].astype(np.int64)
        same = rows < len(self)  # a damaged table may say anything
        same[same] = self._same(keys, which[same], rows[same])
        return which[same], rows[same]

    def _same(self, keys: Names, which: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not isinstance(keys, tuple):
            assert not isinstance(self.names, tuple)
            return np.asarray(self.names[rows] == keys[which])
        assert isinstance(self.names, tuple)
        (data, offsets), (other, others) = keys, self.names
        lengths = offsets[which + 1] - offsets[which]
        same = lengths == others[rows + 1] - others[rows]
        which, rows, lengths = which[same], rows[same], lengths[same]
        ends = np.cumsum(lengths)
        place = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)  # within its string
        theirs = np.clip(np.repeat(others[rows], lengths) + place, 0, max(0, len(other) - 1))
        unlike = np.cumsum(np.append(0, data[np.repeat(offsets[which], lengths) + place] != other[theirs]))
        same[same] = unlike[ends] == unlike[ends - lengths]
        return np.asarray(same)

    @cached_property
    def _table(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]] | None:
        if self._given is not None:
            return self._given
        if not isinstance(self.names, tuple) and ascending(self.names):
            return None
        table = _table(hashed(self.names))  # version 1 has none
        return table["id_hash"], table["id_row"]

    def _bytes(self, row: int) -> bytes:
        assert isinstance(self.names, tuple)
        data, offsets = self.names
        return data[offsets[row] : offsets[row + 1]].tobytes()

    def _string(self, row: int) -> str:
        try:
            return self._bytes(row).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"the id of document {row} of a segment is not utf-8; the index is damaged") from error


class Ids:
    """The ids of an index, over its segments in order.

    Args:
        parts: those of each segment.
        strings: whether they are strings.
        live: of each segment ``[n]``, zero where a document is deleted, so that its id names nothing, or a later
            document; None: none is.
    """

    def __init__(self, parts: Sequence[SegmentIds], strings: bool, live: Sequence[NDArray[np.uint8] | None]) -> None:
        self._parts, self.strings, self._live = parts, strings, live
        self._first = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._first[-1])

    def at(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The ids at ``positions``: int64, or objects of type str."""
        if len(self._parts) == 1:
            return self._parts[0].at(positions)
        names = np.empty(len(positions), object if self.strings else np.int64)
        segments = np.searchsorted(self._first, positions, side="right") - 1
        if len(positions) <= FEW:
            for i, (segment, position) in enumerate(zip(segments.tolist(), positions.tolist(), strict=True)):
                row = position - int(self._first[segment])
                names[i] = self._parts[segment].at(np.array([row]))[0]
            return names
        for segment in np.unique(segments):
            here = segments == segment
            names[here] = self._parts[segment].at(positions[here] - self._first[segment])
        return names

    def find(self, keys: Names) -> NDArray[np.int64]:
        """``[n]``: where each of these ids is, -1 where it is not."""
        positions = np.full(len(keys[1]) - 1 if isinstance(keys, tuple) else len(keys), -1, np.int64)
        for first, part, live in zip(self._first[:-1], self._parts, self._live, strict=True):
            which, rows = part.find(keys)
            if live is not None:
                there = live[rows] != 0
                which, rows = which[there], rows[there]
            positions[which] = first + rows
        return positions

    def keys(self, ids: Iterable[Any], name: str) -> tuple[Any, Names, NDArray[np.bool_]]:
        """Ids that a user passed as ``name``: a sequence, the same as `find` takes them, and which can be ids here."""
        if not self.strings and isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu":
            fit = ids <= np.iinfo(np.int64).max
            return ids, ids.astype(np.int64), fit  # as below, but without an object for each
        given = listed(ids, name)
        if self.strings:
            encoded = [_encoded(one) for one in given]
            fit = np.array([one is not None for one in encoded], bool)
            return given, _joined([one or b"" for one in encoded]), fit
        fit = np.array(
            [isinstance(one, int) and not isinstance(one, bool) and -(1 << 63) <= one < 1 << 63 for one in given], bool
        )
        return given, np.array([one if fits else 0 for one, fits in zip(given, fit, strict=True)], np.int64), fit

    def positions(self, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
        """Where ``ids`` are.

        Raises:
            UnknownIdError: one of them is not in the index; ``name`` is the argument it came in.
        """
        given, keys, fit = self.keys(ids, name)
        positions = np.where(fit, self.find(keys), -1)
        if (unknown := np.flatnonzero(positions < 0)).size:
            raise UnknownIdError(f"{name} holds {_plain(given[unknown[0]])!r}, which is no document of this index")
        return positions

    def different(self, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
        """As `positions`.

        Raises:
            ValueError: an id comes twice.
        """
        given = listed(ids, name)
        positions = self.positions(given, name)
        _refuse_duplicates(given)
        return positions


def _encoded(name: Any) -> bytes | None:
    """None for what is no string, or holds half a character."""
    try:
        return name.encode() if isinstance(name, str) else None
    except UnicodeEncodeError:
        return None


class UnknownIdError(KeyError):
    """An id that no document has."""

    def __str__(self) -> str:
        return str(self.args[0])
