"""Filters of LlamaIndex as conditions."""

from __future__ import annotations

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from lateint.integrations.conditions import EVERYTHING, Condition, all_of, any_of, compare, negated

PLAIN = {
    FilterOperator.EQ: "$eq", FilterOperator.NE: "$ne", FilterOperator.GT: "$gt", FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt", FilterOperator.LTE: "$lte", FilterOperator.IN: "$in", FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$containsany", FilterOperator.ALL: "$containsall", FilterOperator.CONTAINS: "$contains",
}  # fmt: skip


def condition(filters: MetadataFilters | None) -> Condition:
    """The condition of filters; None holds everywhere.

    Raises:
        ValueError: an operator is not offered.
    """
    if filters is None or not filters.filters:
        return EVERYTHING
    parts = [condition(one) if isinstance(one, MetadataFilters) else _comparison(one) for one in filters.filters]
    if filters.condition == FilterCondition.OR:
        return any_of(parts)
    return negated(any_of(parts)) if filters.condition == FilterCondition.NOT else all_of(parts)


def _comparison(one: MetadataFilter) -> Condition:
    if one.operator == FilterOperator.IS_EMPTY:
        return any_of([{one.key: {"$exists": False}}, {one.key: {"$eq": ""}}])
    if one.operator == FilterOperator.TEXT_MATCH:
        escaped = "".join("\\" + c if c in "\\%_" else c for c in str(one.value))
        return {one.key: {"$like": f"%{escaped}%"}}
    if one.operator not in PLAIN:
        raise ValueError(f"operator {one.operator} is not offered: texts are compared as they are written")
    return compare(one.key, PLAIN[one.operator], one.value)
