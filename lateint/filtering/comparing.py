"""Which values of a column stand in a relation to constants: exact, whatever types the two have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.fields.columns import Column
from lateint.filtering.tree import MANY, ONE, Scalar

Hits: TypeAlias = "NDArray[np.bool_] | None"  # for each value of a column; None: none is hit
FEW = 4  # values that are compared one by one
NUMBERS = ("int64", "float64")


def hits(column: Column, values: Sequence[Scalar], operator: str) -> Hits:
    """Which values of a column stand in this relation to one of ``values``: ``= < <= > >=``."""
    kind = column.key.kind
    same = [one.value for one in values if one.kind == kind or (one.kind in NUMBERS and kind in NUMBERS)]
    if not same:
        return None
    if kind == "string":
        return _of_strings(column, same, operator)
    assert column.values is not None
    if kind == "float64":
        found = [_of_floats(column.values, value, operator) for value in set(same)]
        return reduce(np.logical_or, found)
    ranges = {_range(value, operator) for value in same}
    return _in_ranges(column.values, [(low, high) for low, high in ranges if low <= high])


def equal_to_one(value: Scalar) -> Callable[[Column], Hits]:
    """`hits` of one value."""
    return lambda column: hits(column, [value], "=")


def _range(value: Any, operator: str) -> tuple[float, float]:
    """The integers from the first to the last that stand in this relation to a number."""
    if isinstance(value, float) and math.isinf(value):
        below = value < 0  # all integers are above it
        everything = operator in ((">", ">=") if below else ("<", "<="))
        return (-math.inf, math.inf) if everything else (1, 0)
    floor, ceiling = math.floor(value), math.ceil(value)
    return {
        "=": (floor, floor) if floor == ceiling else (1, 0),
        "<": (-math.inf, ceiling - 1),
        "<=": (-math.inf, floor),
        ">": (floor + 1, math.inf),
        ">=": (ceiling, math.inf),
    }[operator]


def _in_ranges(values: NDArray[Any], ranges: Sequence[tuple[float, float]]) -> Hits:
    """Integers in one of some ranges."""
    least, most = int(np.iinfo(values.dtype).min), int(np.iinfo(values.dtype).max)
    inside = [(low, high) for low, high in ranges if low <= most and high >= least]
    if not inside:
        return None
    if len(inside) > FEW:  # single numbers, for only equality has several
        return np.isin(values, np.array(sorted(int(low) for low, _ in inside), values.dtype))
    return reduce(np.logical_or, (_in_range(values, max(low, least), min(high, most)) for low, high in inside))


def _in_range(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    kind = values.dtype.type
    least, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    if low == high:
        same: NDArray[np.bool_] = values == kind(low)
        return same
    if low <= least:
        below: NDArray[np.bool_] = np.ones(len(values), bool) if high >= most else values <= kind(high)
        return below
    above: NDArray[np.bool_] = values >= kind(low)
    return above if high >= most else np.logical_and(above, values <= kind(high), out=above)


def _of_floats(values: NDArray[np.float64], value: Any, operator: str) -> NDArray[np.bool_]:
    """Floats against a number, exactly: an integer may be none of them."""
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    exact = isinstance(value, float) or (math.isfinite(near) and int(near) == value)
    if not exact:
        if operator == "=":
            return np.zeros(len(values), bool)
        above = near > value  # then no float lies between the two
        operator = ("<" if above else "<=") if operator[0] == "<" else (">=" if above else ">")
    compared: NDArray[np.bool_] = _COMPARE[operator](values, near)
    return compared


_COMPARE: dict[str, Any] = {
    "=": np.equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _of_strings(column: Column, values: Sequence[str], operator: str) -> Hits:
    """Strings are compared byte by byte; the dictionary ascends, so that a relation is a range of codes."""
    assert column.values is not None and column.dictionary_offsets is not None
    many = len(column.dictionary_offsets) - 1
    if operator == "=":
        codes = [code for value in set(values) if (code := _code(column, value)) is not None]
        if len(codes) <= FEW:
            return reduce(np.logical_or, [column.values == code for code in codes]) if codes else None
        return _of_codes(column, np.array(codes))
    (value,) = values
    first, last = first_at(column, value.encode(), after=False), first_at(column, value.encode(), after=True)
    low, high = {"<": (0, first), "<=": (0, last), ">": (last, many), ">=": (first, many)}[operator]
    return None if low >= high else _in_range(column.values, low, high - 1 if high < many else math.inf)


def _code(column: Column, value: str) -> int | None:
    code = first_at(column, value.encode(), after=False)
    assert column.dictionary_offsets is not None
    there = code < len(column.dictionary_offsets) - 1 and _string(column, code) == value.encode()
    return code if there else None


def _string(column: Column, code: int) -> bytes:
    assert column.dictionary_bytes is not None and column.dictionary_offsets is not None
    first, last = column.dictionary_offsets[code : code + 2].tolist()
    return column.dictionary_bytes[first:last].tobytes()


def first_at(column: Column, value: bytes, *, after: bool) -> int:
    """The first code whose string is not before ``value``, or, with ``after``, is behind it."""
    assert column.dictionary_offsets is not None
    low, high = 0, len(column.dictionary_offsets) - 1
    while low < high:
        middle = (low + high) // 2
        string = _string(column, middle)
        if string < value or (after and string == value):
            low = middle + 1
        else:
            high = middle
    return low


def _of_codes(column: Column, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Values with one of these codes."""
    assert column.values is not None and column.dictionary_offsets is not None
    wanted = np.zeros(len(column.dictionary_offsets) - 1, bool)
    wanted[codes] = True
    return wanted[column.values] if len(wanted) else np.zeros(len(column.values), bool)


def matching(column: Column, pattern: Sequence[Any]) -> NDArray[np.bool_]:
    """Which strings match a pattern of `lateint.filtering.tree.Like`."""
    assert column.values is not None and column.dictionary_offsets is not None
    prefix = pattern[0] if pattern and isinstance(pattern[0], str) else ""
    low, high = 0, len(column.dictionary_offsets) - 1
    if prefix:
        low = first_at(column, prefix.encode(), after=False)
        # No UTF-8 has the byte FF, so that it is behind all that begins with the prefix.
        high = first_at(column, prefix.encode() + b"\xff", after=False)
    if len(pattern) == 2 and prefix and pattern[1] is MANY:
        codes = np.arange(low, high)
    else:
        fits = _matcher(pattern)
        try:
            codes = np.array([code for code in range(low, high) if fits(_string(column, code).decode())], np.int64)
        except UnicodeDecodeError as error:
            raise FormatError("field_data must hold strings in UTF-8; the index is damaged") from error
    return _of_codes(column, codes)


def _matcher(pattern: Sequence[Any]) -> Callable[[str], bool]:
    """Whether a string matches, in time that grows with its length times that of the pattern at most.

    The pattern is cut at `MANY`: its first part must be at the front, its last one at the end, and the others are
    looked for from left to right, each where it comes first. That finds a match where there is one.
    """
    parts: list[list[Any]] = [[]]
    for one in pattern:
        if one is MANY:
            parts.append([])
        else:
            parts[-1].append(one)
    compiled = [re.compile("".join("." if one is ONE else re.escape(one) for one in part), re.DOTALL) for part in parts]
    sizes = [sum(1 if one is ONE else len(one) for one in part) for part in parts]
    if len(parts) == 1:
        return lambda string: compiled[0].fullmatch(string) is not None
    first, last, between = compiled[0], compiled[-1], compiled[1:-1]

    def fits(string: str) -> bool:
        end = len(string) - sizes[-1]
        if end < sizes[0] or first.match(string) is None or last.match(string, end) is None:
            return False
        at = sizes[0]
        for part in between:
            found = part.search(string, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    return fits
