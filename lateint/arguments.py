"""Settings as users pass them: each is refused in one sentence that names it."""

from __future__ import annotations

import operator
from typing import Any


def integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def positive(value: Any, name: str) -> int:
    number = integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def positive_or_none(value: Any, name: str) -> int | None:
    return None if value is None else positive(value, name)


def thread_count(threads: int | None) -> int:
    """0 stands for the default of the kernels."""
    return 0 if threads is None else positive(threads, "threads")
