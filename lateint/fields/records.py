"""Texts, metadata and sparse vectors as users pass them, some documents at a time."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from lateint.fields.values import flattened
from lateint.text import vectors
from lateint.text.analyzer import Analyzer
from lateint.text.vectors import Matrix, Vector


@dataclass(frozen=True)
class Given:
    """What some documents are given; None where nothing of the kind is.

    Attributes:
        texts: for each document, checked; None for one without.
        metadata: for each document, as users pass them. Those of a stream can be read once.
        sparse: a sparse vector for each document, likewise.
        first: number of the first document, for messages.
        analyzer: that makes terms of texts; None: they are not searched.
    """

    texts: Sequence[str | None] | None = None
    metadata: Iterable[Mapping[str, Any] | None] | None = None
    sparse: Iterable[Any] | None = None
    first: int = 0
    analyzer: Analyzer | None = None

    def some(self, rows: Iterable[int]) -> Given:
        """Of some of the documents, for which this must hold lists."""
        which = list(rows)
        lists: dict[str, Any] = {name: [column[row] for row in which] for name, column in self._lists()}
        return replace(self, **lists)

    def part(self, first: int, last: int) -> Given:
        """Of neighbours, likewise."""
        lists: dict[str, Any] = {name: column[first:last] for name, column in self._lists()}
        return replace(self, first=self.first + first, **lists)

    def _lists(self) -> Iterator[tuple[str, list[Any]]]:
        for name in NAMES:
            if (column := getattr(self, name)) is not None:
                yield name, column


NAMES = ("texts", "metadata", "sparse")
NOTHING = Given()


class Records:
    """Texts, metadata and sparse vectors in the order of documents, read once from the front.

    Args:
        texts: a str or None for each document; None: no document has one.
        metadata: a mapping or None for each, likewise.
        analyzer: see `Given`.
        sparse: a vector or None for each, see `lateint.text.vectors.read`, or the rows of a sparse matrix.

    Raises:
        TypeError: one of them is no list and nothing else that can be iterated over.
    """

    def __init__(
        self, texts: Any = None, metadata: Any = None, analyzer: Analyzer | None = None, sparse: Any = None
    ) -> None:
        self.analyzer = analyzer
        self._given = _columns(texts, metadata, sparse)
        self._iterators = {name: iter(column) for name, column in self._given.items() if column is not None}
        self._taken = 0

    def check(self, documents: int) -> None:
        """Looks at lists as a whole, before there is work that would be lost.

        Raises:
            TypeError, ValueError: see `take`.
        """
        for name, column in self._given.items():
            if isinstance(column, Sequence):
                if len(column) != documents:
                    raise ValueError(f"{name} must be one for each document, got {len(column)} for {documents}")
                for number, one in enumerate(column):
                    _CHECKS[name](one, number)

    def take(self, count: int) -> Given:
        """Those of the next documents; metadata are read from it, once, before the next call.

        Raises:
            TypeError, ValueError: there are too few, or a text or metadata cannot be stored; the message names the
                document.
        """
        first, found = self._taken, dict[str, Any]()
        self._taken += count
        for name in self._iterators:
            found[name] = self._next(name, first, count)
        if "texts" in found:
            found["texts"] = [_text(one, first + i) for i, one in enumerate(found["texts"])]
        return Given(**found, first=first, analyzer=self.analyzer)

    def _next(self, name: str, first: int, count: int) -> Iterator[Any]:
        there = 0
        for there, one in enumerate(islice(self._iterators[name], count), 1):  # noqa: B007
            yield one
        if there < count:
            raise ValueError(f"{name} must be one for each document, got {first + there} for more documents")

    def skip(self, count: int) -> None:
        """Passes over the next documents."""
        for name in self._iterators:
            for _ in self._next(name, self._taken, count):
                pass
        self._taken += count

    def close(self) -> None:
        """Raises ValueError if there are more."""
        for name, iterator in self._iterators.items():
            for _ in iterator:
                raise ValueError(f"{name} must be one for each document, got more than {self._taken}")

    @property
    def read_once(self) -> str | None:
        """The name of one that cannot be read again."""
        return next((name for name, column in self._given.items() if isinstance(column, Iterator)), None)

    def fingerprint(self) -> dict[str, Any]:
        """What tells them from others; reads all of them, which must not be `read_once`."""
        found: dict[str, Any] = {} if self.analyzer is None else {"analyzer": self.analyzer.to_json()}
        for name, column in self._given.items():
            if column is not None:
                crc = 0
                for number, one in enumerate(column):
                    checked = _CHECKS[name](one, number)
                    crc = zlib.crc32(b"\n", zlib.crc32(_BYTES[name](checked), crc))
                found[f"{name}_crc32"] = crc
        return found


def given(texts: Any, metadata: Any, documents: int, sparse: Any = None) -> Given:
    """Those of all documents of one call.

    Raises:
        TypeError, ValueError: as `Records`.
    """
    columns: dict[str, Any] = {
        name: column if column is None or isinstance(column, (list, Matrix)) else list(column)
        for name, column in _columns(texts, metadata, sparse).items()
    }
    Records(**columns).check(documents)
    return Given(**columns)


def _columns(texts: Any, metadata: Any, sparse: Any) -> dict[str, Iterable[Any] | None]:
    return {
        "texts": _column(texts, "texts"),
        "metadata": _column(metadata, "metadata"),
        "sparse": _column(sparse, "sparse") if (rows := Matrix.of(sparse)) is None else rows,
    }


def _column(given: Any, name: str) -> Iterable[Any] | None:
    items = given.tolist() if hasattr(given, "tolist") else given
    if items is None:
        return None
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise TypeError(f"{name} must be a list with one for each document, got {type(given).__name__}")
    return items


def _text(one: Any, number: int) -> str | None:
    if one is None:
        return None
    if not isinstance(one, str):
        raise TypeError(f"texts must be strings or None, got {type(one).__name__} for document {number}")
    try:
        one.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"texts must be text that utf-8 can write, but document {number} holds half a character"
        ) from None
    return str(one)


def _vector(one: Any, number: int) -> Vector | None:
    return vectors.read(one, f"sparse of document {number}")


_CHECKS: dict[str, Any] = {"texts": _text, "metadata": flattened, "sparse": _vector}
# What `_CHECKS` give, as bytes that tell it from others.
_BYTES: dict[str, Any] = {
    "texts": lambda text: json.dumps(text).encode(),
    "metadata": lambda record: record.text.encode(),
    "sparse": lambda vector: json.dumps(None if vector is None else vectors.plain(vector)).encode(),
}
