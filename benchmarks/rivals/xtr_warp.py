"""xtr-warp-rs: WARP in Rust on libtorch. It builds by streaming a ``.npy`` file and a ``.doclens.npy`` beside it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from xtr_warp import search as xtr_search

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main

warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # torch only reads them


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Builds an index with default settings from the file, its low-memory way."""
    torch.set_num_threads(job["threads"])
    source = Path(job["index"] + ".source")
    source.mkdir(exist_ok=True)
    tokens = source / "tokens_0.npy"
    tokens.unlink(missing_ok=True)
    tokens.symlink_to((data.folder / "doc_tokens.npy").resolve())
    np.save(source / "tokens_0.doclens.npy", data.lengths)
    start = time.perf_counter()
    index = xtr_search.XTRWarp(job["index"])
    index.create(source, device=job["device"], **job["options"], show_progress=False)
    return time.perf_counter() - start, {}


class XtrWarpSearcher:
    """An open index; settings are ``nprobe``, ``t_prime`` and the like, chosen by the library where left out."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.threads = job["threads"]
        self.index = xtr_search.XTRWarp(job["index"]).load(device=job["device"])

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        tokens = torch.from_numpy(query)[None]
        found = self.index.search(tokens, DEPTH, num_threads=self.threads, show_progress=False, **setting)
        return [doc for doc, _ in found[0]]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Many queries at once; the library pads them to one length."""
        tokens = [torch.from_numpy(query) for query in queries]
        found = self.index.search(tokens, DEPTH, num_threads=self.threads, show_progress=False, **setting)
        return [[doc for doc, _ in hits] for hits in found]


def opener(job: Job) -> Searcher:
    """Opens the index of the job."""
    return XtrWarpSearcher(job)


if __name__ == "__main__":
    main(("xtr-warp-rs", "torch", "numpy"), build, opener)
