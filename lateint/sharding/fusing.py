"""Sparse vectors over shards: alone, or beside tokens, where scores of all shards become one.

An inner product depends on a document and a query alone, so that of a shard is that of one index. What it becomes
beside MaxSim depends on all candidates (`lateint.retrieval.fusion`). So shards are asked for candidates first; those of
all shards are chosen as one index chooses its own, get the scores that they lack, and are ordered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint.retrieval.fusion import Fusion
from lateint.retrieval.hits import Hits
from lateint.retrieval.texts import DEPTH, MAXSIM, SPARSE
from lateint.sharding.calling import Call
from lateint_kernels.codes.engine import best

OF_BOTH = ("subset", "filter", "params", "threads")  # settings of a search that a sparse vector has, too


class Candidates(NamedTuple):
    """Those of a shard: ids, and both scores, NaN where one is not known yet."""

    ids: list[Any]
    scores: NDArray[np.float32]  # [n, 2]


Asked = Mapping[int, Mapping[str, Any]]  # of each shard that is asked, its settings


def search(call: Call, asked: Asked, vector: dict[str, float], k: int) -> Hits:
    """The k best by a sparse vector alone."""
    found = call.ask({number: _by_sparse(vector, k, settings) for number, settings in asked.items()})
    return call.merged(found, k)


def search_both(
    call: Call,
    asked: Asked,
    tokens: NDArray[np.float32],
    vector: dict[str, float],
    k: int,
    fusion: Fusion,
    read: Callable[[list[Any], Iterable[str] | None], Any],
) -> Hits:
    """The k best by both scores.

    Args:
        read: of documents, see `Shards.get`.
    """
    depth = max(k, DEPTH) if fusion.rerank is None else fusion.rerank
    tokens_count = depth if fusion.rerank is None else 0
    found = call.ask({n: _by_both(tokens, tokens_count, vector, depth, settings) for n, settings in asked.items()})
    numbers = sorted(found)
    chosen = dict(zip(numbers, _chosen([found[number] for number in numbers], depth), strict=True))
    chosen = {number: one for number, one in chosen.items() if one.ids}
    completed = call.ask({number: _completing(tokens, vector, one, asked[number]) for number, one in chosen.items()})
    numbers = sorted(completed)  # those of a shard that was lost meanwhile have one score only
    ids = [id for number in numbers for id in chosen[number].ids]
    maxsim, sparse = np.concatenate([np.empty((0, 2), np.float32), *(completed[number] for number in numbers)]).T
    scores = maxsim if fusion.rerank is not None else fusion.fused(maxsim, sparse)
    order = np.argsort(-scores, kind="stable")[:k]
    if fusion.rerank is not None:
        order = order[np.isfinite(maxsim[order])]
    names = _array([ids[at] for at in order], call.facts.ids)
    return Hits(
        names,
        scores[order],
        read=lambda fields: read(names.tolist(), fields),
        parts={MAXSIM: maxsim[order], SPARSE: sparse[order]},
        coverage=call.coverage,
        lost=call.lost_names,
    )


def _chosen(found: Sequence[tuple[Hits | None, Hits]], depth: int) -> list[Candidates]:
    """Of each shard, which of its candidates are among the best of all by one of the scores."""
    scores: list[dict[Any, list[float]]] = [{} for _ in found]
    for column in (0, 1):
        some = [pair[column] for pair in found]
        each = [np.empty(0, np.float32) if hits is None else hits.scores for hits in some]
        firsts = np.cumsum([0, *map(len, each)])
        for at in best(each, depth).tolist() if found else ():
            shard = int(np.searchsorted(firsts, at, side="right")) - 1
            rank = at - int(firsts[shard])
            hits = some[shard]
            assert hits is not None
            scores[shard].setdefault(hits.ids[rank], [np.nan, np.nan])[column] = float(hits.scores[rank])
    return [Candidates(list(of), np.array([*of.values()], np.float32).reshape(-1, 2)) for of in scores]


def _by_sparse(vector: dict[str, float], k: int, settings: Mapping[str, Any]) -> Callable[[Any], Any]:
    known = {name: value for name, value in settings.items() if name in OF_BOTH}
    return lambda index: index.search(None, k, sparse=vector, **known)


def _by_both(
    tokens: NDArray[np.float32], by_tokens: int, vector: dict[str, float], depth: int, settings: Mapping[str, Any]
) -> Callable[[Any], Any]:
    by_sparse = _by_sparse(vector, depth, settings)

    def ask(index: Any) -> tuple[Hits | None, Hits]:
        return (index.search(tokens, by_tokens, **settings) if by_tokens else None), by_sparse(index)

    return ask


def _completing(
    tokens: NDArray[np.float32], vector: dict[str, float], candidates: Candidates, settings: Mapping[str, Any]
) -> Callable[[Any], NDArray[np.float32]]:
    threads = {"threads": settings["threads"]} if "threads" in settings else {}

    def ask(index: Any) -> NDArray[np.float32]:
        """``[n, 2]``, as one index would have them: -inf for a document without tokens, 0 for one without a term."""
        scores: NDArray[np.float32] = candidates.scores.copy()
        lacking = [np.flatnonzero(np.isnan(column)) for column in scores.T]
        names = [[candidates.ids[at] for at in column.tolist()] for column in lacking]
        if names[0]:
            _fill(scores[:, 0], lacking[0], names[0], index.rerank(tokens, names[0], **threads), -np.inf)
        if names[1]:
            by_sparse = index.search(None, len(names[1]), sparse=vector, subset=names[1], **threads)
            _fill(scores[:, 1], lacking[1], names[1], by_sparse, 0.0)
        return scores

    return ask


def _fill(column: NDArray[np.float32], at: NDArray[Any], names: list[Any], hits: Hits, absent: float) -> None:
    known = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
    column[at] = [known.get(name, absent) for name in names]


def _array(ids: list[Any], kind: str) -> NDArray[Any]:
    array: NDArray[Any] = np.array(ids, np.int64 if kind == "int64" else object)
    return array
