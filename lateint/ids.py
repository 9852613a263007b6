"""Document ids: int64 numbers or strings, stable for the life of an index, found by position and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lateint import storage

INT, STRING = "int64", "string"


def check(ids: Any, documents: int) -> NDArray[np.int64] | list[str]:
    """Makes ids for ``documents`` documents out of what a user passed (None: their positions).

    Raises:
        TypeError: ids are neither all integers nor all strings.
        ValueError: there are not as many ids as documents, or an id occurs twice.
    """
    if ids is None:
        return np.arange(documents, dtype=np.int64)
    given = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    if len(given) != documents:
        raise ValueError(f"ids must name each document once, got {len(given)} ids for {documents} documents")
    if all(isinstance(name, str) for name in given):
        _refuse_duplicates(given)
        return given
    if any(isinstance(name, bool) or not isinstance(name, int) for name in given):
        kinds = sorted({type(name).__name__ for name in given})
        raise TypeError(f"ids must be all int64 or all strings, got {', '.join(kinds)}")
    _refuse_duplicates(given)
    try:
        return np.array(given, np.int64)
    except OverflowError as error:
        raise ValueError("ids must fit into int64") from error


def _refuse_duplicates(given: Sequence[Any]) -> None:
    if len(set(given)) == len(given):
        return
    seen: set[Any] = set()
    for name in given:
        if name in seen:
            raise ValueError(f"ids must differ, but {name!r} occurs more than once")
        seen.add(name)


def put(store: storage.Store, segment: str, ids: NDArray[np.int64] | list[str]) -> None:
    """Writes the ids of one segment."""
    if isinstance(ids, np.ndarray):
        return storage.put(store, f"{segment}/ids", ids)
    encoded = [name.encode() for name in ids]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    storage.put(store, f"{segment}/id_bytes", np.frombuffer(b"".join(encoded), np.uint8))
    storage.put(store, f"{segment}/id_offsets", offsets)


Part: TypeAlias = "NDArray[np.int64] | tuple[NDArray[np.uint8], NDArray[np.int64]]"


class Ids:
    """The ids of an index, over its segments in order.

    Args:
        parts: per segment, an int64 array, or the bytes and offsets of utf-8 strings.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.strings = bool(parts) and isinstance(parts[0], tuple)
        self._parts = parts
        sizes = [len(part[1]) - 1 if isinstance(part, tuple) else len(part) for part in parts]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._first[-1])

    def at(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The ids at ``positions``: int64, or objects of type str."""
        names = np.empty(len(positions), object if self.strings else np.int64)
        if len(self._parts) == 1:
            names[:] = _names(self._parts[0], positions)
            return names
        segments = np.searchsorted(self._first, positions, side="right") - 1
        for segment in np.unique(segments).tolist():
            here = segments == segment
            names[here] = _names(self._parts[segment], positions[here] - self._first[segment])
        return names

    def positions(self, ids: Iterable[Any], name: str) -> NDArray[np.int64]:
        """Where ``ids`` are.

        Raises:
            KeyError: one of them is not in the index; ``name`` is the argument it came in.
        """
        given = [name.item() if isinstance(name, np.generic) else name for name in ids]
        found = self._positions
        try:
            return np.array([found[document] for document in given], np.int64)
        except (KeyError, IndexError, TypeError):
            unknown = next(document for document in given if not _contains(found, document))
            raise UnknownIdError(f"{name} holds {unknown!r}, which is no document of this index") from None

    @cached_property
    def _positions(self) -> Any:
        """Something that maps an id to its position."""
        if not self.strings:
            numbers = np.concatenate([np.asarray(part) for part in self._parts]) if self._parts else np.zeros(0)
            if np.array_equal(numbers, np.arange(len(numbers))):
                return _Identity(len(numbers))
            return {int(number): position for position, number in enumerate(numbers)}
        return {name: position for position, name in enumerate(self.at(np.arange(len(self))).tolist())}


def _names(part: Part, local: NDArray[np.int64]) -> Any:
    """The ids at positions within one segment."""
    if not isinstance(part, tuple):
        return part[local]
    data, offsets = part
    return [
        data[first:last].tobytes().decode()
        for first, last in zip(offsets[local].tolist(), offsets[local + 1].tolist(), strict=True)
    ]


class UnknownIdError(KeyError):
    """An id that no document has."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Identity:
    """Ids that are positions need no table."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, number: Any) -> int:
        if number not in self:
            raise KeyError(number)
        return int(number)

    def __contains__(self, number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < self.size


def _contains(found: Any, document: Any) -> bool:
    try:
        return document in found
    except TypeError:
        return False
