"""Documents of different lengths without padding: all tokens end to end, and where each document starts."""

from collections.abc import Iterable, Iterator
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.arrays import DTYPE_CODES, Array, as_array
from lateint_kernels.integers import integers


@dataclass(frozen=True, eq=False)
class Ragged:
    """n matrices of ``[L_i, dim]`` in one array; checked once, here, so that operators need not.

    Args:
        tokens: ``[T, dim]`` float32, float16, bfloat16 or int8; anything `as_array` takes. A memory map stays one.
        offsets: ``[n + 1]`` integers; matrix i is ``tokens[offsets[i]:offsets[i + 1]]``.
        allow_empty: whether a matrix may have no row.

    Raises:
        TypeError: a dtype is none of these.
        ValueError: offsets do not start at 0, do not end at T, decrease, or leave a matrix empty.

    >>> documents = Ragged.pack([[[1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]])
    >>> len(documents), documents.dim, documents.lengths.tolist()
    (2, 2, [1, 2])
    """

    tokens: Array
    offsets: NDArray[np.int64]
    allow_empty: InitVar[bool] = False
    has_empty: bool = field(init=False, default=False)

    def __post_init__(self, allow_empty: bool) -> None:
        tokens = as_array(self.tokens, "tokens", int8=True)
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens must be [T, dim], got {tokens.shape}")
        offsets = checked_offsets(self.offsets, len(tokens), allow_empty)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "has_empty", bool((offsets[1:] == offsets[:-1]).any()))

    @classmethod
    def pack(cls, matrices: Iterable[object], *, allow_empty: bool = False, name: str = "document") -> "Ragged":
        """Copies a list of ``[L_i, dim]`` arrays end to end; all of one dtype and dim. Errors call one a ``name``."""
        arrays = [as_array(matrix, f"{name} {i}", int8=True) for i, matrix in enumerate(matrices)]
        if not arrays:
            raise ValueError(f"there must be at least one {name} to pack; dim would be unknown")
        first = arrays[0]
        for i, array in enumerate(arrays):
            if array.ndim != 2:
                raise ValueError(f"{name} {i} must be [L, dim], got {array.shape}")
            if array.shape[1] != first.shape[1]:
                raise ValueError(f"{name} {i} has dim {array.shape[1]}, {name} 0 has {first.shape[1]}")
            if array.dtype != first.dtype:
                raise TypeError(f"{name} {i} has {array.dtype}, {name} 0 has {first.dtype}")
            if len(array) == 0 and not allow_empty:
                raise ValueError(f"{name} {i} is empty")
        lengths = [len(array) for array in arrays]
        return cls.from_lengths(np.concatenate(arrays), lengths, allow_empty=allow_empty)

    @classmethod
    def from_lengths(cls, tokens: object, lengths: object, *, allow_empty: bool = False) -> "Ragged":
        """Tokens ``[T, dim]`` that already lie end to end, cut by ``lengths [n]``."""
        array = as_array(tokens, "tokens", int8=True)
        return cls.from_offsets(array, offsets_of(lengths, len(array)), allow_empty=allow_empty)

    @classmethod
    def from_offsets(cls, tokens: object, offsets: object, *, allow_empty: bool = False) -> "Ragged":
        """Tokens ``[T, dim]`` that already lie end to end, cut at ``offsets [n + 1]``."""
        return cls(tokens, offsets, allow_empty)  # type: ignore[arg-type]  # __post_init__ converts

    @classmethod
    def from_padded(cls, array: object, lengths: object = None, *, allow_empty: bool = False) -> "Ragged":
        """The first ``lengths[i]`` rows of each ``array[i]``, or all of them; array is ``[n, L, dim]``."""
        padded = as_array(array, "array", int8=True)
        if padded.ndim != 3:
            raise ValueError(f"array must be [n, L, dim], got {padded.shape}")
        n, length, dim = padded.shape
        if lengths is None:
            return cls.from_lengths(padded.reshape(n * length, dim), np.full(n, length), allow_empty=allow_empty)
        counts = padded_lengths(lengths, n, length)
        tokens = padded[np.arange(length) < counts[:, None]]
        return cls.from_lengths(tokens, counts, allow_empty=allow_empty)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Array:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"index {index} is out of range for {n} matrices")
        index %= n
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[n]``: how many rows each matrix has."""
        return np.diff(self.offsets)

    @property
    def dim(self) -> int:
        """How many numbers a token has."""
        return int(self.tokens.shape[1])

    @property
    def dtype(self) -> "np.dtype[np.generic]":
        """The element type; bfloat16 is `BFLOAT16`."""
        return self.tokens.dtype


def packed_lengths(lengths: object, total: int) -> NDArray[np.int64]:
    """``[n]``: lengths of matrices, empty ones among them, that lie end to end and have ``total`` rows together.

    >>> packed_lengths([2, 0, 1], 3).tolist()
    [2, 0, 1]
    """
    return np.diff(offsets_of(lengths, total))


def offsets_of(lengths: object, total: int) -> NDArray[np.int64]:
    """``[n + 1]``: where matrices of such lengths, empty ones among them, begin and end among ``total`` rows.

    >>> offsets_of([2, 0, 1], 3).tolist()
    [0, 2, 2, 3]
    """
    counts = integers(lengths, "lengths")
    if counts.size and counts.min() < 0:
        raise ValueError(f"lengths must not be negative, got {counts.min()} at {counts.argmin()}")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # A sum that leaves 64 bits is negative somewhere: each of its terms is below 2^63.
    if offsets[-1] != total or offsets.min() < 0 or offsets.max() > total:
        raise ValueError(f"lengths must add up to the number of tokens {total}, got {sum(counts.tolist())}")
    return offsets


def checked_offsets(values: object, total: int, allow_empty: bool = False) -> NDArray[np.int64]:
    """``[n + 1]`` that rise from 0 to ``total``.

    >>> checked_offsets([0, 2, 3], 3).tolist()
    [0, 2, 3]
    """
    offsets = integers(values, "offsets")
    if len(offsets) == 0 or offsets[0] != 0:
        raise ValueError("offsets must start at 0" + (f", got {offsets[0]}" if len(offsets) else ", got none"))
    if offsets[-1] != total:
        raise ValueError(f"offsets must end at the number of tokens {total}, got {offsets[-1]}")
    bad = offsets[1:] < offsets[:-1] if allow_empty else offsets[1:] <= offsets[:-1]
    if bad.any():
        i = int(bad.argmax())
        what = "is empty" if offsets[i] == offsets[i + 1] else "has a negative length"
        raise ValueError(f"document {i} {what}: offsets {offsets[i]}..{offsets[i + 1]}")
    return offsets


def padded_lengths(lengths: object, n: int, length: int) -> NDArray[np.int64]:
    """``[n]``: how many of the ``length`` rows of each matrix count.

    >>> padded_lengths([2, 0, 1], 3, 2).tolist()
    [2, 0, 1]
    """
    counts = integers(lengths, "lengths")
    if counts.shape != (n,) or (n and (counts.min() < 0 or counts.max() > length)):
        raise ValueError(f"lengths must be {n} numbers from 0 to {length}")
    return counts


def check_finite(tokens: object, name: str, *, threads: int | None = None) -> None:
    """Raises ValueError at the first row of ``tokens [T, dim]`` that holds a NaN or an infinity.

    Operators do not look: reading every value costs as much as a memory copy, and doing it once is enough.

    >>> check_finite([[0.0, 1.0], [float("nan"), 0.0]], "tokens")
    Traceback (most recent call last):
    ...
    ValueError: tokens must be finite, but row 1 holds a NaN or an infinity
    """
    row = first_nonfinite_row(tokens, name, threads=threads)
    if row is not None:
        raise ValueError(f"{name} must be finite, but row {row} holds a NaN or an infinity")


def first_nonfinite_row(tokens: object, name: str, *, threads: int | None = None) -> int | None:
    """The first row of ``tokens [T, dim]`` that holds a NaN or an infinity, None if there is none.

    >>> first_nonfinite_row([[0.0, 1.0], [float("inf"), 0.0]], "tokens")
    1
    """
    return bad_rows(tokens, name, threads=threads)[0]


def first_zero_row(tokens: object, name: str, *, threads: int | None = None) -> int | None:
    """The first row of ``tokens [T, dim]`` that is zero everywhere, None if there is none; often an encoder's padding.

    >>> first_zero_row([[0.0, 1.0], [0.0, 0.0]], "tokens")
    1
    """
    return bad_rows(tokens, name, threads=threads)[1]


def bad_rows(tokens: object, name: str, *, threads: int | None = None) -> tuple[int | None, int | None]:
    """`first_nonfinite_row` and `first_zero_row`, in one pass."""
    array = as_array(tokens, name, int8=True)
    if array.ndim != 2:
        raise ValueError(f"{name} must be [T, dim], got {array.shape}")
    nonfinite, zero = _cpu.bad_rows(array, DTYPE_CODES[array.dtype], threads or 0)
    return nonfinite if nonfinite >= 0 else None, zero if zero >= 0 else None
