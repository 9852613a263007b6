"""Documents as they are given back: texts and metadata, one by one or as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.fields.columns import Column, Key
from lateint.fields.values import KINDS
from lateint.state import Part, State

TEXT = "text"  # among the names of fields, it is the text


class FieldError(ValueError):
    """A field that no document has, or that is not of use where it is named."""


@dataclass(frozen=True)
class Document:
    """What an index keeps of a document besides its tokens.

    Attributes:
        id: an int or a str.
        text: None where it has none.
        metadata: as they were given; empty where it has none.
    """

    id: Any
    text: str | None
    metadata: dict[str, Any]


class Documents(Sequence[Document]):
    """The documents of an index at one time, in their order; none is in memory before it is asked for.

    ``documents["year"]`` is a column: a masked array, masked where a document has no value.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, str):
            return self.column(which)
        if isinstance(which, slice):
            return self.at(self.positions[which])
        return self.at(self.positions[[which]])[0]

    def __iter__(self) -> Iterator[Document]:
        for first in range(0, len(self), 1024):
            yield from self.at(self.positions[first : first + 1024])

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """``[n]``: of the documents that are not deleted."""
        live = self._state.live
        return np.arange(len(self._state.ids)) if live is None else np.flatnonzero(live)

    @cached_property
    def fields(self) -> Mapping[str, tuple[str, ...]]:
        """The fields that documents have, by name, with the kinds of their values, as docs/format.md has them."""
        found: dict[str, set[str]] = {}
        for part in self._state.parts:
            for key, column in part.fields.columns.items():
                if not key.elements and _is_live(part, column):
                    found.setdefault(key.field, set()).add(key.kind)
        return {name: tuple(sorted(found[name], key=KINDS.index)) for name in sorted(found)}

    def check(self, names: Iterable[str]) -> None:
        """Raises FieldError for a field that no document has."""
        for name in names:
            if name not in self.fields:
                raise unknown(name, self.fields)

    def at(self, positions: NDArray[np.int64], fields: Iterable[str] | None = None) -> list[Document]:
        """Documents by their positions.

        Args:
            fields: names of fields to read, ``"text"`` for the text; None: all.

        Raises:
            FieldError: no document has such a field.
            FormatError: the index is damaged, in a part that was not verified.
        """
        wanted = None if fields is None else _wanted(fields)
        if wanted is not None:
            self.check(wanted - {TEXT})
        numbers = np.searchsorted(self._state.firsts, positions, side="right") - 1
        rows = (positions - self._state.firsts[numbers]).tolist()
        names = self._state.ids.at(positions).tolist()
        found = []
        for name, number, row in zip(names, numbers.tolist(), rows, strict=True):
            one = self._state.parts[number].fields
            text = one.text(row) if wanted is None or TEXT in wanted else None
            metadata = {} if wanted is not None and wanted <= {TEXT} else one.metadata(row)
            found.append(Document(name, text, metadata if wanted is None else _pruned(metadata, wanted, "")))
        return found

    def column(self, name: str) -> Any:
        """``[n]``, masked where a document has no value: of int64, float64, bool or ``datetime64[us]`` where all values
        are of this kind, else of objects.

        Raises:
            FieldError: no document has the field.
        """
        self.check([name])
        kinds = [kind for kind in self.fields[name] if kind != "null"]
        if len(kinds) != 1 or kinds[0] not in _DTYPES:
            found = np.ma.masked_array(np.empty(len(self), object), np.ones(len(self), bool))
            for row, document in enumerate(self):
                if (value := value_of(document.metadata, name)) is not None and value == value:
                    found[row] = value
            return found
        values, there = self.values(name, kinds[0])
        return np.ma.masked_array(values, ~there)

    def values(self, name: str, kind: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """``[n]`` each: the values of one kind, and which documents have one."""
        dtype: Any = _DTYPES[kind]
        values, there = np.zeros(len(self._state.ids), dtype), np.zeros(len(self._state.ids), bool)
        for part, first in zip(self._state.parts, self._state.firsts, strict=False):
            column = part.fields.columns.get(Key(name, kind, False))
            if column is not None:
                rows, found, strings = column.checked.entries()
                there[first + rows] = True
                if found is not None and kind == "string":
                    found = np.array([string.decode(errors="replace") for string in strings], object)[found]
                values[first + rows] = (
                    found.astype("<i8").view(dtype) if found is not None and kind == "date" else found
                )
        return values[self.positions], there[self.positions]

    def arrow(self) -> Any:
        """A `pyarrow.Table` of ids, texts and fields, for DuckDB, Polars and pandas.

        A field of several kinds is a column for each, named like ``"year (int64)"``; lists of several kinds hold JSON.

        Raises:
            ImportError: pyarrow is not installed.
        """
        return _table(self)


_DTYPES = {"int64": "int64", "float64": "float64", "bool": "bool", "date": "datetime64[us]", "string": object}


def unknown(name: str, fields: Mapping[str, Any]) -> FieldError:
    """For a field that no document has."""
    there = ", ".join(sorted(fields)[:8]) or "none"
    return FieldError(f"no document has a field {name[:64]!r}; there are: {there[:400]}")


def _is_live(part: Part, column: Column) -> bool:
    """Whether a document that is not deleted has a value in it."""
    there = column.checked.there()
    return bool(there.any() if part.live is None else (there & (part.live != 0)).any())


def _wanted(fields: Iterable[str]) -> set[str]:
    if isinstance(fields, str):
        raise TypeError(f"fields must be a list of names, got the string {fields!r}")
    wanted = set(fields)
    if wrong := [name for name in wanted if not isinstance(name, str)]:
        raise TypeError(f"fields must be names, got {type(wrong[0]).__name__}")
    return wanted


def _pruned(metadata: dict[str, Any], wanted: set[str], above: str) -> dict[str, Any]:
    """With these fields only."""
    found = {}
    for key, value in metadata.items():
        path = above + key
        if path in wanted:
            found[key] = value
        elif isinstance(value, dict) and (inner := _pruned(value, wanted, path + ".")):
            found[key] = inner
    return found


def value_of(metadata: Mapping[str, Any], name: str) -> Any:
    """The value of a field; None where there is none."""
    for key, value in metadata.items():
        if key == name:
            return value
        if (
            isinstance(value, dict)
            and name.startswith(key + ".")
            and ((inner := value_of(value, name[len(key) + 1 :])) is not None)
        ):
            return inner
    return None


def _table(documents: Documents) -> Any:
    """A `pyarrow.Table`: ``id``, ``text`` where there are texts, and a column for each field and kind.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError("documents.arrow() needs pyarrow: pip install pyarrow") from error
    rows = list(documents)
    names = [row.id for row in rows]
    columns: dict[str, Any] = {
        "id": pa.array(names, pa.string() if names and isinstance(names[0], str) else pa.int64())
    }
    if any(row.text is not None for row in rows):
        columns["text"] = pa.array([row.text for row in rows], pa.string())
    for field, kinds in documents.fields.items():
        kinds = tuple(kind for kind in kinds if kind not in ("null", "object"))
        for kind in kinds:
            name = field if len(kinds) == 1 and field not in columns else f"{field} ({kind})"
            columns[name] = _column(pa, documents, rows, field, kind)
    return pa.table(columns)


def _column(pa: Any, documents: Documents, rows: list[Document], field: str, kind: str) -> Any:
    if kind == "list":
        lists = [value if isinstance(value := value_of(row.metadata, field), list) else None for row in rows]
        try:
            return pa.array(lists)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # elements of several kinds
            return pa.array([None if one is None else [json.dumps(item, default=str) for item in one] for one in lists])
    values, there = documents.values(field, kind)
    if kind == "string":
        return pa.array(values, pa.string(), mask=~there)
    if kind == "date":
        return pa.array(values.astype(np.int64), pa.int64(), mask=~there).cast(pa.timestamp("us", tz="UTC"))
    return pa.array(values, mask=~there)
