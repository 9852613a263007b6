"""Encoders for what is added to an index, kept from one change to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.indexing import clustering
from lateint.indexing.codec import Codec
from lateint.indexing.encoding import Encoder
from lateint.timings import Timings
from lateint_kernels.codes.building import HostOperators

MEASURED = 4096  # tokens of an add whose distance to their centroids is measured


class Encoders:
    """Encoders of one codec after the other; what takes long to make is kept."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._codec: Codec | None = None
        self._nearest: Callable[[Any], Any]

    def encoder(self, codec: Codec, residuals: Residuals) -> Encoder:
        """One that measures residuals."""
        operators = HostOperators(self._threads)
        if codec is not self._codec:
            self._nearest = clustering.assigner(codec.centroids, operators)
            self._codec = codec
        return Encoder(codec, operators, Timings(), nearest=self._nearest, measure=residuals.add)


class Residuals:
    """How far the first tokens of a stream are from their centroids."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._sum, self._count = codec, 0.0, 0

    def add(self, rows: NDArray[np.uint8], ids: NDArray[np.uint32]) -> None:
        """Measures some tokens: bytes ``[n, depth]``, centroids ``[n]``."""
        some = min(len(rows), MEASURED - self._count)
        if some > 0:
            apart = rows[:some].astype(np.int32) - self._codec.centroids.rows[ids[:some]]
            self._sum += float(np.sqrt((apart * apart).sum(1)).sum())
            self._count += some

    @property
    def norm(self) -> float | None:
        """On average, on the scale of tokens."""
        return self._codec.rotation.step * self._sum / self._count if self._count else None
