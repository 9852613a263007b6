"""Which documents a search may find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Selection:
    """All documents of an index that are not deleted, or a subset of them.

    Attributes:
        offsets: of the tokens of each segment, ``[n + 1]``.
        live: ``[N]``, zero where a document is deleted; None: none is.
        subset: positions of documents that are not deleted, ascending; None: all of those.
    """

    offsets: Sequence[NDArray[np.int64]]
    live: NDArray[np.uint8] | None = None
    subset: NDArray[np.int64] | None = None

    @cached_property
    def mask(self) -> NDArray[np.uint8] | None:
        """``[N]``, nonzero where a document may be found; None: all of them may."""
        if self.subset is None:
            return self.live
        mask = np.zeros(self._documents, np.uint8)
        mask[self.subset] = 1
        return mask

    @property
    def share(self) -> float:
        """How many of the documents that are not deleted are selected."""
        if self.subset is None:
            return 1.0
        return len(self.subset) / (self._documents if self.live is None else np.count_nonzero(self.live))

    @cached_property
    def findable(self) -> int:
        """How many documents a search can find: those that have tokens."""
        filled = np.concatenate([np.empty(0, bool), *(np.diff(offsets) > 0 for offsets in self.offsets)])
        return int(np.count_nonzero(filled if self.mask is None else filled & (self.mask != 0)))

    @property
    def _documents(self) -> int:
        return sum(len(offsets) - 1 for offsets in self.offsets)
