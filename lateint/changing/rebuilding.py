"""A new codec for what an index holds, and how much is lost where its own codes are all that is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.indexing.codec import Codec
from lateint.state import Part, State
from lateint_kernels.codes import residual

MEASURED = 4096  # tokens whose error is measured


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild has changed.

    Attributes:
        from_codes: whether the tokens came from the index's own codes, so that their errors add up.
        error: how far the new codes are from the tokens that they were made of, on average, over the tokens' lengths.
            From codes, that is what was lost once more.
        centroids: how many there were, and how many there are.
    """

    from_codes: bool
    error: float
    centroids: tuple[int, int]


class Decoded:
    """The documents of a state that are not deleted, as their codes remember them."""

    def __init__(self, state: State, codec: Codec) -> None:
        self._state, self._codec, self.dim = state, codec, codec.dim
        lengths = [part.lengths if part.live is None else part.lengths[part.live != 0] for part in state.parts]
        self.lengths: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *lengths])

    def chunks(self, most: int) -> Iterator[NDArray[np.float32]]:
        """Their tokens, ``[at most `most`, dim]`` at a time."""
        held: list[NDArray[np.float32]] = []
        for part, rows in self._rows():
            for first in range(0, len(rows), most):
                held.append(decoded(part, rows[first : first + most], self._codec))
                if sum(map(len, held)) >= most:
                    tokens = np.concatenate(held)
                    yield tokens[:most]
                    held = [tokens[most:]]
        tokens = np.concatenate([np.empty((0, self.dim), np.float32), *held])
        if len(tokens):
            yield tokens

    def pilot(self, most: int) -> NDArray[np.float32]:
        """About ``most`` tokens, evenly spread."""
        total = int(self.lengths.sum())
        step = max(1, total // most)
        found = [decoded(part, rows[::step], self._codec) for part, rows in self._rows()]
        return np.concatenate(found)[:most]

    def _rows(self) -> Iterator[tuple[Part, NDArray[np.int64]]]:
        """Of each segment: the tokens of documents that are not deleted."""
        for part in self._state.parts:
            live = np.ones(part.entry.documents, bool) if part.live is None else part.live != 0
            yield part, np.flatnonzero(np.repeat(live, part.lengths))


def decoded(part: Part, rows: NDArray[np.int64], codec: Codec) -> NDArray[np.float32]:
    """Tokens of a segment on the original scale."""
    arrays = part.arrays
    ids = np.minimum(part.centroid_ids(rows), np.uint32(len(codec.centroids) - 1))
    scales = None if arrays.scales is None else arrays.scales[rows]
    bytes_ = residual.decode(arrays.codes[rows], scales, ids, codec.centroids.rows, codec.nbits, codec.rotation.width)
    return codec.rotation.invert(bytes_)


def error(documents: Any, state: State, codec: Codec) -> float:
    """Of the first tokens of documents in a state that holds just these."""
    tokens = np.asarray(next(iter(documents.chunks(MEASURED))), np.float32)
    found = [np.empty((0, codec.dim), np.float32)]
    for part in state.parts:
        rows = np.arange(min(part.entry.tokens, len(tokens) - sum(map(len, found))))
        found.append(decoded(part, rows, codec))
    apart = np.linalg.norm(tokens - np.concatenate(found), axis=1)
    return float((apart / np.linalg.norm(tokens, axis=1)).mean())
