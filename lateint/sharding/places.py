"""Where a shard can be asked: a folder, an index of a server, or anything with the methods of an index."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lateint.client import RemoteIndex
from lateint.index import Index

THREADS = 32  # questions that one place answers at a time; more wait
NEWEST = 0.5  # weight of the last answer in the moving average of how long one takes


@runtime_checkable
class Searchable(Protocol):
    """What an object must have to be a shard; the methods are those of `lateint.Index`."""

    def search(self, Q: Any, k: int = 5, **settings: Any) -> Any:
        """The k best documents."""

    def stats(self) -> dict[str, Any]:
        """At least ``codec``, ``dim``, ``ids`` and ``documents``, see `lateint.Index.stats`."""


@dataclass(frozen=True)
class Facts:
    """What all shards must agree about, and how many documents this one has."""

    codec: int
    dim: int
    ids: str
    documents: int

    @classmethod
    def of(cls, index: Any) -> Facts:
        """Those of an index that answers."""
        said = index.stats()
        return cls(said["codec"], said["dim"], said["ids"], said["documents"])


class MismatchError(RuntimeError):
    """A place has documents that cannot be compared with those of the other shards."""


@dataclass(frozen=True)
class Outcome:
    """What became of a question: its answer, or the error, and how many seconds that took."""

    place: Place
    value: Any = None
    error: Exception | None = None
    seconds: float = 0.0


class Place:
    """One place, with the threads that ask it and what is known about it.

    Args:
        given: the path of an index, the url of one of a server, or an object with the methods of an index.
        timeout: seconds that a server may take.

    Raises:
        TypeError: it is none of these.
    """

    def __init__(self, given: Any, timeout: float) -> None:
        self.index: Any = None
        self.facts: Facts | None = None
        self.seconds = 0.0  # that an answer takes, a moving average; 0: not known
        self._since: dict[int, float] = {}  # when each question came that is not answered, the oldest first
        self._asked = 0
        self.failed = False  # the last one
        self._checked = False
        self._mine = True
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lateint-shard")
        self._open: Callable[[], Any]
        if isinstance(given, str) and given.startswith(("http://", "https://")):
            self.name = given.rstrip("/")
            self._open = lambda: RemoteIndex(given, timeout=timeout)
        elif isinstance(given, (str, os.PathLike)):
            self.name = os.fspath(given)
            self._open = lambda: Index.open(given)
        elif isinstance(given, Searchable):
            self.name = str(getattr(given, "url", None) or getattr(given, "path", None) or repr(given))
            self.index, self._mine = given, False
        else:
            raise TypeError(f"shards must be paths, urls or indexes, got {type(given).__name__}")

    @property
    def cost(self) -> float:
        """How long an answer is likely to take, on a scale of its own.

        A question that has waited longer than answers usually take says that the place has become slower.
        """
        with self._lock:
            waited = time.monotonic() - next(iter(self._since.values())) if self._since else 0.0
            return float("inf") if self.failed else max(self.seconds, waited) * (len(self._since) + 1)

    def was_first(self, seconds: float) -> None:
        """Notes that its answer, which took so long, came before that of a place that was thought to be quicker."""
        with self._lock:
            self.seconds = min(self.seconds, seconds)

    def ask(self, question: Callable[[Any], Any], expected: Facts | None, done: Callable[[Outcome], None]) -> None:
        """Asks in a thread, which calls ``done`` at the end.

        Args:
            expected: what it must agree with, looked at before the first question and after each failure.
        """
        with self._lock:
            self._asked = number = self._asked + 1
            self._since[number] = time.monotonic()
        self._threads.submit(self._answer, number, question, expected, done)

    def close(self) -> None:
        """Ends its threads, and what it opened."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._mine and isinstance(self.index, RemoteIndex):
            self.index.close()

    def _answer(
        self, number: int, question: Callable[[Any], Any], expected: Facts | None, done: Callable[[Outcome], None]
    ) -> None:
        started, value, error = time.monotonic(), None, None
        try:
            if not self._checked:
                self._check(expected)
            value = question(self.index)
        except Exception as raised:
            error = raised
        failed = error is not None and not is_callers(error)
        took = time.monotonic() - started
        with self._lock:
            self.seconds = took if not self.seconds else (1 - NEWEST) * self.seconds + NEWEST * took
            del self._since[number]
            self.failed = failed
            if failed:
                self._checked = False
        done(Outcome(self, value, error, took))

    def _check(self, expected: Facts | None) -> None:
        index = self._open() if self.index is None else self.index
        facts = Facts.of(index)
        if expected is not None and (wrong := difference(facts, expected)):
            raise MismatchError(wrong)
        self.index, self.facts, self._checked = index, facts, True


def is_callers(error: BaseException) -> bool:
    """Whether an error is about what was asked, so that every place would raise it."""
    from lateint.disk.manifest import FormatError
    from lateint.ids import UnknownIdError

    return isinstance(error, (TypeError, ValueError, UnknownIdError)) and not isinstance(error, FormatError)


def difference(facts: Facts, expected: Facts) -> str:
    """What keeps two shards from being one index, or nothing."""
    if facts.dim != expected.dim:
        return f"dim {facts.dim}, not {expected.dim}"
    if facts.codec != expected.codec:
        return f"another codec: crc32 {facts.codec:08x}, not {expected.codec:08x}"
    if facts.ids != expected.ids:
        return f"ids of another kind: {facts.ids}, not {expected.ids}"
    return ""
