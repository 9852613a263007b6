"""BM25 and inner products of sparse vectors over segments of postings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText

K1, B = 1.2, 0.75

Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
Terms = Mapping[bytes, float]  # of a query, in UTF-8, and how often it has each, or with what weight


class Statistics(NamedTuple):
    """What scores depend on besides a document.

    Attributes:
        texts: live documents that have terms.
        length: how many terms they have, repeated ones included.
        frequencies: how many of them have each term of a query.
    """

    texts: int
    length: int
    frequencies: dict[bytes, int]


class PostingsEngine:
    """Finds documents by their terms; positions count documents over the segments in order."""

    _engine: _cpu.TextEngine | _cpu.SparseEngine

    def search(
        self, queries: Sequence[Terms], k: int, *, allowed: NDArray[np.uint8] | None = None, threads: int = 0
    ) -> list[Ranking]:
        """The k best documents of each query that have one of its terms at least, by score, ties by position.

        Args:
            queries: terms, and how often a query has each, or with what weight.
            allowed: ``[N]``, nonzero where a document may be found; None: where it is live.
            threads: how many to use at most, each for a query at a time; 0 for the default.
        """
        rankings: list[Ranking] = self._engine.search([sorted(terms.items()) for terms in queries], k, allowed, threads)
        return rankings

    def score(self, terms: Terms, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of the documents at ``positions``; 0 for one that has no term of the query."""
        return self._engine.score(sorted(terms.items()), positions)


class TextEngine(PostingsEngine):
    """Finds documents by BM25; positions count documents over the segments in order.

    Scores are those of `lateint_kernels.reference.bm25`, over live documents, rounded to float32. Integer sums find
    the candidates, float64 decides, so results are the same bits on any machine, number of threads and cut into
    segments. Any number of threads may search at once.

    Arrays may be memory maps of files that somebody else made. What they hold is checked when it is read: no number in
    them makes the engine read or write out of range.

    Args:
        segments: postings.
        live: ``[N]``, zero where a document is deleted; None: none is.
        k1, b: how soon a term that is repeated says nothing new, and how much long documents are held back.

    Raises:
        TypeError: an array is of another type than its field says.
        ValueError: ``live`` has another length, or ``k1`` or ``b`` is out of range.
        RuntimeError: an array is damaged. Contents are noticed by whichever call reads the damaged part.
    """

    _engine: _cpu.TextEngine

    def __init__(
        self,
        segments: Sequence[SegmentText],
        live: NDArray[np.uint8] | None = None,
        *,
        k1: float = K1,
        b: float = B,
    ) -> None:
        self._engine = _cpu.TextEngine(segments, k1, b, live)

    def statistics(self, terms: Terms) -> Statistics:
        """What the scores of a query depend on."""
        texts, length, frequencies = self._engine.statistics(sorted(terms.items()))
        return Statistics(texts, length, dict(zip(sorted(terms), frequencies.tolist(), strict=True)))


class SparseEngine(PostingsEngine):
    """Finds documents by inner products of sparse vectors, `lateint_kernels.reference.sparse_product`, in float64 and
    rounded to float32.

    What `TextEngine` says of bits, threads and arrays of strangers holds here, too.

    Args:
        segments, live: as in `TextEngine`.

    Raises:
        TypeError, ValueError, RuntimeError: as `TextEngine`.
    """

    def __init__(self, segments: Sequence[SegmentSparse], live: NDArray[np.uint8] | None = None) -> None:
        self._engine = _cpu.SparseEngine(segments, live)
