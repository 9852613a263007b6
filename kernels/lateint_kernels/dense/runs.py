"""Runs of tokens that are clustered together, as every backend is given them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 2048  # of longer documents so many tokens are clustered at a time
FAR = float(np.finfo(np.float64).max)  # what a cost counts as that is infinite or not a number


@dataclass(frozen=True, eq=False)
class Runs:
    """Which tokens are clustered together, and into how many clusters; known to the host.

    Args:
        cuts: ``[n + 1]`` int64; run i has the tokens ``cuts[i]`` to ``cuts[i + 1]``.
        counts: ``[n]`` int64, clusters of each, from 1 (0 for no token) to its tokens.
        cosine: tokens are ``1 - <a, b>`` apart instead of ``|a - b|``.
    """

    cuts: NDArray[np.int64]
    counts: NDArray[np.int64]
    cosine: bool = False

    @property
    def total(self) -> int:
        """How many clusters there are."""
        return int(self.counts.sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest run, 0 if there is none."""
        return int(np.diff(self.cuts).max(initial=0))

    def merging(self) -> NDArray[np.int64]:
        """First token, length and clusters of the runs in which tokens are merged, ``[3, m]``, the longest first."""
        found = np.stack([self.cuts[:-1], np.diff(self.cuts), self.counts])
        found = found[:, found[2] < found[1]]
        return np.ascontiguousarray(found[:, np.argsort(-found[1], kind="stable")])

    def numbered(self, within: NDArray[np.int64]) -> NDArray[np.int64]:
        """``[T]``: which cluster of all a token is in that is in one of its run."""
        return within + np.repeat(np.cumsum(self.counts) - self.counts, np.diff(self.cuts))

    @staticmethod
    def of_documents(offsets: NDArray[np.int64], factor: int, protected: int) -> tuple[Runs, NDArray[np.int64]]:
        """Those of documents of which one token of ``factor`` remains, and how many remain of each document, ``[n]``.

        A protected token is a run of its own.
        """
        run = LONGEST // factor * factor
        cuts: list[int] = [0]
        counts, kept = [], []  # of runs, and of documents
        for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            start = min(first + protected, last)
            ends = [*range(first + 1, start + 1), *range(start + run, last, run), *([last] if last > start else [])]
            before = cuts[-1:] + ends[:-1]
            sizes = [-(-(end - begin) // factor) for begin, end in zip(before, ends, strict=False)]
            cuts += ends
            counts += sizes
            kept.append(sum(sizes))
        return Runs(np.array(cuts, np.int64), np.array(counts, np.int64)), np.array(kept, np.int64)


def blocks(merging: NDArray[np.int64], budget: int, dim: int = 0) -> list[tuple[int, int]]:
    """Which runs of `Runs.merging` have together at most ``budget`` costs, and components of tokens of ``dim``.

    All have as many as the longest of them.

    >>> blocks(np.array([[0, 9, 3], [6, 4, 3], [2, 2, 1]]), 72)
    [(0, 2), (2, 3)]
    """
    found, first, lengths = [], 0, merging[1].tolist()
    while first < len(lengths):
        last = min(len(lengths), first + max(1, budget // (lengths[first] * max(lengths[first], dim))))
        found.append((first, last))
        first = last
    return found


def by_first_tokens(heads: Tensor) -> Tensor:
    """The clusters ``[T]`` of tokens, 0, 1, ... as their first tokens come, from those first tokens ``[T]``."""
    import torch

    first = heads == torch.arange(len(heads), device=heads.device)
    return (first.cumsum(0) - 1)[heads]
