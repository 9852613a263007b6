"""Where ids are: a table from 128 bits of each id to its position, for millions of them in little memory."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HALVES = struct.Struct("=QQ")


def halves(id: str) -> tuple[int, int]:
    """A digest of 16 bytes, as two numbers; that two ids share them does not happen."""
    first, second = _HALVES.unpack(blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return first, second


class Ascending(NamedTuple):
    """Digests in the order of their first halves, ``[n]`` uint64 each, and the position of each: 20 bytes an id."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    positions: NDArray[Any]


class Digests:
    """The digests of ids, as they come."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._first, self._second = array("Q"), array("Q")
        for id in ids:
            self.add(id)

    def add(self, id: str) -> None:
        first, second = halves(id)
        self._first.append(first)
        self._second.append(second)

    def ascending(self) -> Ascending:
        """All of them, which are gone from here afterwards; equal first halves in the order in which they came."""
        first = np.frombuffer(self._first, np.uint64)
        small = np.int32 if len(first) < 2**31 else np.int64
        order = np.argsort(first, kind="stable").astype(small)
        # One after the other, for of millions of ids each takes a hundred megabytes.
        first, self._first = first[order], array("Q")
        second = np.frombuffer(self._second, np.uint64)[order]
        self._second = array("Q")
        return Ascending(first, second, order)


def repeats(digests: Ascending) -> NDArray[np.int64]:
    """Positions of ids that came before, ascending.

    >>> repeats(Digests("abacb").ascending()).tolist()
    [2, 4]
    """
    first, second, positions = digests
    suspects = np.flatnonzero(first[1:] == first[:-1])
    seen: set[tuple[int, int]] = set()
    found = []
    for place in sorted({*suspects.tolist(), *(suspects + 1).tolist()}):
        key = int(first[place]), int(second[place])
        if key in seen:
            found.append(int(positions[place]))
        seen.add(key)
    return np.array(sorted(found), np.int64)


class Positions(Mapping[str, int]):
    """The position of each id among ids that are all different.

    Args:
        ids: strings, read again only to go through all of them.
        digests: of these, if they are at hand.
    """

    def __init__(self, ids: Sequence[str], digests: Ascending | None = None) -> None:
        self._ids = ids
        self._digests = Digests(ids).ascending() if digests is None else digests

    def __len__(self) -> int:
        return len(self._digests.first)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def __getitem__(self, id: str) -> int:
        position = self._find(id)
        if position is None:
            raise KeyError(id)
        return position

    def _find(self, id: str) -> int | None:
        first, second = halves(id)
        known = self._digests
        place = int(np.searchsorted(known.first, np.uint64(first)))
        while place < len(known.first) and known.first[place] == first:
            if known.second[place] == second:
                return int(known.positions[place])
            place += 1
        return None
