"""What a search does: one call of the engine, and more of them for queries that found too few documents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lateint.calibration import Choice
from lateint.retrieval.hits import Explanation
from lateint.retrieval.limits import wider
from lateint.retrieval.planning import EXHAUSTIVE, PRUNED, SCAN, Plan, scans, widened
from lateint.retrieval.queries import Queries
from lateint.retrieval.selection import Selection
from lateint_kernels.codes.engine import Engine, Limits, Ranking

if TYPE_CHECKING:
    from lateint_kernels.codes.device.engine import DeviceEngine
    from lateint_kernels.codes.device.shards import ShardedEngine

AnyEngine: TypeAlias = "Engine | DeviceEngine | ShardedEngine"

LISTED = 0.25  # of the documents: of fewer, positions are listed once, and not looked for by each query


def search(
    engine: AnyEngine,
    queries: Queries,
    k: int,
    limits: Limits,
    selection: Selection,
    *,
    centroids: int,
    ncells: int,
    threads: int,
) -> tuple[list[Ranking], list[Plan]]:
    """The k best documents of each query among those selected: positions and scores, ties by position."""
    if scans(selection, limits, centroids, ncells):
        rankings = _scan(engine, queries, k, selection, threads=threads)
        return rankings, [Plan(SCAN, selection.documents)] * len(rankings)
    limits = widened(selection, limits, centroids)
    rankings = engine.search(queries.tokens, queries.offsets, k, limits, allowed=selection.mask, threads=threads)
    plans = [Plan(PRUNED, selection.documents, limits.nprobe, limits)] * len(rankings)
    short = list(range(len(queries)))
    while limits.nprobe < centroids:
        few = (i for i in short if len(rankings[i][0]) < limits.first(k))
        short = [i for i in few if len(rankings[i][0]) < selection.findable]
        if not short:
            break
        limits, some = wider(limits, centroids), queries.some(short)
        again = engine.search(some.tokens, some.offsets, k, limits, allowed=selection.mask, threads=threads)
        for i, ranking in zip(short, again, strict=True):
            rankings[i], plans[i] = ranking, Plan(PRUNED, selection.documents, limits.nprobe, limits)
    return rankings, plans


def exhaustive(
    engine: AnyEngine, queries: Queries, k: int, selection: Selection, *, threads: int
) -> tuple[list[Ranking], list[Plan]]:
    """As `search`, but every document that is selected is scored."""
    rankings = _scan(engine, queries, k, selection, threads=threads)
    return rankings, [Plan(EXHAUSTIVE, selection.documents)] * len(rankings)


def promised(
    engine: AnyEngine,
    queries: Queries,
    k: int,
    choice: Choice,
    selection: Selection,
    *,
    centroids: int,
    ncells: int,
    threads: int,
) -> tuple[list[Ranking], list[Plan]]:
    """As `search`, with settings that were calibrated for at least ``k``."""
    if choice.limits is None:
        rankings, plans = exhaustive(engine, queries, k, selection, threads=threads)
    else:
        rankings, plans = search(
            engine, queries, choice.k, choice.limits, selection, centroids=centroids, ncells=ncells, threads=threads
        )
    cut = [(positions[:k], scores[:k]) for positions, scores in rankings]
    return cut, [replace(plan, recall=choice.recall) for plan in plans]


def _scan(engine: AnyEngine, queries: Queries, k: int, selection: Selection, *, threads: int) -> list[Ranking]:
    if selection.chosen is not None and selection.share < LISTED:
        return [score(engine, queries[i], selection.positions, k, threads=threads) for i in range(len(queries))]
    return engine.exhaustive(queries.tokens, queries.offsets, k, allowed=selection.mask, threads=threads)


def score(
    engine: AnyEngine, query: NDArray[np.float32], positions: NDArray[np.int64], k: int, *, threads: int
) -> Ranking:
    """The k best of the documents at ``positions`` (ascending) for one query ``[Lq, dim]``, ties in their order."""
    scores = engine.score(np.ascontiguousarray(query), positions, threads=threads)
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[np.isfinite(scores[best])]
    return positions[best], scores[best]


def explain(
    engine: AnyEngine, query: NDArray[np.float32], rows: NDArray[np.uint8], mean: NDArray[np.float32]
) -> Explanation:
    """Which token of a document, of decoded bytes ``[Ld, width]``, each token of a query ``[Lq, dim]`` matches best."""
    products, scales, constants = _products(engine, query, rows, mean)
    best = products.argmax(1)
    scores = scales * products[np.arange(len(best)), best] + constants
    return Explanation(best.astype(np.int64), scores.astype(np.float32))


def similarity(
    engine: AnyEngine, query: NDArray[np.float32], rows: NDArray[np.uint8], mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``[Lq, Ld]``: the inner products that `explain` takes the best of."""
    products, scales, constants = _products(engine, query, rows, mean)
    return (scales[:, None] * products + constants[:, None]).astype(np.float32)


def _products(
    engine: AnyEngine, query: NDArray[np.float32], rows: NDArray[np.uint8], mean: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Inner products of bytes ``[Lq, Ld]``, and what makes those of tokens of them: scales and constants ``[Lq]``."""
    integers, scales, _ = engine.prepare(query)
    products = integers[:, : rows.shape[1]].astype(np.int32) @ (rows.astype(np.int32) - 128).T
    return products, scales, query.astype(np.float64) @ mean.astype(np.float64)
