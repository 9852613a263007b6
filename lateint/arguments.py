"""Settings as users pass them: each is refused in one sentence that names it."""

from __future__ import annotations

import operator
from typing import Any

MOST_THREADS = 4096  # as LATEINT_NUM_THREADS


def integer(value: Any, name: str) -> int:
    """An integer of Python, whoever's ``value`` is; but True and False are none."""
    try:
        if not isinstance(value, bool):
            return int(operator.index(value))
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer, got {type(value).__name__}")


def positive(value: Any, name: str) -> int:
    number = integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def positive_or_none(value: Any, name: str) -> int | None:
    return None if value is None else positive(value, name)


def thread_count(threads: int | None) -> int:
    """0 stands for the default of the kernels."""
    if threads is None:
        return 0
    if (count := positive(threads, "threads")) > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {count}")
    return count
