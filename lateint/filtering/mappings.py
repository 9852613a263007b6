"""Conditions as mappings: ``{"lang": "en", "year": {"$gte": 2020}}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from lateint.fields.values import DATE, parsed_date, plain
from lateint.filtering.tree import (
    DEEPEST,
    MOST_VALUES,
    And,
    Compare,
    Contains,
    Exists,
    FilterError,
    In,
    Not,
    Or,
    Scalar,
    Tree,
    both,
    check,
    like,
    scalar,
)


def parse(condition: Mapping[str, Any]) -> Tree:
    """The tree of a mapping.

    Raises:
        FilterError: it is no condition, or too large.
    """
    return check(_condition(condition, 1))


def _condition(condition: Any, depth: int) -> Tree:
    if depth > DEEPEST:
        raise FilterError(f"filter must be at most {DEEPEST} levels deep")
    if not isinstance(condition, Mapping):
        raise FilterError(f"filter must be made of mappings, got {type(condition).__name__} {_short(condition)}")
    if not condition:
        raise FilterError("filter must hold a condition, got an empty mapping; None stands for no filter")
    if len(condition) > MOST_VALUES:
        raise FilterError(f"filter must hold at most {MOST_VALUES:,} conditions and values, got {len(condition):,}")
    return both([_entry(key, value, depth) for key, value in condition.items()])


def _entry(key: Any, value: Any, depth: int) -> Tree:
    if not isinstance(key, str):
        raise FilterError(f"filter must have keys that are strings, got {type(key).__name__} {_short(key)}")
    if key in ("$and", "$or"):
        if not isinstance(value, (list, tuple)) or not value:
            raise FilterError(f"{key} must be a list of one condition or more, got {_short(value)}")
        if len(value) > MOST_VALUES:
            raise FilterError(f"filter must hold at most {MOST_VALUES:,} conditions and values, got {len(value):,}")
        parts = tuple(_condition(one, depth + 1) for one in value)
        return And(parts) if key == "$and" else Or(parts)
    if key == "$not":
        return Not(_condition(value, depth + 1))
    if key.startswith("$"):
        raise FilterError(f"filter has an operator {key[:64]!r} where a field, $and, $or or $not is expected")
    return _field(key, value, depth)


def _field(field: str, value: Any, depth: int) -> Tree:
    """What is said of a field."""
    if depth > DEEPEST:
        raise FilterError(f"filter must be at most {DEEPEST} levels deep")
    if not isinstance(value, Mapping) or _is_date(value):
        return Compare(field, "=", scalar_of(value, field))
    if not value:
        raise FilterError(f"{field[:64]!r} must have a condition, got an empty mapping")
    parts: list[Tree] = []
    for operator, operand in value.items():
        if operator == "$not":
            parts.append(Not(_field(field, operand, depth + 1)))
        elif isinstance(operator, str) and operator in _OPERATORS:
            parts.append(_OPERATORS[operator](field, operand))
        else:
            hint = "" if str(operator).startswith("$") else f"; nested fields are written {field[:32]}.{operator}"[:128]
            raise FilterError(
                f"{field[:64]!r} must have operators, which are {', '.join([*_OPERATORS, '$not'])}, got "
                f"{_short(operator)}{hint}"
            )
    return both(parts)


def _is_date(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and DATE in value


def date_of(text: Any, where: str) -> date:
    """A date in ISO 8601; ``where`` is for messages."""
    try:
        return parsed_date(text)
    except ValueError as error:
        raise FilterError(f"{where[:64]!r}: {error}") from None


def scalar_of(value: Any, field: str) -> Scalar:
    if _is_date(value):
        value = date_of(value[DATE], field)
    if isinstance(plain(value), (list, tuple)):
        raise FilterError(f"{field[:64]!r} cannot be compared with a list; use $in, $containsany or $containsall")
    return scalar(value, repr(field[:64]))


def _scalars(values: Any, field: str, operator: str) -> tuple[Scalar, ...]:
    values = plain(values)
    if not isinstance(values, (list, tuple, set, frozenset)):
        raise FilterError(f"{operator} of {field[:64]!r} must be a list, got {type(values).__name__}")
    if len(values) > MOST_VALUES:
        raise FilterError(f"filter must hold at most {MOST_VALUES:,} conditions and values, got {len(values):,}")
    return tuple(scalar_of(value, field) for value in values)


def _exists(field: str, operand: Any) -> Tree:
    if not isinstance(plain(operand), bool):
        raise FilterError(f"$exists of {field[:64]!r} must be true or false, got {_short(operand)}")
    return Exists(field) if plain(operand) else Not(Exists(field))


def _compared(operator: str) -> Callable[[str, Any], Tree]:
    return lambda field, operand: Compare(field, operator, scalar_of(operand, field))


_OPERATORS: dict[str, Callable[[str, Any], Tree]] = {
    "$eq": _compared("="),
    "$ne": lambda field, operand: Not(Compare(field, "=", scalar_of(operand, field))),
    "$gt": _compared(">"),
    "$gte": _compared(">="),
    "$lt": _compared("<"),
    "$lte": _compared("<="),
    "$in": lambda field, operand: In(field, _scalars(operand, field, "$in")),
    "$nin": lambda field, operand: Not(In(field, _scalars(operand, field, "$nin"))),
    "$exists": _exists,
    "$contains": lambda field, operand: Contains(field, (scalar_of(operand, field),), every=True),
    "$containsany": lambda field, operand: Contains(field, _scalars(operand, field, "$containsany"), every=False),
    "$containsall": lambda field, operand: Contains(field, _scalars(operand, field, "$containsall"), every=True),
    "$like": like,
}


def _short(value: Any) -> str:
    """A few characters of it, whatever its size."""
    if isinstance(value, str):
        return repr(value[:64])
    return repr(value) if isinstance(value, (int, float)) and abs(value) < 1 << 64 else type(value).__name__
