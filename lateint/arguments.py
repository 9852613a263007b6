"""Settings as users pass them: each is refused in one sentence that names it."""

from __future__ import annotations

import operator
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
