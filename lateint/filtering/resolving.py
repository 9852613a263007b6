"""From a filter as users write it to the documents of a state for which it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.documents import FieldError, unknown
from lateint.filtering import mappings, masks, sql
from lateint.filtering.tree import FilterError, Tree, fields
from lateint.state import Part, State


def read(condition: Any, params: Any = None) -> Tree:
    """The tree of a mapping, or of a string with parameters.

    Raises:
        TypeError: it is neither.
        FilterError: it is no condition, or too large.
        ImportError: it is a string, and sqlglot is not installed.
    """
    if isinstance(condition, str):
        return sql.parse(condition, params)
    if not isinstance(condition, Mapping):
        raise TypeError(f"filter must be a mapping or a condition in SQL, got {type(condition).__name__}")
    if params is not None:
        raise FilterError("params goes with a filter that is a string")
    return mappings.parse(condition)


def resolve(tree: Tree, state: State) -> NDArray[np.uint8]:
    """``[N]``: 1 for each document that is not deleted and for which the condition holds.

    Raises:
        FieldError: it names a field that no document has, or compares one that holds nothing to compare with.
        FormatError: the index is damaged, in a part that was not verified.
    """
    for field, compared in set(fields(tree)):
        _check(field, compared, state)
    found = [np.empty(0, bool)]
    for part in state.parts:
        mask = masks.mask(tree, part.fields.columns, part.entry.documents)
        found.append(mask if part.live is None else mask & (part.live != 0))
    return np.concatenate(found).view(np.uint8)


def _check(field: str, compared: bool, state: State) -> None:
    kinds = {kind for part in state.parts for kind in _kinds(part, field)}
    if not kinds:
        names = {key.field for part in state.parts for key in part.fields.columns}
        raise unknown(field, dict.fromkeys(names))
    if compared and kinds == {"object"}:
        raise FieldError(
            f"field {field[:64]!r} holds mappings, or lists of mappings or lists, which cannot be compared; fields "
            f"within a mapping have names of their own, such as '{field[:32]}.name'"
        )


def _kinds(part: Part, field: str) -> set[str]:
    """Of the values that documents which are not deleted have."""
    found = set()
    for key, column in part.fields.columns.items():
        here = key.field == field and not key.elements
        if here and (part.live is None or (column.checked.there() & (part.live != 0)).any()):
            found.add(key.kind)
    return found
