"""Runs of a whole collection: what an index finds for every query, and what exact MaxSim would have found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

import lateint_kernels
from lateint import progress
from lateint.index import Index

Results: TypeAlias = dict[Any, dict[Any, float]]


def index_run(
    index: Index,
    queries: Sequence[Any],
    query_ids: Sequence[Any],
    k: int = 100,
    *,
    texts: Sequence[str] | None = None,
    **settings: Any,
) -> tuple[Results, list[float]]:
    """Searches one query after the other, as a user would.

    Args:
        queries: ``[Lq, dim]`` each; ``query_ids`` names them.
        texts: words of each query, see `Index.search`; None: none.
        settings: passed on to `Index.search`.

    Returns:
        The run (query id -> document id -> score), and the seconds each search took.
    """
    run, seconds = {}, []
    with progress.bar(len(queries), "search", "query") as bar:
        words = [None] * len(queries) if texts is None else texts
        for query_id, query, text in zip(query_ids, queries, words, strict=True):
            started = time.perf_counter()
            hits = index.search(query, k, text=text, **settings)
            seconds.append(time.perf_counter() - started)
            run[query_id] = dict(hits)
            bar.update()
    return run, seconds


def exact_run(
    documents: lateint_kernels.Ragged,
    doc_ids: Sequence[Any],
    queries: Sequence[Any],
    query_ids: Sequence[Any],
    k: int = 100,
    batch: int = 32,
    threads: int | None = None,
) -> Results:
    """The k documents with the highest exact MaxSim for each query: no index, every token scored.

    Args:
        documents: the uncompressed documents; ``doc_ids`` names them.
        queries: ``[Lq, dim]`` each; ``query_ids`` names them.
        batch: queries scored together.
    """
    run: Results = {}
    with progress.bar(len(queries), "exact MaxSim", "query") as bar:
        for start in range(0, len(queries), batch):
            packed = lateint_kernels.Ragged.pack(queries[start : start + batch])
            scores = lateint_kernels.maxsim(packed, documents, threads=threads)  # [Nq, Nd]
            for query_id, row in zip(query_ids[start : start + batch], scores, strict=True):
                best = np.argsort(-row, kind="stable")[:k]
                run[query_id] = {doc_ids[i]: float(row[i]) for i in best}
            bar.update(len(packed))
    return run
