"""Tables of other benchmarks as tables in M2KR's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from preflmr.data import rows
from preflmr.data.rows import Row, Table

Value: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


class Renamed(Table):
    """A table whose rows are made of another's; keys are those of the other.

    Args:
        table: the other.
        names: its columns that ``value`` needs.
        value: a row in M2KR's columns, or None to leave it out; a function of a module, or `functools.partial` of one.
    """

    def __init__(self, table: Table, names: Sequence[str], value: Value) -> None:
        self.table, self.names, self.value, self.name = table, tuple(names), value, table.name

    def rows(
        self, needed: Sequence[str], known: Sequence[str], limit: int | None = None, seed: int | None = None
    ) -> Iterator[Row]:
        if limit is None:
            found: Iterator[Row] = self._rows(needed)
        else:
            every = list(self._rows(needed))
            chosen = rows.kept(len(every), limit, seed)
            found = iter(every if chosen is None else [every[position] for position in chosen])
        yield from found

    def at(self, key: int, names: Sequence[str]) -> Mapping[str, Any]:
        return self.value(self.table.at(key, self.names)) or {}

    def place(self, key: int) -> str:
        return self.table.place(key)

    def _rows(self, needed: Sequence[str]) -> Iterator[Row]:
        for place, key, columns in self.table.rows((), self.names):
            try:
                made = self.value(columns)
            except KeyError as error:
                found = ", ".join(columns)
                raise ValueError(f"{place}: must have the column {error.args[0]}, found {found}") from None
            if made is not None:
                self._check(place, needed, made)
                yield Row(place, key, made)
