"""Filters of Haystack as conditions: ``{"field": "meta.year", "operator": ">=", "value": 2020}``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from haystack.errors import FilterError

from lateint.integrations.conditions import EVERYTHING, NOTHING, Condition, all_of, any_of, compare, negated

ORDER = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
LISTS = {"in": "$in", "not in": "$nin"}
OF_A_DOCUMENT = ("id", "content", "blob", "embedding", "sparse_embedding", "score")


def condition(filters: Any) -> Condition:
    """The condition of a filter; None and an empty one hold everywhere.

    Raises:
        FilterError: it is no filter of Haystack, or on something else than ``meta``.
    """
    return _condition(filters) if filters else EVERYTHING


def _condition(filters: Any) -> Condition:
    if not isinstance(filters, Mapping) or "operator" not in filters:
        raise FilterError(f"a filter must be a dictionary with 'operator', got {str(filters)[:200]}")
    if "field" in filters:
        return _comparison(filters)
    operator, conditions = filters["operator"], filters.get("conditions")
    if not isinstance(conditions, list):
        raise FilterError(f"a filter must have 'field', or 'conditions' that are a list, got {str(filters)[:200]}")
    parts = [_condition(one) for one in conditions]
    if operator == "AND":
        return all_of(parts)
    if operator == "OR":
        return any_of(parts)
    if operator == "NOT":
        return negated(all_of(parts))
    raise FilterError(f"operator must be AND, OR or NOT, got {operator!r}")


def _comparison(filters: Mapping[str, Any]) -> Condition:
    if "value" not in filters:
        raise FilterError(f"a comparison must have 'value', got {str(filters)[:200]}")
    name, operator, value = filters["field"], filters["operator"], filters["value"]
    if not isinstance(name, str) or name in OF_A_DOCUMENT:
        raise FilterError(f"field must be one of meta, got {name!r}")
    field = name if name.startswith("meta.") else f"meta.{name}"
    if operator in ("==", "!="):
        if value is None:
            return {field: {"$exists": operator == "!="}}
        if isinstance(value, (list, dict)):
            raise FilterError(f"value of {operator} must be one value, got {type(value).__name__}")
        return compare(field, "$eq" if operator == "==" else "$ne", value)
    if operator in LISTS:
        if not isinstance(value, list):
            raise FilterError(f"value of {operator!r} must be a list, got {type(value).__name__}")
        return _among(field, value, operator)
    if operator in ORDER:
        if value is None:
            return NOTHING
        if isinstance(value, (list, dict)) or (isinstance(value, str) and not _is_date(value)):
            raise FilterError(f"value of {operator} must be a number or a date, got {value!r}")
        return compare(field, ORDER[operator], value)
    raise FilterError(f"operator must be ==, !=, in, not in or one of {', '.join(ORDER)}, got {operator!r}")


def _among(field: str, values: list[Any], operator: str) -> Condition:
    """None in a list stands for documents without the field."""
    given = [value for value in values if value is not None]
    found = any_of(
        [
            {field: {"$in": given}} if given else NOTHING,
            {field: {"$exists": False}} if len(given) < len(values) else NOTHING,
        ]
    )
    return found if operator == "in" else negated(found)


def _is_date(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
