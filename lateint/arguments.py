"""Settings as users pass them: each is refused in one sentence that names it."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def fraction(value: Any, name: str) -> float:
    """A number above 0 and below 1, whoever's it is."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be above 0 and below 1, got {number:g}")
    return number


def ascending(values: Any, name: str) -> list[int]:
    """Integers from 1, or one of them, each once and in order."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        return [positive(values, name)]
    found = sorted({positive(value, name) for value in values})
    if not found:
        raise ValueError(f"{name} must hold at least one number, got none")
    return found


def alone(name: str, **others: Any) -> None:
    """Refuses an argument beside others that say the same, which are None where they are not given."""
    if given := [other for other, value in others.items() if value is not None]:
        raise ValueError(f"{name} stands for {' and '.join(given)}; give one or the other")


def positive_or_none(value: Any, name: str) -> int | None:
    return None if value is None else positive(value, name)


def thread_count(threads: int | None) -> int:
    """0 stands for the default of the kernels."""
    if threads is None:
        return 0
    if (count := positive(threads, "threads")) > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {count}")
    return count


def booleans(mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask as an array of this shape: booleans, or integers that are 0 or 1, of numpy, torch or lists.

    Raises:
        TypeError, ValueError: it is of another kind or shape, or holds other numbers.
    """
    found = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask)
    if found.dtype.kind not in "biu":
        raise TypeError(f"mask must hold booleans or integers, got {found.dtype}")
    if found.shape != tuple(shape):
        raise ValueError(f"mask must be {list(shape)} as the tokens are, got {list(found.shape)}")
    if found.dtype.kind != "b" and found.size and (found.min() < 0 or found.max() > 1):
        raise ValueError(f"mask must hold 0 and 1 only, got {found.min()} to {found.max()}")
    return found.astype(bool)
