"""Queries as users hand them over, as one run of float32 tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import booleans
from lateint_kernels import Ragged, _cpu, as_array, to_float32
from lateint_kernels.arrays import Array

# Which of the two an array or a tensor is depends on its dimensions, which its type need not tell.
OneQuery: TypeAlias = "str | np.ndarray[tuple[int, int], Any]"
ManyQueries: TypeAlias = (
    "list[str] | tuple[str, ...] | Sequence[NDArray[Any]] | np.ndarray[tuple[int, int, int], Any] | Ragged"
)

LARGEST = 1e18  # scores stay inside float32: documents are smaller
LONGEST = 1 << 16


@dataclass(frozen=True, eq=False)
class Queries:
    """Query i is ``tokens[offsets[i]:offsets[i + 1]]``.

    Attributes:
        tokens: ``[T, dim]`` float32.
        offsets: ``[n + 1]``.
        single: whether it is one query that came without a batch around it.
    """

    tokens: NDArray[np.float32]
    offsets: NDArray[np.int64]
    single: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def some(self, numbers: Iterable[int]) -> Queries:
        """A batch of a few of them."""
        tokens, offsets, _ = _cpu.packed([self[number] for number in numbers], LARGEST)
        return Queries(tokens, offsets, single=False)


def read(Q: Any, dim: int, mask: Any = None) -> Queries:
    """One query ``[Lq, dim]`` or a batch (``[Nq, Lq, dim]``, a list of ``[Lq, dim]``, a `Ragged`), checked.

    Args:
        mask: ``[Lq]``, ``[Nq, Lq]`` or a list of ``[Lq]``, nonzero where a token counts; None: all do.

    Raises:
        TypeError: a dtype is no float type.
        ValueError: a shape does not fit, a query has no tokens or too many, or a number is too large or not finite.
    """
    single = False
    if isinstance(Q, Ragged):
        arrays = list(Q)
    elif isinstance(Q, (list, tuple)) and len(Q) and getattr(Q[0], "ndim", None) == 2:
        arrays = [as_array(query, f"query {i}") for i, query in enumerate(Q)]
    else:
        array = as_array(Q, "Q")
        if array.ndim not in (2, 3):
            raise ValueError(f"Q must be [Lq, {dim}] or [Nq, Lq, {dim}], got {array.shape}")
        single = array.ndim == 2
        arrays = [array] if single else list(array)
    if mask is not None:
        arrays = _masked(arrays, mask, single)
    for i, array in enumerate(arrays):
        if array.dtype == np.int8:
            raise TypeError("Q must be float32, float16, bfloat16 or float64, got int8")
        if array.ndim != 2 or array.shape[1] != dim:
            raise ValueError(f"Q must be [Lq, {dim}], but query {i} is {array.shape}")
        if len(array) == 0:
            raise ValueError(f"Q must hold at least one token, but query {i} has none")
        if len(array) > LONGEST:
            raise ValueError(f"Q must hold at most {LONGEST:,} tokens a query, but query {i} has {len(array):,}")
    if not arrays:
        return Queries(np.empty((0, dim), np.float32), np.zeros(1, np.int64), single)
    tokens, offsets, fine = _cpu.packed([to_float32(array) for array in arrays], LARGEST)
    queries = Queries(tokens, offsets, single)
    if not fine:
        _refuse_numbers(queries)
    return queries


def _masked(arrays: list[Array], mask: Any, single: bool) -> list[Array]:
    masks = [mask] if single else list(mask)
    if len(masks) != len(arrays):
        raise ValueError(f"mask must have one row for each query, got {len(masks)} for {len(arrays)} queries")
    return [array[booleans(one, array.shape[:1])] for array, one in zip(arrays, masks, strict=True)]


def _refuse_numbers(queries: Queries) -> None:
    fine = np.abs(queries.tokens) <= LARGEST  # a NaN is not
    row = int(np.argmin(fine.all(1)))
    query = int(np.searchsorted(queries.offsets, row, side="right")) - 1
    where = f"token {row - queries.offsets[query]}" + ("" if queries.single else f" of query {query}")
    value = float(queries.tokens[row][~fine[row]][0])
    raise ValueError(f"Q must hold numbers up to {LARGEST:g}, but {where} holds {value:.6g}")
