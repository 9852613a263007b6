"""Search on residual codes: centroid probing, candidate scoreboard, exact MaxSim on the codes, top k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays

Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]


class Limits(NamedTuple):
    """How much of an index a search looks at.

    Attributes:
        nprobe: centroids probed for each query token.
        candidates: documents whose codes are scored, chosen by the coarse stage: the score of the best probed centroid
            of a document for each query token, and the score of the ``2 nprobe``-th best centroid where there is none
            (imputation as in XTR, arXiv 2304.01982, and WARP, arXiv 2501.17788).
        patience: candidates are scored best first (in rounds of 32); stop when so many in a row changed nothing among
            the best ``watched``; 0: score them all.
        cells: look for centroids in the best ``cells`` cells of each query token (`Engine.probe`); 0: in all.
        deviations: stop too when a line through coarse and exact scores so far has the next candidate more than so many
            standard deviations below the k-th best score (csrc/codes/stopping.hpp); 0: do not.
        watched: of the best documents, that decide when to stop (k is then their number); 0: k, and never more.
        sampled: of a query with more than 3/2 times as many tokens, so many, evenly spread, find candidates; their
            MaxSim then says in which order the whole query scores them. 0: all tokens find candidates.
        lists: of the probed centroids, the lists of so many a token are read: of all tokens those that gain most, so
            a token that tells documents apart has more of them than one that does not. A list gains what the score of
            its centroid has more than what stands in; all that gain as much as the last one are read. 0: all lists.
    """

    nprobe: int
    candidates: int
    patience: int = 0
    cells: int = 0
    deviations: float = 0.0
    watched: int = 0
    sampled: int = 0
    lists: int = 0

    def first(self, k: int) -> int:
        """Those among which something must change, in a search for the best k."""
        return min(self.watched or k, k)


class Candidates(NamedTuple):
    """What the coarse stage of a search found: positions and coarse scores, best first, and what it cost."""

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    postings: int
    touched: int


def best(scores: Sequence[NDArray[np.float32]], k: int) -> NDArray[np.int64]:
    """Which k of the scores of several shards, laid end to end, are highest, in their order; ties as they lie."""
    return np.argsort(-np.concatenate(scores), kind="stable")[:k]


class Engine:
    """Searches segments of residual codes; positions count documents over the segments in order.

    Scores are ``S(q, d) = sum_i max_j <q_i, x_j>`` with x_j the decoded token and q_i the query token cut to signed
    bytes on a scale of its own (what that costs is measured in docs/design.md). Everything but the last sum is
    integer arithmetic, so results do not depend on the instruction set, threads or batch.

    Arrays may be memory maps of files that somebody else made. What they hold is checked when it is read: no number in
    them makes the engine read or write out of range.

    Args:
        before: an engine with the same codec for some of the same segments, from which it takes over inverted lists
            that were joined (csrc/codes/joined.hpp): searches join those of small neighbours, where that pays.

    Raises:
        TypeError: an array is of another type than its field says.
        RuntimeError: an array is damaged. Segments are noticed by whichever call reads the damaged part.
    """

    def __init__(self, codec: CodecArrays, segments: Sequence[SegmentArrays], *, before: Engine | None = None) -> None:
        self._codec = codec
        self._engine: _cpu.Engine = _cpu.Engine(codec, segments, None if before is None else before._engine)

    def with_segments(self, segments: Sequence[SegmentArrays]) -> Engine:
        """An engine with the same codec for other segments; what was joined of those that stay it has from this one."""
        return Engine(self._codec, segments, before=self)

    @property
    def runs(self) -> int:
        """In how many pieces searches read an inverted list: segments, less those whose lists are joined; for tests."""
        return self._engine.runs()

    def search(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        limits: Limits,
        *,
        allowed: NDArray[np.uint8] | None = None,
        threads: int = 0,
    ) -> list[Ranking]:
        """The k best documents of each query by score, ties by position; documents without tokens never.

        Args:
            queries: ``[T, dim]``; query i is ``queries[offsets[i]:offsets[i + 1]]``.
            limits: how far the search goes.
            allowed: ``[n]``, nonzero where a document may be found.
            threads: how many to use at most; 0 for the default. A device has its own.
        """
        rankings: list[Ranking] = self._engine.search(queries, offsets, k, *limits, allowed, threads)
        return rankings

    def exhaustive(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        threads: int = 0,
    ) -> list[Ranking]:
        """As `search`, but every document is scored."""
        rankings: list[Ranking] = self._engine.search(queries, offsets, k, -1, 0, 0, 0, 0.0, 0, 0, 0, allowed, threads)
        return rankings

    def probe(
        self, queries: NDArray[np.float32], offsets: NDArray[np.int64], count: int, *, cells: int, threads: int = 0
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        """The best ``count`` centroids of each query token as a search finds them, best first; for tests.

        Each looks at the centroids of the ``cells`` cells whose centres it likes best.

        Args:
            queries: ``[T, dim]``; query i is ``queries[offsets[i]:offsets[i + 1]]``.
            count: centroids of each token.
            cells: as in `Limits`.

        Returns:
            Products of signed bytes ``[T, count]`` int32, ids ``[T, count]`` int32, and ``[T]`` int64, how many of
            them are known: fewer where the cells hold fewer. What is not known is 0.
        """
        pairs, known = self._engine.probe(queries, offsets, count, cells, threads)
        return pairs[:, :, 0], pairs[:, :, 1], known

    def gather(self, query: NDArray[np.float32], limits: Limits, *, threads: int = 1) -> Candidates:
        """The coarse stage alone, for one query ``[Lq, dim]``; its scores are comparable within the call only."""
        nprobe, candidates, cells, lists = limits.nprobe, limits.candidates, limits.cells, limits.lists
        return Candidates(*self._engine.gather(query, nprobe, candidates, cells, lists, threads))

    def score(
        self, query: NDArray[np.float32], positions: NDArray[np.int64], *, threads: int = 0
    ) -> NDArray[np.float32]:
        """MaxSim of one query ``[Lq, dim]`` with the documents at ``positions``; -inf for one without tokens."""
        scores: NDArray[np.float32] = self._engine.score(query, positions, threads)
        return scores

    def prepare(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64], float]:
        """The query as it is scored: bytes ``[Lq, depth]``, scales ``[Lq]``, and ``sum_i <q_i, mean>``.

        ``S = constant + sum_i scales[i] * max_j sum_k bytes[i, k] * (decoded[j, k] - 128)``
        """
        prepared: tuple[NDArray[np.int8], NDArray[np.float64], float] = self._engine.prepare(query)
        return prepared

    def decode(self, segment: int, first: int, n: int) -> NDArray[np.uint8]:
        """Tokens ``[first, first + n)`` of a segment as bytes ``[n, width]``."""
        rows: NDArray[np.uint8] = self._engine.decode(segment, first, n)
        return rows
