"""Integers as users give them, numpy's and torch's too: each is refused in one sentence that names it."""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.arrays import unmasked


def integer(value: Any, name: str) -> int:
    """Python's own; a bool is none.

    >>> integer(np.int64(3), "k")
    3
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def positive(value: Any, name: str) -> int:
    """An integer from 1.

    >>> positive(3, "k")
    3
    """
    number = integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def integers(values: Any, name: str) -> NDArray[np.int64]:
    """A list of them, ``[n]`` on the host; an empty one may have any dtype.

    >>> integers([2, 0, 1], "lengths").tolist()
    [2, 0, 1]
    """
    array = unmasked(values.detach().cpu() if hasattr(values, "cpu") else values, name)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a list of integers, got {array.dtype} {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be below 2^63, got {array.max()} at {array.argmax()}")
    return np.ascontiguousarray(array, dtype=np.int64)
