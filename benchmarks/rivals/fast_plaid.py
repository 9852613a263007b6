"""fast-plaid: PLAID in Rust on libtorch. Its ``create`` takes a list of tensors; they are views of the mapped file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fast_plaid.search import FastPlaid

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main

warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # torch only reads them


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Builds an index with default settings."""
    torch.set_num_threads(job["threads"])
    documents = list(torch.from_numpy(data.tokens).split(data.lengths.tolist()))
    start = time.perf_counter()
    FastPlaid(job["index"], device=job["device"]).create(documents, **job["options"])
    return time.perf_counter() - start, {}


class FastPlaidSearcher:
    """An open index; settings are ``n_full_scores`` and ``n_ivf_probe``."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.threads = job["threads"]
        self.index = FastPlaid(job["index"], device=job["device"])

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        found = self.index.search(torch.from_numpy(query)[None], top_k=DEPTH, show_progress=False, **setting)
        return [doc for doc, _ in found[0]]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Many queries, split among the library's own workers with one torch thread each, its fastest arrangement."""
        torch.set_num_threads(1)
        found = self.index.search(
            [torch.from_numpy(query) for query in queries],
            top_k=DEPTH,
            show_progress=False,
            n_processes=self.threads,
            **setting,
        )
        torch.set_num_threads(self.threads)
        return [[doc for doc, _ in hits] for hits in found]


def opener(job: Job) -> Searcher:
    """Opens the index of the job."""
    return FastPlaidSearcher(job)


if __name__ == "__main__":
    main(("fast-plaid", "torch", "numpy"), build, opener)
