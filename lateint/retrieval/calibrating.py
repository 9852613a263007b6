"""Measures what searches of growing cost miss: the ladder of settings, and their losses against the exhaustive scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lateint.calibration import EXHAUSTIVE, Ladder, Rung
from lateint.retrieval import searching
from lateint.retrieval.limits import fitting, rungs
from lateint.retrieval.queries import Queries
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint_kernels.codes.engine import Limits, Ranking

TOGETHER = 64  # queries of one call


def measure(
    engine: AnyEngine,
    queries: Queries,
    ks: Sequence[int],
    selection: Selection,
    *,
    centroids: int,
    ncells: int,
    tokens: int,
    threads: int,
) -> tuple[Ladder, ...]:
    """A ladder for each of ``ks``, which ascend: what each rung misses of the exhaustive best k, over all queries."""
    documents = selection.documents
    ladders = {k: rungs(k, centroids=centroids, ncells=ncells, tokens=tokens) for k in ks}
    losses: dict[int, list[NDArray[np.float64]]] = {k: [] for k in ks}
    for some in _batches(queries):
        best, _ = searching.exhaustive(engine, some, min(ks[-1], documents), selection, threads=threads)
        for k, settings in ladders.items():
            found = [
                searching.search(
                    engine,
                    some,
                    min(k, documents),
                    fitting(rung, centroids, documents),
                    selection,
                    centroids=centroids,
                    ncells=ncells,
                    threads=threads,
                )[0]
                for rung in settings
            ]
            losses[k].append(missed(best, found, k))
    return tuple(ladder(k, settings, np.concatenate(losses[k])) for k, settings in ladders.items())


def ladder(k: int, settings: Sequence[Limits], losses: NDArray[np.float64]) -> Ladder:
    """Of losses ``[queries, rungs]``; that of a query at a rung counts as the largest from there on up."""
    highest = np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1].mean(0)
    found = [Rung(limits, float(loss)) for limits, loss in zip(settings, highest, strict=True)]
    return Ladder(k, (*found, EXHAUSTIVE))


def missed(best: Sequence[Ranking], found: Sequence[Sequence[Ranking]], k: int) -> NDArray[np.float64]:
    """``[queries, rungs]``: the share of the first k of ``best`` that each rung did not find."""
    losses = np.zeros((len(best), len(found)))
    for query, (truth, _) in enumerate(best):
        wanted = set(truth[:k].tolist())
        for rung, rankings in enumerate(found):
            there = wanted.intersection(rankings[query][0].tolist())
            losses[query, rung] = 1.0 - len(there) / len(wanted) if wanted else 0.0
    return losses


def _batches(queries: Queries) -> Iterator[Queries]:
    for first in range(0, len(queries), TOGETHER):
        yield queries.some(range(first, min(first + TOGETHER, len(queries))))
