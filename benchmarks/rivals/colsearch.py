"""colsearch: a learned router (LEMUR) before exact scores of the stored codes, in Python, torch and Rust."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from colsearch import Index

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Builds its shard engine with default settings, or with the ``compression`` of the options."""
    torch.set_num_threads(job["threads"])
    documents = np.split(data.tokens, data.offsets[1:-1])
    start = time.perf_counter()
    index = Index(job["index"], data.tokens.shape[1], engine="shard", device=job["device"], **job["options"])
    index.add(documents, ids=list(range(len(documents))))
    index.close()
    return time.perf_counter() - start, {}


class ColSearcher:
    """Open indexes, one a setting: its limits are given when an index is opened."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.job = job
        self.indexes: dict[tuple[tuple[str, Any], ...], Index] = {}
        self.opened({})

    def opened(self, setting: Mapping[str, Any]) -> Index:
        """The index with these limits."""
        key, job = tuple(setting.items()), self.job
        if key not in self.indexes:
            options = {**job["options"], **setting}
            self.indexes[key] = Index(job["index"], job["dim"], engine="shard", device=job["device"], **options)
        return self.indexes[key]

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        return [int(hit.doc_id) for hit in self.opened(setting).search(query, k=DEPTH)]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Many queries at once."""
        found = self.opened(setting).search_batch(queries, k=DEPTH)
        return [[int(hit.doc_id) for hit in hits] for hits in found]


def opener(job: Job) -> Searcher:
    """Opens the index of the job."""
    return ColSearcher(job)


if __name__ == "__main__":
    main(("colsearch", "latence-shard-engine", "torch", "numpy"), build, opener)
