"""One ranking of those of all shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lateint.retrieval.hits import Hits
from lateint_kernels.codes.engine import best


def merge(found: Sequence[Hits], names: Sequence[str], k: int, coverage: float, lost: tuple[str, ...]) -> Hits:
    """The k best hits of several shards; ties in the order of shards, and within each in its own.

    Args:
        found: of each shard that answered.
        names: of these shards.
        coverage, lost: see `Hits`.

    Raises:
        ValueError: a document is in two shards.
    """
    order = best([hits.scores for hits in found], k)
    some = [hits.ids for hits in found if len(hits)] or [found[0].ids]
    ids = np.concatenate(some)[order]
    scores = np.concatenate([hits.scores for hits in found])[order]
    firsts = np.cumsum([0, *(len(hits) for hits in found)])
    owners = np.searchsorted(firsts, order, side="right") - 1
    if len(set(ids.tolist())) < len(ids):
        _refuse(ids.tolist(), owners.tolist(), names)
    ranks = order - firsts[owners]

    def read(fields: Iterable[str] | None) -> list[Any]:
        wanted = None if fields is None else list(fields)
        documents = {owner: found[owner].documents(wanted) for owner in np.unique(owners).tolist()}
        return [documents[owner][rank] for owner, rank in zip(owners.tolist(), ranks.tolist(), strict=True)]

    return Hits(ids, scores, read=read, coverage=coverage, lost=lost)


def _refuse(ids: list[Any], owners: list[int], names: Sequence[str]) -> None:
    seen: dict[Any, int] = {}
    for id, owner in zip(ids, owners, strict=True):
        if id in seen:
            raise ValueError(
                f"shards must hold different documents, but {id!r} is in {names[seen[id]]} and in {names[owner]}"
            )
        seen[id] = owner
