"""Some documents of others: of those that are given, or of those that are there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.changing import compaction
from lateint.indexing.documents import Documents
from lateint.state import State


class Kept:
    """Documents of a state, by the numbers of their segments and their rows there."""

    def __init__(self, state: State, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._parts, self._numbers, self._rows = state.parts, numbers, rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Their tokens."""
        found = np.empty(len(self._rows), np.int64)
        for number in np.unique(self._numbers).tolist():
            here = self._numbers == number
            found[here] = self._parts[number].lengths[self._rows[here]]
        return found

    def pieces(self, first: int, last: int) -> list[compaction.Piece]:
        """Some of them, which are neighbours here, as runs of neighbours in their segments."""
        return compaction.runs_of(self._parts, self._numbers[first:last], self._rows[first:last])


class Some:
    """Some documents of others."""

    def __init__(self, documents: Documents, which: NDArray[np.int64]) -> None:
        self._documents, self.dim = documents, documents.dim
        self._wanted = np.zeros(len(documents.lengths), bool)
        self._wanted[which] = True
        self.lengths = documents.lengths[which]

    def chunks(self, most: int) -> Iterator[Any]:
        """Their tokens."""
        wanted, at = np.repeat(self._wanted, self._documents.lengths), 0
        for chunk in self._documents.chunks(most):
            part = chunk[wanted[at : at + len(chunk)]]
            at += len(chunk)
            if len(part):
                yield part

    def pilot(self, most: int) -> Any:
        """Not of use here: nothing is learned from them."""
        raise NotImplementedError
