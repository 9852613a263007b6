"""Which documents a search may find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Selection:
    """All documents of an index that are not deleted, or a subset of them. What takes long is kept.

    Attributes:
        offsets: of the tokens of each segment, ``[n + 1]``.
        live: ``[N]``, zero where a document is deleted; None: none is.
        chosen: ``[N]``, one where a document is in the subset, which holds none that is deleted; None: all of those.
        whole: what it is a subset of: all documents that are not deleted; None: it is that itself.
    """

    offsets: Sequence[NDArray[np.int64]]
    live: NDArray[np.uint8] | None = None
    chosen: NDArray[np.uint8] | None = None
    whole: Selection | None = None

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """``[N]``, nonzero where a document may be found; None: all of them may."""
        return self.live if self.chosen is None else self.chosen

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Of the documents that may be found, ascending."""
        return np.arange(self._all) if self.mask is None else np.flatnonzero(self.mask)

    @cached_property
    def documents(self) -> int:
        """How many may be found."""
        return self._all if self.mask is None else int(np.count_nonzero(self.mask))

    @cached_property
    def share(self) -> float:
        """How many of the documents that are not deleted are selected."""
        return 1.0 if self.whole is None else self.documents / max(1, self.whole.documents)

    @cached_property
    def tokens(self) -> int:
        """Of the documents that may be found, as far as offsets are what they should be."""
        first = total = 0
        for offsets in self.offsets:
            last = first + len(offsets) - 1
            if self.mask is None:
                total += int(offsets[-1])
            else:
                some = np.flatnonzero(self.mask[first:last])
                total += int((offsets[some + 1] - offsets[some]).sum())
            first = last
        return total

    @cached_property
    def findable(self) -> int:
        """How many documents a search can find: those that have tokens."""
        filled = np.concatenate([np.empty(0, bool), *(np.diff(offsets) > 0 for offsets in self.offsets)])
        return int(np.count_nonzero(filled if self.mask is None else filled & (self.mask != 0)))

    @property
    def _all(self) -> int:
        return sum(len(offsets) - 1 for offsets in self.offsets)

    def among(self, other: Selection) -> Selection:
        """What is selected here and there."""
        if self.chosen is None or other.chosen is None:
            return other if self.chosen is None else self
        return Selection(self.offsets, self.live, self.chosen & other.chosen, self.whole)


def by_query(subset: Any, queries: int | None) -> list[tuple[Any, list[int]]] | None:
    """The different subsets in a list of one for each query, with the numbers of their queries; None: it is one subset.

    Args:
        queries: how many; None: it is one without a batch around it.

    Raises:
        ValueError: there are more or fewer subsets than queries.
    """
    rows = getattr(subset, "ndim", 1) == 2
    if not rows and (not isinstance(subset, (list, tuple)) or not subset or isinstance(subset[0], _IDS)):
        return None
    each = list(subset)
    if queries is None:
        raise ValueError(f"subset must be ids or a mask for one query, got a list of {len(each)} subsets")
    if len(each) != queries:
        raise ValueError(
            f"subset must be one for all queries, or a list with one for each, got {len(each)} for {queries} queries"
        )
    numbers: dict[int, list[int]] = {}
    for number, one in enumerate(each):
        numbers.setdefault(id(one), []).append(number)
    return [(each[those[0]], those) for those in numbers.values()]


_IDS = (int, float, str, bytes, np.generic)  # or what somebody might take for one
