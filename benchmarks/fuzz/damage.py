"""Damage to the arrays of an index: what a broken disk, another program or an enemy could have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]


def damaged(rng: Generator, array: Array, others: Sequence[Array], *, reshape: bool = True) -> Array:
    """A copy of an array with something wrong in it; of the same dtype.

    Args:
        others: arrays that it may be exchanged for.
        reshape: whether it may become longer or shorter.
    """
    kinds = [_flipped, _odd, _odd, _odd, _random, _reordered, _constant]
    kinds += [_cut, _longer, _exchanged] if reshape else []
    return kinds[rng.integers(len(kinds))](rng, array, others)


def _flipped(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    """Some bits."""
    data = bytearray(array.tobytes())
    for _ in range(rng.integers(1, 9) if data else 0):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return np.frombuffer(bytes(data), array.dtype).reshape(array.shape)


def _odd(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    """A few numbers that are out of range, or nearly."""
    array = array.copy()
    flat = array.reshape(-1)
    for _ in range(rng.integers(1, 5) if flat.size else 0):
        flat[rng.integers(flat.size)] = _number(rng, array)
    return array


def _random(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    """Nothing but noise."""
    return np.frombuffer(rng.bytes(array.nbytes), array.dtype).reshape(array.shape)


def _reordered(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    return array[::-1].copy() if rng.integers(2) else array[rng.permutation(len(array))]


def _constant(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    return np.full_like(array, _number(rng, array))


def _cut(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    return array[: rng.integers(len(array) + 1)].copy()


def _longer(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    return np.concatenate([array, array[: rng.integers(1, 9)]])


def _exchanged(rng: Generator, array: Array, others: Sequence[Array]) -> Array:
    """Another array's numbers."""
    other = others[rng.integers(len(others))]
    numbers = np.frombuffer(other.tobytes()[: other.nbytes // array.itemsize * array.itemsize], array.dtype)
    return numbers.reshape(-1, *array.shape[1:]) if array.ndim == 1 else np.resize(numbers, array.shape)


def _number(rng: Generator, array: Array) -> Any:
    if array.dtype.kind == "f":
        return rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e38, -1e30, 1e-45]).astype(array.dtype)
    info = np.iinfo(array.dtype)
    size = len(array)
    wanted = [0, 1, -1, size - 1, size, size + 1, info.min, info.max, info.max // 2, 255, 2**16, 2**31, 2**32, 2**62]
    return np.array(np.clip(wanted[rng.integers(len(wanted))], int(info.min), int(info.max)), array.dtype)
