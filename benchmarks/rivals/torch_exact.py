"""The reference anyone can write: all documents in float32 in memory, one matrix product, a segmented maximum."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embeddings import Embeddings, load
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Nothing is learned: the tokens are stored as float32."""
    torch.set_num_threads(job["threads"])
    folder = Path(job["index"])
    folder.mkdir()
    start = time.perf_counter()
    np.save(folder / "tokens.npy", data.tokens.astype(np.float32))
    return time.perf_counter() - start, {}


class ExactSearcher:
    """All tokens in memory, scored one query at a time."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.tokens = torch.from_numpy(np.load(Path(job["index"]) / "tokens.npy")).to(job["device"])
        self.offsets = torch.from_numpy(load(Path(job["data"])).offsets).to(job["device"])

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        similarity = self.tokens @ torch.from_numpy(query).to(self.tokens.device).T  # [N, Lq]
        scores = torch.segment_reduce(similarity, "max", offsets=self.offsets, axis=0).sum(1)
        return [int(doc) for doc in scores.topk(DEPTH).indices]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Queries one after the other: together their similarities would not fit in memory."""
        return [self.single(query, setting) for query in queries]


def opener(job: Job) -> Searcher:
    """Opens the stored tokens."""
    return ExactSearcher(job)


if __name__ == "__main__":
    main(("torch", "numpy"), build, opener)
