"""The columns of a segment: the values of one field that are of one kind, as docs/format.md lays them out."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.fields.values import KINDS, LONGEST_NAME, SCALARS, Entry

SPARSE = 4  # where fewer than one of so many documents has a value, its rows are listed
ALIGNED = 64
WITHOUT_VALUES = ("null", "list", "object")
# What values may be stored as.
TYPES = {
    "bool": ("|u1",),
    "int64": ("|i1", "<i2", "<i4", "<i8"),
    "float64": ("<f8",),
    "date": ("<i8",),
    "string": ("|u1", "<u2", "<u4"),
}


class Key(NamedTuple):
    """Which column: they are ordered by this."""

    field: str
    kind: str
    elements: bool

    @property
    def order(self) -> tuple[str, int, bool]:
        """Where it comes in a table."""
        return self.field, KINDS.index(self.kind), self.elements


class Values(NamedTuple):
    """The values of a column by themselves.

    Attributes:
        rows: ``[m]`` int64, the document of each, ascending.
        values: ``[m]``, of strings their numbers in ``strings``; None for kinds without values.
        strings: in any order, perhaps more than there are values.
    """

    rows: NDArray[np.int64]
    values: NDArray[Any] | None
    strings: Sequence[bytes] = ()


@dataclass(eq=False)
class Column:
    """One of a segment of ``documents``, whose arrays are looked at once, when they are first used.

    Attributes:
        rows, present, values, dictionary_bytes, dictionary_offsets: as in docs/format.md; None where there is none.
    """

    key: Key
    documents: int
    values: NDArray[Any] | None = None
    rows: NDArray[np.uint32] | None = None
    present: NDArray[np.uint8] | None = None
    dictionary_bytes: NDArray[np.uint8] | None = None
    dictionary_offsets: NDArray[np.int64] | None = None

    @cached_property
    def checked(self) -> Column:
        """This, after a look at all of its numbers.

        Raises:
            FormatError: some cannot be.
        """
        if (wrong := self.problem()) is not None:
            raise FormatError(f"field_table: the column {self.key.field[:64]!r} {wrong}; the index is damaged")
        return self

    def problem(self) -> str | None:
        """What leads to places that are not there; None: nothing does."""
        documents, rows, present, values = self.documents, self.rows, self.present, self.values
        entries = documents if rows is None else len(rows)
        if rows is not None and present is not None:
            return "must not have both rows and present"
        if self.key.elements and rows is None:
            return "must have rows"
        if rows is not None and len(rows):
            steps = rows[1:] < rows[:-1] if self.key.elements else rows[1:] <= rows[:-1]
            if int(rows.max()) >= documents or steps.any():
                return f"must have rows that ascend and stay below {documents}"
        if present is not None and (len(present) != documents or int(present.max(initial=0)) > 1):
            return f"must say with 0 or 1 for each of {documents} documents whether it is present"
        if (values is None) != (self.key.kind in WITHOUT_VALUES) or (values is not None and len(values) != entries):
            return f"must have {entries} values"
        if self.key.kind == "bool" and values is not None and int(values.max(initial=0)) > 1:
            return "must have values of 0 and 1"
        if self.key.kind == "float64" and values is not None and np.isnan(values).any():
            return "must have values that are numbers"
        return self._problem_of_strings() if self.key.kind == "string" else None

    def _problem_of_strings(self) -> str | None:
        data, offsets, values = self.dictionary_bytes, self.dictionary_offsets, self.values
        if data is None or offsets is None or values is None or not len(offsets):
            return "must have a dictionary"
        if offsets[0] != 0 or offsets[-1] != len(data) or (offsets[1:] < offsets[:-1]).any():
            return f"must have dictionary_offsets that run from 0 to {len(data)} and do not decrease"
        if int(values.max(initial=0)) >= max(1, len(offsets) - 1) or (len(values) and len(offsets) == 1):
            return f"must have values below {len(offsets) - 1}"
        return None

    @cached_property
    def strings(self) -> list[bytes]:
        """The dictionary."""
        assert self.dictionary_bytes is not None and self.dictionary_offsets is not None
        data, ends = self.dictionary_bytes.tobytes(), self.dictionary_offsets.tolist()
        return [data[first:last] for first, last in pairwise(ends)]

    def there(self) -> NDArray[np.bool_]:
        """``[n]``: which documents have a value of this kind."""
        if self.rows is not None:
            mask = np.zeros(self.documents, bool)
            mask[self.rows] = True
            return mask
        return np.ones(self.documents, bool) if self.present is None else self.present != 0

    def where(self, hit: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``[n]``: documents one of whose values is hit; ``hit`` is for each value, and may be changed."""
        if self.rows is not None:
            mask = np.zeros(self.documents, bool)
            mask[self.rows[hit]] = True
            return mask
        if self.present is not None:
            hit &= self.present.view(bool)
        return hit

    def entries(self) -> Values:
        """By themselves."""
        at = np.flatnonzero(self.there()) if self.rows is None else self.rows.astype(np.int64)
        if self.values is None:
            return Values(at, None)
        values = self.values if self.rows is not None else self.values[at]
        return Values(at, values, self.strings if self.key.kind == "string" else ())


def column(key: Key, found: Values, documents: int) -> Column:
    """As it is stored."""
    rows, values, strings = found
    made = Column(key, documents)
    if key.kind == "string":
        assert values is not None
        used = np.unique(values).tolist()
        used.sort(key=strings.__getitem__)
        rank = np.zeros(len(strings), np.int64)
        rank[used] = np.arange(len(used))
        values = rank[values]
        made.dictionary_offsets = np.concatenate([[0], np.cumsum([len(strings[code]) for code in used])]).astype(
            np.int64
        )
        made.dictionary_bytes = np.frombuffer(b"".join(strings[code] for code in used), np.uint8)
    if values is not None:
        values = _narrow(values, TYPES[key.kind])
    dense = not key.elements and len(rows) * SPARSE >= documents
    if not dense:
        made.rows, made.values = rows.astype(np.uint32), values
    elif len(rows) == documents:
        made.values = values
    else:
        made.present = np.zeros(documents, np.uint8)
        made.present[rows] = 1
        if values is not None:
            made.values = np.zeros(documents, values.dtype)
            made.values[rows] = values
    return made


def _narrow(values: NDArray[Any], types: Sequence[str]) -> NDArray[Any]:
    if len(types) == 1:
        return values.astype(types[0])
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    fits = (type for type in types if np.iinfo(type).min <= low and high <= np.iinfo(type).max)
    return values.astype(next(fits))


class Collector:
    """Takes the values of documents, one document after another, in little room."""

    def __init__(self) -> None:
        self._documents = 0
        self._rows: dict[Key, array[int]] = {}
        self._values: dict[Key, array[Any]] = {}
        self._codes: dict[Key, dict[bytes, int]] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Those of the next document."""
        for field, kind, elements, value in entries:
            key = Key(field, kind, elements)
            if key not in self._rows:
                self._rows[key], self._codes[key] = array("q"), {}
                self._values[key] = array("d" if kind == "float64" else "q")
            self._rows[key].append(self._documents)
            if kind == "string":
                codes = self._codes[key]
                self._values[key].append(codes.setdefault(value.encode(), len(codes)))
            elif kind not in WITHOUT_VALUES:
                self._values[key].append(value)
        self._documents += 1

    def columns(self) -> dict[Key, Column]:
        """The columns of these documents."""
        return {key: column(key, self._found(key), self._documents) for key in sorted(self._rows, key=_order)}

    def _found(self, key: Key) -> Values:
        values = None if key.kind in WITHOUT_VALUES else np.array(self._values[key])
        return Values(np.array(self._rows[key]), values, list(self._codes[key]))


def _order(key: Key) -> tuple[str, int, bool]:
    return key.order


def of_entries(documents: Iterable[Iterable[Entry]]) -> dict[Key, Column]:
    """The columns of documents."""
    collector = Collector()
    for entries in documents:
        collector.add(entries)
    return collector.columns()


def joined(parts: Sequence[tuple[Mapping[Key, Column], NDArray[np.int64]]], documents: int) -> dict[Key, Column]:
    """The columns of documents that are taken from several segments.

    Args:
        parts: the columns of each segment, and ``[n]`` the new row of each of its documents, -1 where it is left out.

    Raises:
        FormatError: a segment is damaged.
    """
    found: dict[Key, list[Values]] = {}
    for columns, places in parts:
        for key, one in columns.items():
            rows, values, strings = one.checked.entries()
            kept = places[rows] >= 0
            if kept.any():
                some = Values(places[rows[kept]], None if values is None else values[kept], strings)
                found.setdefault(key, []).append(some)
    return {key: column(key, _merged(found[key]), documents) for key in sorted(found, key=_order)}


def _merged(parts: Sequence[Values]) -> Values:
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")  # elements of a list stay in their order
    if parts[0].values is None:
        return Values(rows[order], None)
    codes: dict[bytes, int] = {}
    values = [part.values if not part.strings else _recoded(part, codes) for part in parts]
    wide = [one.astype("<i8") if one.dtype.kind == "i" else one for one in values if one is not None]
    return Values(rows[order], np.concatenate(wide)[order], list(codes))


def _recoded(part: Values, codes: dict[bytes, int]) -> NDArray[np.int64]:
    """Numbers of strings in a dictionary of several parts, to which what it lacks is added."""
    assert part.values is not None
    new = np.zeros(len(part.strings), np.int64)
    for code in np.unique(part.values).tolist():
        new[code] = codes.setdefault(part.strings[code], len(codes))
    recoded: NDArray[np.int64] = new[part.values]
    return recoded


ARRAYS = ("values", "rows", "present", "dictionary_bytes", "dictionary_offsets")
NAMES = {"dictionary_bytes": "dictionary"}  # where docs/format.md has a shorter one
OTHERS = {"rows": ("<u4",), "present": ("|u1",), "dictionary_bytes": ("|u1",), "dictionary_offsets": ("<i8",)}


def written(columns: Mapping[Key, Column]) -> dict[str, NDArray[Any]]:
    """``field_table`` and ``field_data``."""
    table, data, at = [], list[bytes](), 0
    for key, one in columns.items():
        entry: dict[str, Any] = {"name": key.field, "kind": key.kind, **({"elements": True} if key.elements else {})}
        for name in ARRAYS:
            array = getattr(one, name)
            if array is not None:
                entry[NAMES.get(name, name)] = [array.dtype.str, at, len(array)]
                part = array.tobytes()
                data += [part, bytes(-len(part) % ALIGNED)]
                at += len(part) + len(data[-1])
        table.append(entry)
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    return {"field_table": np.frombuffer(text, np.uint8), "field_data": np.frombuffer(b"".join(data), np.uint8)}


def read(table: NDArray[np.uint8], data: NDArray[np.uint8], documents: int) -> dict[Key, Column]:
    """The columns that `written` wrote; their numbers are not looked at yet.

    Raises:
        FormatError: the table cannot be.
    """
    try:
        entries = json.loads(table.tobytes().decode())
        columns: dict[Key, Column] = {}
        if not isinstance(entries, list):
            raise ValueError("it must be a list")
        for entry in entries:
            one = _column(entry, data, documents)
            if one.key in columns:
                raise ValueError(f"the column {one.key.field[:64]!r} is there twice")
            columns[one.key] = one
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise FormatError(f"field_table is no table of columns: {error}; the index is damaged") from error
    return columns


def _column(entry: Any, data: NDArray[np.uint8], documents: int) -> Column:
    field, kind, elements = entry["name"], entry["kind"], entry.get("elements", False)
    if not isinstance(field, str) or not 0 < len(field) <= LONGEST_NAME:
        raise ValueError("a name cannot be that of a field")
    if kind not in KINDS or type(elements) is not bool or (elements and kind not in SCALARS[1:]):
        raise ValueError(f"a column cannot be of kind {str(kind)[:64]!r}")
    one = Column(Key(field, kind, elements), documents)
    for name in ARRAYS:
        if (place := entry.get(NAMES.get(name, name))) is not None:
            types = TYPES.get(kind, ()) if name == "values" else OTHERS[name]
            setattr(one, name, _array(place, types, data))
    return one


def _array(place: Any, types: Sequence[str], data: NDArray[np.uint8]) -> NDArray[Any]:
    type_, offset, length = place
    if type_ not in types or type(offset) is not int or type(length) is not int:
        raise ValueError(f"an array cannot be {str(place)[:64]}")
    dtype = np.dtype(type_)
    if offset < 0 or offset % ALIGNED or length < 0 or offset + length * dtype.itemsize > len(data):
        raise ValueError(f"an array cannot be {length} numbers from byte {offset} of {len(data)}")
    return data[offset : offset + length * dtype.itemsize].view(dtype)
