"""TACHIOM: token-aware clustering, a graph over its centroids and product quantisation, in Rust. It wants token ids."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tachiom import Tachiom

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Builds an index from files, its working way; ``pq_subspaces`` is its bytes a token."""
    source = Path(job["index"] + ".source")
    source.mkdir(exist_ok=True)
    np.save(source / "token_ids.npy", np.load(data.folder / "doc_token_ids.npy").astype(np.uint32))
    np.save(source / "lengths.npy", data.lengths.astype(np.int32))
    paths = [data.folder / "doc_tokens.npy", source / "token_ids.npy", source / "lengths.npy"]
    start = time.perf_counter()
    Tachiom.build(*map(str, paths), **job["options"]).save(job["index"])
    return time.perf_counter() - start, {}


class TachiomSearcher:
    """An open index; settings are the keywords of its ``search``."""

    def __init__(self, job: Job) -> None:
        self.threads = job["threads"]
        self.index = Tachiom.load(job["index"])
        self.documents = self.index.len

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        return self._found(self.index.search(query, DEPTH, **setting)[1])

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Many queries at once, without padding."""
        offsets = np.cumsum([0, *map(len, queries)]).astype(np.uint64)
        found = self.index.batch_search(
            np.concatenate(queries), len(queries), DEPTH, offsets=offsets, num_threads=self.threads, **setting
        )
        return [self._found(row) for row in found[1]]

    def _found(self, ids: np.ndarray) -> list[int]:
        """Without the places that it could not fill."""
        return [int(doc) for doc in ids if 0 <= doc < self.documents]


def opener(job: Job) -> Searcher:
    """Opens the index of the job."""
    return TachiomSearcher(job)


if __name__ == "__main__":
    main(("tachiom", "numpy"), build, opener)
