"""What the engines are asked: a collection and a set of its queries, and what their answers are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import (
    Query,
    collections_of,
    exact_top,
    fixed_queries,
    load,
    long_queries,
    qrels_of,
    read_json,
    write_json,
)
from benchmarks.rivals.measure import DEPTH
from lateint.metrics import ndcg

LONG, ENOUGH = 32, 50  # a set of queries of 32 tokens, where a collection has so many


@dataclass(frozen=True)
class Case:
    """A collection and its queries: what tables call it, the files that workers read, and the exact answers."""

    name: str
    data: Path
    queries: Path  # read by `measure.read_queries`
    asked: list[Query]
    top: list[list[int]]  # exact, of DEPTH documents each
    judged: bool

    def overlaps(self, found: Mapping[int, Sequence[int]]) -> list[float]:
        """Share of the exact top 10 that was found, of each query in the order in which they were asked."""
        return [len(set(ids) & set(self.top[row])) / DEPTH for row, ids in found.items()]

    def overlap(self, found: Mapping[int, Sequence[int]]) -> float:
        """The mean of `overlaps`."""
        return float(np.mean(self.overlaps(found)))

    def ndcgs(self, found: Mapping[int, Sequence[int]]) -> list[float] | None:
        """nDCG@10 of each query in the order in which they were asked; None where nobody judged."""
        if not self.judged:
            return None
        ids = load(self.data).ids
        judgements = {name: qrels_of(self.data, name) for name in collections_of(self.data)}
        values = []
        for row, docs in found.items():
            query = self.asked[row]
            qrels = {query.id: judgements[query.collection][query.id]}
            values.append(ndcg(qrels, {query.id: {ids[doc]: -float(rank) for rank, doc in enumerate(docs)}}, DEPTH))
        return values

    def ndcg(self, found: Mapping[int, Sequence[int]]) -> float | None:
        """The mean of `ndcgs`."""
        return None if (values := self.ndcgs(found)) is None else float(np.mean(values))

    def description(self) -> dict[str, Any]:
        """What the JSON says of it."""
        documents, lengths = load(self.data), np.array([len(query.tokens) for query in self.asked])
        everything = dict(enumerate(self.top))
        return {
            "case": self.name,
            "documents": len(documents.lengths),
            "tokens": len(documents.tokens),
            "dim": int(documents.tokens.shape[1]),
            "queries": len(self.asked),
            "query_tokens_mean": float(lengths.mean()),
            "query_tokens": [int(x) for x in np.percentile(lengths, (0, 10, 50, 90, 100)).round()],
            "exact_ndcg_at_10": self.ndcg(everything),
        }


def spread(queries: list[Query], most: int) -> list[int]:
    """At most so many of them, evenly spaced."""
    return [int(row) for row in np.unique(np.linspace(0, len(queries) - 1, most).round().astype(int))]


def save(name: str, data: Path, folder: Path, asked: list[Query], top: list[list[int]], judged: bool) -> Case:
    """A case whose queries lie in ``folder``."""
    path = folder / f"{name.replace(' ', '-').replace(',', '')}.npz"
    np.savez(path, tokens=np.concatenate([q.tokens for q in asked]), lengths=[len(q.tokens) for q in asked])
    return Case(name, data, path, asked, top, judged)


def cases(data: Path, folder: Path, most: int) -> list[Case]:
    """The collection with its judged queries, and with its queries of 32 tokens where there are enough.

    The name says how many documents were left where it was shortened.
    """
    name = "+".join(collections_of(data))
    if left := read_json(data / "manifest.json").get("documents"):
        name += f", {left:,} documents"
    folder.mkdir(parents=True, exist_ok=True)
    fixed = fixed_queries(data)
    rows = spread(fixed, most)
    top = np.load(data / "exact_docs.npy")[rows, :DEPTH].tolist()
    found = [save(name, data, folder, [fixed[row] for row in rows], top, True)]
    long = long_queries(data, LONG)
    if len(long) >= ENOUGH:
        long = [long[row] for row in spread(long, most)]
        kept = folder / f"{name}-{LONG}-{len(long)}.json"
        if not kept.exists():
            documents = load(data)
            exact, _ = exact_top(documents.tokens, documents.offsets, [q.tokens for q in long], DEPTH)
            write_json(kept, exact.tolist())
        found.append(save(f"{name}, {LONG} tokens", data, folder, long, read_json(kept), False))
    return found
