"""Metadata of one document: what may be in it, as JSON and as values of fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np

DEEPEST = 64  # objects and lists within each other
LONGEST_NAME = 1 << 12  # characters of a field's name
MOST_FIELDS = 1 << 16  # of a document
DATE = "$date"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
INT64 = range(-(1 << 63), 1 << 63)
KINDS = ("null", "bool", "int64", "float64", "date", "string", "list", "object")  # in the order of docs/format.md
SCALARS = KINDS[:6]


class Entry(NamedTuple):
    """A value of a field.

    Attributes:
        elements: whether it is an element of a list.
    """

    field: str
    kind: str
    elements: bool
    value: Any


class Flat(NamedTuple):
    """Metadata as JSON, empty where there is none, and the values of its fields."""

    text: str
    entries: list[Entry]


def flattened(metadata: Any, number: int) -> Flat:
    """What is stored of the metadata of a document, of which ``number`` is for messages.

    Raises:
        TypeError, ValueError: something in it cannot be stored.
    """
    if metadata is None:
        return Flat("", [])
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be mappings or None, got {type(metadata).__name__} for document {number}")
    if not metadata:
        return Flat("", [])
    walk = _Walk(number)
    text = json.dumps(walk.object(metadata, "", 1), ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"metadata of document {number} must be text that utf-8 can write, but holds half a character"
        ) from None
    names: set[str] = set()
    for field in (entry.field for entry in walk.entries if not entry.elements):
        if field in names:
            raise ValueError(f"metadata of document {number} must have a field once, but has {field[:64]!r} twice")
        names.add(field)
    if len(names) > MOST_FIELDS:
        raise ValueError(f"metadata of document {number} must have at most {MOST_FIELDS:,} fields, got {len(names):,}")
    return Flat(text, walk.entries)


def kind_of(value: Any) -> tuple[str, Any] | None:
    """The kind of a value that is no list and no mapping, and how a column holds it; None: it is none of them.

    Raises:
        OverflowError: an integer that does not fit into int64.
    """
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        if value not in INT64:
            raise OverflowError
        return "int64", int(value)
    if isinstance(value, float):
        return ("null", None) if math.isnan(value) else ("float64", float(value))
    if isinstance(value, str):
        return "string", str(value)
    if isinstance(value, date):
        return ("null", None) if value != value else ("date", microseconds(value))  # pandas.NaT is a date
    return None


def microseconds(value: date) -> int:
    """Since 1970 in UTC, which is assumed where no offset is given."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return (value - EPOCH) // timedelta(microseconds=1)


def parsed_date(text: Any) -> date:
    """A date as ``{"$date": text}`` has it.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str):
        raise ValueError(f"{DATE} must be a string in ISO 8601, got {type(text).__name__}")
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
        return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise ValueError(f"{DATE} must be a date in ISO 8601, got {text[:64]!r}") from None


def plain(value: Any) -> Any:
    """What numpy made of a value of Python."""
    if isinstance(value, np.datetime64):
        item = value.item()
        return value.astype("datetime64[us]").item() if isinstance(item, int) else item  # finer than Python's
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value


class _Walk:
    """Through the metadata of a document."""

    def __init__(self, number: int) -> None:
        self.number, self.entries = number, list[Entry]()

    def object(self, mapping: Mapping[Any, Any], above: str, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            raise ValueError(f"metadata of document {self.number} must be at most {DEEPEST} levels deep")
        found = {}
        for key, value in mapping.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"metadata of document {self.number} must have keys that are strings, got {type(key).__name__}"
                )
            if not key or key.startswith("$"):
                raise ValueError(
                    f"metadata of document {self.number} must have keys that are not empty and do not begin with $, "
                    f"got {key[:64]!r}"
                )
            field = f"{above}.{key}" if above else key
            if len(field) > LONGEST_NAME:
                raise ValueError(
                    f"metadata of document {self.number} must have names of at most {LONGEST_NAME:,} characters, got "
                    f"one of {len(field):,}"
                )
            found[key] = self.value(value, field, depth)
        return found

    def value(self, value: Any, field: str, depth: int) -> Any:
        value = plain(value)
        if isinstance(value, Mapping):
            if len(value) == 1 and DATE in value:
                value = self.date(value[DATE])
            else:
                self.entries.append(Entry(field, "object", False, None))
                return self.object(value, field, depth + 1)
        if isinstance(value, (list, tuple)):
            return self.list(value, field, depth)
        kind, held = self.scalar(value, field)
        self.entries.append(Entry(field, kind, False, held))
        return _json(value)

    def list(self, values: Any, field: str, depth: int) -> list[Any]:
        if depth + 1 > DEEPEST:
            raise ValueError(f"metadata of document {self.number} must be at most {DEEPEST} levels deep")
        items = [plain(value) for value in values]
        items = [
            self.date(item[DATE]) if isinstance(item, Mapping) and len(item) == 1 and DATE in item else item
            for item in items
        ]
        if any(isinstance(item, (Mapping, list, tuple)) for item in items):
            self.entries.append(Entry(field, "object", False, None))
            inner = _Walk(self.number)  # for its checks alone
            return [
                inner.object(item, "", depth + 2)
                if isinstance(item, Mapping)
                else inner.list(item, field, depth + 1)
                if isinstance(item, (list, tuple))
                else inner.value(item, field, depth + 1)
                for item in items
            ]
        self.entries.append(Entry(field, "list", False, None))
        for item in items:
            kind, held = self.scalar(item, field)
            if kind != "null":
                self.entries.append(Entry(field, kind, True, held))
        return [_json(item) for item in items]

    def date(self, text: Any) -> date:
        try:
            return parsed_date(text)
        except ValueError as error:
            raise ValueError(f"metadata of document {self.number}: {error}") from None

    def scalar(self, value: Any, field: str) -> tuple[str, Any]:
        try:
            found = kind_of(value)
        except OverflowError:
            raise ValueError(
                f"metadata of document {self.number} must hold integers that fit into int64, but that of "
                f"{field[:64]!r} does not"
            ) from None
        if found is None:
            raise TypeError(
                f"metadata of document {self.number} must hold strings, numbers, booleans, dates, None, lists and "
                f"mappings, but {field[:64]!r} is a {type(value).__name__}"
            )
        return found


def _json(value: Any) -> Any:
    if isinstance(value, date):
        return {DATE: value.isoformat()} if value == value else None
    return value


def as_json(value: Any) -> Any:
    """Metadata, or a value in them, as JSON can hold them: dates as ``{"$date": text}``."""
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return _json(plain(value))


def from_json(text: str) -> dict[str, Any]:
    """Metadata as they were given, dates among them.

    Raises:
        ValueError, RecursionError: they cannot have been.
    """
    found = json.loads(text, object_hook=_dated)
    if not isinstance(found, dict):
        raise ValueError(f"metadata must be an object, got {type(found).__name__}")
    return found


def _dated(found: dict[str, Any]) -> Any:
    return parsed_date(found[DATE]) if len(found) == 1 and DATE in found else found
