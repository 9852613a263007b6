"""For which documents of a segment a condition holds: a byte for each, from the columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from lateint.fields.columns import Column, Key
from lateint.filtering.comparing import Hits, equal_to_one, hits, matching
from lateint.filtering.tree import And, Compare, Contains, Exists, In, Like, Not, Or, Scalar, Tree

Mask = NDArray[np.bool_]
Columns = Mapping[Key, Column]

NUMBERS = ("int64", "float64")
VALUES = ("bool", "int64", "float64", "date", "string", "list", "object")  # kinds that are not null


def mask(tree: Tree, columns: Columns, documents: int) -> Mask:
    """``[n]``: where it is true, neither false nor unknown.

    Raises:
        FormatError: a column is damaged.
    """
    return _Segment(columns, documents).true(tree, negated=False)


class _Segment:
    """The columns of one segment. A negation is carried down to comparisons, where unknown stays unknown."""

    def __init__(self, columns: Columns, documents: int) -> None:
        self.columns, self.documents = columns, documents

    def true(self, tree: Tree, negated: bool) -> Mask:
        """Where a tree is true, or, negated, where it is false."""
        if isinstance(tree, Not):
            return self.true(tree.part, not negated)
        if isinstance(tree, (And, Or)):
            every = isinstance(tree, And) != negated
            masks = (self.true(part, negated) for part in tree.parts)
            return reduce(np.logical_and if every else np.logical_or, masks)
        if isinstance(tree, Exists):
            return ~self.there(tree.field) if negated else self.there(tree.field)
        if isinstance(tree, Compare) and tree.operator != "=":
            operator = _OPPOSITE[tree.operator] if negated else tree.operator
            return self.found(tree.field, [tree.value], operator)
        if isinstance(tree, Like):
            return self.matching(tree, negated)
        if isinstance(tree, Compare):
            same = self.found(tree.field, [tree.value], "=")
        elif isinstance(tree, In):
            same = self.found(tree.field, tree.values, "=")
        else:
            same = self.containing(tree)
        if not negated:
            return same
        if isinstance(tree, (In, Contains)) and not tree.values:  # nothing is asked of the value, which may be missing
            return ~same
        np.logical_not(same, out=same)
        there = self.there(tree.field)
        return np.logical_and(same, there, out=same)

    def there(self, field: str) -> Mask:
        """Where the field has a value."""
        found = np.zeros(self.documents, bool)
        for kind in VALUES:
            column = self.columns.get(Key(field, kind, False))
            if column is not None:
                found |= column.checked.there()
        return found

    def found(self, field: str, values: Sequence[Scalar], operator: str) -> Mask:
        """Where the value stands in this relation to one of ``values``."""
        return self._over(field, False, lambda column: hits(column, values, operator))

    def matching(self, tree: Like, negated: bool) -> Mask:
        """Where a string matches, or, negated, does not."""
        column = self.columns.get(Key(tree.field, "string", False))
        if column is None:
            return np.zeros(self.documents, bool)
        hit = matching(column.checked, tree.pattern)
        return column.where(~hit if negated else hit)

    def containing(self, tree: Contains) -> Mask:
        """Where a list has one or all of the values."""
        if not tree.every:
            return self._over(tree.field, True, lambda column: hits(column, tree.values, "="))
        masks = (self._over(tree.field, True, equal_to_one(value)) for value in tree.values)
        found = self.columns.get(Key(tree.field, "list", False))
        there = np.zeros(self.documents, bool) if found is None else found.checked.there()
        return reduce(np.logical_and, masks, there if tree.values else np.ones(self.documents, bool))

    def _over(self, field: str, elements: bool, hit: Callable[[Column], Hits]) -> Mask:
        """Where a column of the field has a hit."""
        found = None
        for kind in VALUES[:5]:
            column = self.columns.get(Key(field, kind, elements))
            if column is None:
                continue
            here = hit(column.checked)
            if here is None:
                continue
            mask = column.where(here)
            found = mask if found is None else np.logical_or(found, mask, out=found)
        return np.zeros(self.documents, bool) if found is None else found


_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
