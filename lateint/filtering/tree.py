"""A condition on fields, whatever notation it came in.

Logic is that of SQL: where a document has no value, a comparison is unknown, and only what is true is found. Values of
different kinds are never equal and have no order: ``=`` is false, ``<`` and the like are unknown. Integers and floats
are of one kind, number, and are compared exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, TypeAlias

from lateint.fields.values import kind_of, plain

DEEPEST = 64  # conditions within each other
MOST_VALUES = 1 << 17  # in one filter
MOST_CHARACTERS = 1 << 20  # of all names and strings of one filter
LONGEST_PATTERN = 1 << 12  # characters of a pattern


class FilterError(ValueError):
    """A filter that is no condition."""


class Scalar(NamedTuple):
    """A value to compare with.

    Attributes:
        kind: ``bool``, ``int64``, ``float64``, ``date`` or ``string``.
        value: as a column holds it, but strings as str and integers of any size.
    """

    kind: str
    value: Any


@dataclass(frozen=True)
class Compare:
    """``field operator value``; operators are ``= < <= > >=``."""

    field: str
    operator: str
    value: Scalar


@dataclass(frozen=True)
class In:
    """The value is one of these, of which there may be none."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Like:
    """The string matches a pattern: str for themselves, `ONE` for any character, `MANY` for any number of them."""

    field: str
    pattern: tuple[Any, ...]


@dataclass(frozen=True)
class Exists:
    """There is a value, that is neither null nor NaN."""

    field: str


@dataclass(frozen=True)
class Contains:
    """A list has one of these among its elements, or every one."""

    field: str
    values: tuple[Scalar, ...]
    every: bool


@dataclass(frozen=True)
class Not:
    """It is false."""

    part: Tree


@dataclass(frozen=True)
class And:
    """All of them hold."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Or:
    """One of them holds."""

    parts: tuple[Tree, ...]


Tree: TypeAlias = "Compare | In | Like | Exists | Contains | Not | And | Or"


class Wildcard:
    """A part of a pattern that is not itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ONE, MANY = Wildcard("ONE"), Wildcard("MANY")


def scalar(value: Any, where: str) -> Scalar:
    """A value as a user writes it; ``where`` is for messages.

    Raises:
        FilterError: nothing is compared with such a value.
    """
    value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Scalar("int64", int(value))
    found = kind_of(value)
    if found is None:
        raise FilterError(
            f"{where} must be compared with a string, number, boolean or date, got {type(value).__name__}"
        )
    if found[0] == "null":
        what = {"float": "NaN"}.get(type(value).__name__, "a date that is none" if isinstance(value, date) else "None")
        raise FilterError(f"{where} cannot be compared with {what}, which nothing is equal to; ask whether it exists")
    if found[0] == "string":
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FilterError(
                f"{where} must be compared with text that utf-8 can write, got half a character"
            ) from None
    return Scalar(*found)


def like(field: str, pattern: Any, escape: str | None = "\\") -> Like:
    """``%`` stands for any number of characters, ``_`` for one; after ``escape`` they are themselves.

    Raises:
        FilterError: it is no pattern.
    """
    if not isinstance(pattern, str):
        raise FilterError(f"the pattern for {field[:64]!r} must be a string, got {type(pattern).__name__}")
    if len(pattern) > LONGEST_PATTERN:
        raise FilterError(f"the pattern for {field[:64]!r} must have at most {LONGEST_PATTERN:,} characters")
    scalar(pattern, repr(field[:64]))
    parts: list[Any] = []
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            if (character := next(characters, "")) == "":
                raise FilterError(f"the pattern for {field[:64]!r} must not end with its escape character")
            parts.append(character)
        elif character in "%_":
            parts.append(MANY if character == "%" else ONE)
        else:
            parts.append(character)
    return Like(field, _joined(parts))


def _joined(parts: list[Any]) -> tuple[Any, ...]:
    """With neighbouring characters as one string, and neighbouring `MANY` as one."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif not (part is MANY and found and found[-1] is MANY):
            found.append(part)
    return tuple(found)


def both(parts: list[Tree]) -> Tree:
    """All of them."""
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def fields(tree: Tree) -> Iterator[tuple[str, bool]]:
    """The fields that a tree names, and whether it compares their values."""
    if isinstance(tree, (And, Or)):
        for part in tree.parts:
            yield from fields(part)
    elif isinstance(tree, Not):
        yield from fields(tree.part)
    else:
        yield tree.field, not isinstance(tree, Exists)


def check(tree: Tree, depth: int = 1) -> Tree:
    """The tree, if it is not too large.

    Raises:
        FilterError: it is.
    """
    values = characters = 0
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > DEEPEST:
            raise FilterError(f"filter must be at most {DEEPEST} levels deep")
        if isinstance(node, (And, Or)):
            stack += [(part, depth + 1) for part in node.parts]
        elif isinstance(node, Not):
            stack.append((node.part, depth + 1))
        else:
            there = node.values if isinstance(node, (In, Contains)) else ()
            values += 1 + len(there)
            characters += len(node.field) + sum(len(one.value) for one in there if one.kind == "string")
            if isinstance(node, Compare) and node.value.kind == "string":
                characters += len(node.value.value)
    if values > MOST_VALUES:
        raise FilterError(f"filter must hold at most {MOST_VALUES:,} conditions and values, got {values:,}")
    if characters > MOST_CHARACTERS:
        raise FilterError(f"filter must hold at most {MOST_CHARACTERS:,} characters, got {characters:,}")
    return tree
