"""lateint itself: it builds from the memory-mapped file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import lateint
from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Builds an index with default settings; ids are positions, as the rivals give them."""
    start = time.perf_counter()
    index = lateint.Index.build(
        data.tokens,
        job["index"],
        lengths=data.lengths,
        **job["options"],
        threads=job["threads"],
        progress=False,
        device=job["device"],
    )
    seconds = time.perf_counter() - start
    return seconds, index.stats()["build_seconds"]


class LateintSearcher:
    """An open index; settings are ``nprobe``, ``candidates`` and ``exhaustive``."""

    def __init__(self, job: Job) -> None:
        self.threads = job["threads"]
        self.index = lateint.Index.open(job["index"], device=job["device"])

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        return [int(doc) for doc in self.index.search(query, k=DEPTH, threads=self.threads, **setting).ids]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Many queries at once, without padding."""
        found = self.index.search(queries, k=DEPTH, threads=self.threads, **setting)
        return [[int(doc) for doc in hits.ids] for hits in found]


def opener(job: Job) -> Searcher:
    """Opens the index of the job."""
    return LateintSearcher(job)


if __name__ == "__main__":
    main(("lateint", "numpy"), build, opener)
