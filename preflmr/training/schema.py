"""Settings that check their types, ranges and choices, by pydantic; and its errors in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, Field
from typing_extensions import dataclass_transform

T = TypeVar("T")

AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
AtLeast3 = Annotated[int, Field(ge=3)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are checked when it is made, and which has no others."""
    decorate = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid", "strict": True})
    checked: type[T] = decorate(cls)
    return checked


def one_of(*allowed: str) -> Any:
    """A choice by name."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, got {value!r}")
        return value

    return AfterValidator(check)


# Marks a mapping of named things, in which null takes one of the base's out.
ENTRIES = "entries"
# Marks a section, which is as if it were not there if it is null.
SECTION = "section"


def build(cls: type[T], values: Any) -> T:
    """Settings from what a YAML file holds.

    Raises:
        ValueError: a key is unknown or missing, or a value is wrong; the message names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__} must be a mapping, got {values!r}")
    try:
        # As JSON, in which lists are all there is: a strict tuple takes no Python list.
        made: T = pydantic.TypeAdapter(cls).validate_json(json.dumps(_without_nulls(cls, values), default=str))
    except pydantic.ValidationError as error:
        raise ValueError(_sentence(cls, error.errors()[0])) from None
    return made


def _without_nulls(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the nulls that are no values."""
    hints = typing.get_type_hints(cls, include_extras=True)
    kept = {}
    for name, value in values.items():
        marks = getattr(hints.get(name), "__metadata__", ())
        inner = getattr(hints.get(name), "__origin__", hints.get(name))
        if value is None and SECTION in marks:
            continue
        if ENTRIES in marks and isinstance(value, Mapping):
            value = {key: one for key, one in value.items() if one is not None}
        elif dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            value = _without_nulls(inner, value)
        kept[name] = value
    return kept


def _sentence(cls: type[Any], error: Mapping[str, Any]) -> str:
    place = [str(part) for part in error["loc"] if not str(part).startswith("function-")]
    name, kind, found = ".".join(place), error["type"], error.get("input")
    if kind == "missing":
        return f"{name} is missing"
    if kind == "unexpected_keyword_argument":
        known = _fields(cls, place[:-1])
        close = difflib.get_close_matches(place[-1], known, n=1)
        return f"{name} is no key of a recipe" + (
            f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
        )
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        if message.startswith("must "):
            return f"{name} {message}"
        return message if not name or name in message else f"{name}: {message}"
    rule = error["msg"].replace("Input should be", "must be").replace("valid ", "")
    for theirs, ours in (("an object", "a mapping"), ("array", "list"), ("a integer", "an integer")):
        rule = rule.replace(theirs, ours)
    return f"{name} {rule}, got {found!r}"


def _fields(cls: Any, place: Sequence[str]) -> list[str]:
    """The names of the settings at a place, as pydantic's schema has them."""
    schema = pydantic.TypeAdapter(cls).json_schema()
    node = schema
    for part in place:
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        node = next((one for one in node.get("anyOf", ()) if one.get("type") != "null"), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return list(node.get("properties", ()))
