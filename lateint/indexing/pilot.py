"""Tokens that a build learns mean and step from, spread over all documents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = Any  # as in `lateint.indexing.documents`

FEW, FEW_TOKENS = 64, 1 << 16  # of so few items of a stream, so many tokens are kept


class Pilot:
    """Tokens of a stream that are kept as it passes, for `pilot`: 64 of an item, and more where items are few."""

    def __init__(self) -> None:
        self.items, self.stride = 0, 1
        self._many: list[Tokens] = []  # of every `stride`-th item
        self._few: list[Tokens] = []  # of each, as long as there are at most FEW

    def add(self, tokens: Tokens) -> None:
        """An item of the stream, whose memory may be used again."""
        if len(tokens) == 0:
            return
        if self.items % self.stride == 0:
            self._many.append(tokens[spread(len(tokens), 64)])
        if len(self._many) == 4096:
            self._many, self.stride = self._many[::2], 2 * self.stride
        self.items += 1
        most = FEW_TOKENS >> (self.items - 1).bit_length()
        if (self.items - 1).bit_count() == 1:  # then `most` is half of what it was
            self._few = [part[spread(len(part), most)] for part in self._few]
        if self.items <= FEW:
            self._few.append(tokens[spread(len(tokens), most)])
        else:
            self._few.clear()

    @property
    def parts(self) -> list[Tokens]:
        """The tokens, in their order."""
        return self._few or self._many


def spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of n rows, evenly spread."""
    return np.linspace(0, n - 1, min(most, n)).astype(np.int64)
