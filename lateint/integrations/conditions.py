"""Conditions as frameworks have them, brought into the form of `Index.search(filter=)`.

Frameworks know two truth values: a comparison with a field that a document has not is false, and its negation true.
Filters of lateint know three, as SQL does, so negations are carried down to comparisons here, and say what becomes of
missing fields. A field that no document has is no error to a framework either.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

Condition = Mapping[str, Any] | bool

EVERYTHING, NOTHING = True, False


def compare(field: str, operator: str, value: Any) -> Condition:
    """``field operator value``; with ``$ne`` and ``$nin``, documents without the field are among them."""
    if operator in ("$ne", "$nin"):
        return negated({field: {"$eq" if operator == "$ne" else "$in": value}})
    return {field: {operator: value}}


def all_of(conditions: list[Condition]) -> Condition:
    """Whether all hold."""
    if NOTHING in [one for one in conditions if isinstance(one, bool)]:
        return NOTHING
    rest = [one for one in conditions if not isinstance(one, bool)]
    return {"$and": rest} if len(rest) > 1 else rest[0] if rest else EVERYTHING


def any_of(conditions: list[Condition]) -> Condition:
    """Whether one holds."""
    if EVERYTHING in [one for one in conditions if isinstance(one, bool)]:
        return EVERYTHING
    rest = [one for one in conditions if not isinstance(one, bool)]
    return {"$or": rest} if len(rest) > 1 else rest[0] if rest else NOTHING


def negated(condition: Condition) -> Condition:
    """Whether a condition does not hold, missing fields included."""
    if isinstance(condition, bool):
        return not condition
    if "$and" in condition:
        return any_of([negated(one) for one in condition["$and"]])
    if "$or" in condition:
        return all_of([negated(one) for one in condition["$or"]])
    if "$not" in condition:
        inner = condition["$not"]
        return any_of([inner, {next(iter(inner)): {"$exists": False}}])
    ((field, test),) = condition.items()
    ((operator, value),) = test.items()
    if operator == "$exists":
        return {field: {"$exists": not value}}
    return any_of([{"$not": condition}, {field: {"$exists": False}}])


def known(condition: Condition, fields: Container[str]) -> Condition:
    """What remains of a condition if only these fields are there."""
    if isinstance(condition, bool):
        return condition
    for operator, together in (("$and", all_of), ("$or", any_of)):
        if operator in condition:
            return together([known(one, fields) for one in condition[operator]])
    if "$not" in condition:
        inner = known(condition["$not"], fields)
        return NOTHING if isinstance(inner, bool) else {"$not": inner}
    ((field, test),) = condition.items()
    return condition if field in fields else test == {"$exists": False}
