"""What a build computes, as operators: one set for the CPU, one for a device, with the same results, bit for bit.

`lateint` has one builder, which says what is done with them. Tokens, rows of bytes and ids that pass from one operator
to the next are numpy arrays here and tensors there; whatever is random, or goes to a file, is on the host.

Tokens of a source are where it has them: on the host, or, for a device, in tensors on devices of its kind. Both can be
sliced and indexed with numpy arrays of integers, and only a chunk at a time, or what is picked from it, is `put`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.arrays import Array, as_array, to_float32
from lateint_kernels.codes import centroids, residual
from lateint_kernels.devices import HOST, Place
from lateint_kernels.ragged import bad_rows


class Operators(Protocol):
    """Those of one place."""

    def chunks(self, dim: int) -> int:
        """How many of the builder's chunks of tokens, of ``dim`` components, are encoded at a time."""

    def check(self, *, dim: int, centroids: int, sample: int, segment_tokens: int, segment_documents: int) -> None:
        """Raises MemoryError where a build with such a sample, and such a largest segment, does not fit."""

    def release(self) -> None:
        """Gives back what memory is kept for reuse."""

    def tokens(self, x: Any, name: str) -> Any:
        """``x`` as tokens of a source, under the rules, and with the errors, of `lateint_kernels.as_array`.

        What is on a device that the operators can read from stays there, and is not copied.
        """

    def room(self, n: int, like: Any) -> Any:
        """Tokens ``[n, dim]`` to be filled, of the dim and dtype of tokens ``like``, and next to them."""

    def to_float32(self, tokens: Any) -> Any:
        """Tokens of a source as float32, where the operators compute: what tokens of any two sources can become."""

    def put(self, tokens: Any) -> Any:
        """Tokens of a source where the operators compute, as they take them."""

    def bad_rows(self, tokens: Any) -> tuple[int | None, int | None]:
        """The first row that holds a NaN or an infinity, and the first that is all zero, of tokens that were `put`."""

    def empty(self, n: int, width: int) -> Any:
        """Rows of bytes for n tokens of ``width`` components, to be filled."""

    def rotation(
        self, mean: NDArray[np.float32], blocks: NDArray[np.float32], permutation: NDArray[np.int32], step: float
    ) -> Callable[[Any], Any]:
        """`lateint_kernels.codes.residual.rotate` as a function of tokens ``[n, dim]`` that were `put`."""

    def to_bytes(self, scaled: Any) -> Any:
        """Rotated tokens ``[n, width]`` as rows ``[n, depth]``, see `lateint_kernels.codes.residual.to_bytes`."""

    def peaks(self, rows: Any, scaled: Any, least: float) -> NDArray[np.float32]:
        """The largest component of each token that has one larger than ``least`` (at least 128); no order."""

    def assigner(
        self, rows: Any, cells: Any, cell_offsets: NDArray[np.int64], subcells: centroids.Subcells | None
    ) -> Callable[[Any, int], Any]:
        """`lateint_kernels.codes.centroids.Assigner.nearest` as a function of rows and how many cells to look into."""

    def take(self, rows: Any, index: NDArray[np.int64]) -> Any:
        """``rows[index]``."""

    def sort(self, rows: Any, ids: Any, count: int) -> tuple[Any, NDArray[np.int64]]:
        """Rows by id, in their order where ids are equal, and how many there are of each of ``count`` ids."""

    def means(self, rows: Any, ids: Any, count: int, others: Callable[[int], NDArray[np.int64]]) -> Any:
        """``[count, depth]``: the mean of the rows of each id, rounded half up.

        Where there is none, ``rows[others(n)]`` for all n such ids together.
        """

    def encode(self, scaled: Any, ids: Any, rows: Any, nbits: int) -> tuple[Any, Any]:
        """`lateint_kernels.codes.residual.encode` with centroids ``rows``."""

    def invert(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """`lateint_kernels.codes.centroids.invert`, from the host to the host."""

    def rows(self, array: NDArray[np.uint8]) -> Any:
        """Rows of bytes as they are stored, where the operators compute."""

    def host(self, array: Any) -> NDArray[Any]:
        """Rows, ids, codes or scales as numpy arrays: ids are uint32, everything else uint8 as it is stored."""


def operators(place: Place = HOST, threads: int = 0) -> Operators:
    """Those of a place, of several devices those of the first; ``threads`` are the CPU's."""
    if place.on_host:
        return HostOperators(threads)
    from lateint_kernels.codes.device.building import DeviceOperators

    return DeviceOperators(place.devices[0])


class HostOperators:
    """`Operators` of compiled kernels: rows are uint8, ids uint32."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def chunks(self, dim: int) -> int:
        """One: its arrays stay in caches."""
        return 1

    def check(self, **sizes: int) -> None:
        """Nothing: who minds gives a ``max_ram``."""

    def release(self) -> None:
        """Nothing."""

    def tokens(self, x: Any, name: str) -> Array:
        return as_array(x, name)

    def room(self, n: int, like: Array) -> Array:
        return np.empty((n, like.shape[1]), like.dtype)

    def to_float32(self, tokens: Array) -> NDArray[np.float32]:
        return to_float32(tokens)

    def put(self, tokens: Array) -> Array:
        return np.ascontiguousarray(tokens)

    def bad_rows(self, tokens: Array) -> tuple[int | None, int | None]:
        return bad_rows(tokens, "tokens", threads=self._threads)

    def empty(self, n: int, width: int) -> NDArray[np.uint8]:
        return np.empty((n, residual.depth_of(width)), np.uint8)

    def rotation(
        self, mean: NDArray[np.float32], blocks: NDArray[np.float32], permutation: NDArray[np.int32], step: float
    ) -> Callable[[Array], NDArray[np.float32]]:
        return partial(
            residual.rotate, mean=mean, rotation=blocks, permutation=permutation, step=step, threads=self._threads
        )

    def to_bytes(self, scaled: NDArray[np.float32]) -> NDArray[np.uint8]:
        return residual.to_bytes(scaled, threads=self._threads)

    def peaks(self, rows: NDArray[np.uint8], scaled: NDArray[np.float32], least: float) -> NDArray[np.float32]:
        peaks = residual.peaks(rows, scaled, threads=self._threads)
        return peaks[peaks > least]

    def assigner(
        self,
        rows: NDArray[np.uint8],
        cells: NDArray[np.uint8],
        cell_offsets: NDArray[np.int64],
        subcells: centroids.Subcells | None,
    ) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint32]]:
        assigner = centroids.Assigner(rows, cells, cell_offsets, subcells=subcells, threads=self._threads)
        return lambda tokens, searched: assigner.nearest(tokens, cells=searched, threads=self._threads)

    def take(self, rows: NDArray[np.uint8], index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return rows[index]

    def sort(
        self, rows: NDArray[np.uint8], ids: NDArray[np.uint32], count: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return np.ascontiguousarray(rows[np.argsort(ids, kind="stable")]), np.bincount(ids, minlength=count)

    def means(
        self,
        rows: NDArray[np.uint8],
        ids: NDArray[np.uint32],
        count: int,
        others: Callable[[int], NDArray[np.int64]],
    ) -> NDArray[np.uint8]:
        means, members = centroids.cluster_means(rows, ids, count, threads=self._threads)
        empty = np.flatnonzero(members == 0)
        if empty.size:
            means[empty] = rows[others(empty.size)]
        return means

    def encode(
        self, scaled: NDArray[np.float32], ids: NDArray[np.uint32], rows: NDArray[np.uint8], nbits: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return residual.encode(scaled, ids, rows, nbits, threads=self._threads)

    def invert(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        return centroids.invert(ids, offsets, count)

    def rows(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return array

    def host(self, array: NDArray[Any]) -> NDArray[Any]:
        return array
