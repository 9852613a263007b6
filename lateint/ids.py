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
    names = _listed(ids, "ids")
    if len(names) != documents:
        raise ValueError(f"ids must name each document once, got {len(names)} ids for {documents} documents")
    if all(isinstance(name, str) for name in names):
        _refuse_duplicates(names)
        for name in names:
            if any("\ud800" <= letter <= "\udfff" for letter in name):
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


def _listed(ids: Any, name: str) -> list[Any]:
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


def put(store: Store, segment: str, ids: NDArray[np.int64] | list[str]) -> None:
    """Writes the ids of one segment."""
    if isinstance(ids, np.ndarray):
        return put_array(store, f"{segment}/ids", ids)
    encoded = [name.encode() for name in ids]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    put_array(store, f"{segment}/id_bytes", np.frombuffer(b"".join(encoded), np.uint8))
    put_array(store, f"{segment}/id_offsets", offsets)


class Ids:
    """The ids of an index, over its segments in order.

    Args:
        parts: per segment, an int64 array, or the bytes and offsets of utf-8 strings.
        live: ``[n]``, zero where a document was deleted, so that its id names nothing (or a later document); None: all
            are there.
    """

    def __init__(
        self,
        parts: Sequence[NDArray[np.int64] | tuple[NDArray[np.uint8], NDArray[np.int64]]],
        live: NDArray[np.uint8] | None = None,
    ) -> None:
        self._live = live
        self.strings = bool(parts) and isinstance(parts[0], tuple)
        self._parts: Sequence[Any] = parts
        sizes = [len(part[1]) - 1 if isinstance(part, tuple) else len(part) for part in parts]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._first[-1])

    def at(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The ids at ``positions``: int64, or objects of type str."""
        if self.strings:
            names = np.empty(len(positions), object)
            names[:] = [self._one(int(position)) for position in positions]
            return names
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][positions])
        numbers = np.empty(len(positions), np.int64)
        segments = np.searchsorted(self._first, positions, side="right") - 1
        for segment in np.unique(segments):
            here = segments == segment
            numbers[here] = self._parts[segment][positions[here] - self._first[segment]]
        return numbers

    def _one(self, position: int) -> str:
        segment = int(np.searchsorted(self._first, position, side="right")) - 1
        part, local = self._parts[segment], position - int(self._first[segment])
        data, offsets = part
        text: bytes = data[offsets[local] : offsets[local + 1]].tobytes()
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"the id of document {position} is not UTF-8; the index is damaged") from error

    def positions(self, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
        """Where ``ids`` are.

        Raises:
            UnknownIdError: one of them is not in the index; ``name`` is the argument it came in.
        """
        names, kind, places = _listed(ids, name), str if self.strings else int, self._positions
        positions = np.empty(len(names), np.int64)
        for i, document in enumerate(names):
            if not isinstance(document, kind) or isinstance(document, bool) or document not in places:
                raise UnknownIdError(f"{name} holds {document!r}, which is no document of this index")
            positions[i] = places[document]
        return positions

    @cached_property
    def _positions(self) -> Any:
        """Something that maps an id to its position."""
        places = np.arange(len(self)) if self._live is None else np.flatnonzero(self._live)
        numbers = self.at(places)
        if not self.strings and np.array_equal(numbers, np.arange(len(self))):
            return range(len(self))
        positions = dict(zip(numbers.tolist(), places.tolist(), strict=True))
        if len(positions) != len(places):
            raise FormatError("two documents have the same id; the index is damaged")
        return positions


class UnknownIdError(KeyError):
    """An id that no document has."""

    def __str__(self) -> str:
        return str(self.args[0])
