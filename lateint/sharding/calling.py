"""One request of a user to all shards: what they answer, what is lost, and how long it may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lateint.ids import UnknownIdError
from lateint.retrieval.hits import Hits
from lateint.sharding.asking import Lost, Shard, ask
from lateint.sharding.merging import merge
from lateint.sharding.places import Facts


class LostError(RuntimeError):
    """Shards did not answer; ``lost`` has their names, ``coverage`` the share of all documents that did."""

    def __init__(self, message: str, lost: tuple[str, ...], coverage: float) -> None:
        super().__init__(message)
        self.lost, self.coverage = lost, coverage


class Call:
    """One request of a user: what is left of its time, and which shards it has lost."""

    def __init__(self, shards: Sequence[Shard], facts: Facts, partial: bool, timeout: float) -> None:
        self.shards, self.facts, self.partial = shards, facts, partial
        self.deadline, self.timeout = time.monotonic() + timeout, timeout
        self.lost: dict[int, Lost] = {}

    def ask(self, questions: Mapping[int, Callable[[Any], Any]]) -> dict[int, Any]:
        """The answers of shards, by their numbers.

        Raises:
            LostError: one is lost, unless ``partial``; or all are.
        """
        numbers = [number for number in questions if number not in self.lost]
        asked = [(self.shards[number], questions[number]) for number in numbers]
        found = {}
        for number, result in zip(numbers, ask(asked, self.facts, self.deadline, self.timeout), strict=True):
            if isinstance(result, Lost):
                self.lost[number] = result
            else:
                found[number] = result.value
        if self.lost and (not self.partial or len(self.lost) == len(self.shards)):
            raise self._error("")
        return found

    def owners(self, ids: Sequence[Any], name: str) -> dict[int, list[int]]:
        """For each shard that has some of these ids, which of them.

        Raises:
            UnknownIdError: no shard has one of them, and all answered.
            LostError: no shard has one of them, and not all answered, unless ``partial``.
            ValueError: two shards have one.
        """
        partial, self.partial = self.partial, True  # where all ids are found, no shard is missing
        there = self.ask({number: having(list(ids)) for number in range(len(self.shards))} if ids else {})
        self.partial = partial
        numbers = sorted(there)
        table = np.array([there[number] for number in numbers], bool).reshape(len(numbers), len(ids))
        if (twice := np.flatnonzero(table.sum(0) > 1)).size:
            first, second = (self.shards[numbers[row]].name for row in np.flatnonzero(table[:, twice[0]])[:2])
            raise ValueError(
                f"shards must hold different documents, but {ids[twice[0]]!r} is in {first} and in {second}"
            )
        unknown = np.flatnonzero(~table.any(0))
        if not unknown.size:
            self.lost = {}
        elif not self.lost:
            raise UnknownIdError(f"{name} holds {ids[unknown[0]]!r}, which is no document of these shards")
        elif not partial:
            raise self._error(f"{name} holds {ids[unknown[0]]!r}, which no other shard has; ")
        owned = {number: np.flatnonzero(row).tolist() for number, row in zip(numbers, table, strict=True)}
        return {number: rows for number, rows in owned.items() if rows}

    def merged(self, found: Mapping[int, Hits], k: int) -> Hits:
        """One ranking of what shards found."""
        if not found:
            kind: Any = np.int64 if self.facts.ids == "int64" else object
            found = {0: Hits(np.empty(0, kind), np.empty(0, np.float32))}
        names = [self.shards[number].name for number in found]
        return merge(list(found.values()), names, k, self.coverage, self.lost_names)

    @property
    def coverage(self) -> float:
        """The share of documents in shards that are not lost; one whose size nobody knows counts as the others do."""
        known = [shard.documents for shard in self.shards if shard.documents is not None]
        usual = sum(known) / len(known) if known else 1.0
        sizes = [usual if shard.documents is None else shard.documents for shard in self.shards]
        missing = sum(sizes[number] for number in self.lost)
        return 1.0 - missing / sum(sizes) if sum(sizes) else 1.0

    @property
    def lost_names(self) -> tuple[str, ...]:
        """The names of shards that are lost."""
        return tuple(self.lost[number].name for number in sorted(self.lost))

    def _error(self, before: str) -> LostError:
        told = ", ".join(str(self.lost[number]) for number in sorted(self.lost))
        count = f"{len(self.lost)} of {len(self.shards)} shards did not answer"
        return LostError(f"{before}{count}: {told}", self.lost_names, self.coverage)


def seconds(timeout: Any) -> float:
    """A timeout as users pass it, checked."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be above 0, got {timeout}")
    return float(timeout)


def having(ids: list[Any]) -> Callable[[Any], Any]:
    """The question which of these ids an index has."""
    return lambda index: index.has(ids)
