"""What converting costs in quality: rankings of converted indexes beside those of the library they come from.

    python -m benchmarks.converting --data EMBEDDINGS --out benchmarks/results/converting.json

EMBEDDINGS is a folder that ``benchmarks.embed`` made. It runs in the environment of benchmarks/rivals/install.sh, to
which tqdm is added. fast-plaid and xtr-warp-rs index some documents with 4 bits, and rank all of them by their own
scores. Their folders are converted with 2, 4 and 8 bits; the exhaustive search of each is compared with that ranking,
and with exact MaxSim of the float32 tokens: how many of the best ten are the same.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_plaid.search import FastPlaid
from numpy.typing import NDArray
from xtr_warp.search import XTRWarp

from benchmarks.embeddings import load, queries_of, read_json, write_json
from benchmarks.rivals.run import machine
from lateint import Index, Ragged
from lateint_kernels import maxsim

K = 10


def of_fast_plaid(documents: list[torch.Tensor], queries: list[torch.Tensor], folder: Path) -> list[list[int]]:
    """Builds an index and ranks every document on its codes."""
    index = FastPlaid(str(folder), device="cpu")
    index.create(documents, nbits=4, start_from_scratch=0)
    lists = len(np.load(folder / "centroids.npy"))
    found = index.search(queries, top_k=K, n_full_scores=1 << 20, n_ivf_probe=lists, show_progress=False)
    return [[number for number, _ in hits] for hits in found]


def of_xtr_warp(documents: list[torch.Tensor], queries: list[torch.Tensor], folder: Path) -> list[list[int]]:
    """Builds an index and ranks every document, all lists looked into, so that no score is made up."""
    index = XTRWarp(str(folder))
    index.create(documents, device="cpu", nbits=4, show_progress=False)
    lists = len(np.load(folder / "centroids.npy"))
    found = index.load(device="cpu").search(
        queries, K, nprobe=lists, bound=1 << 30, t_prime=1 << 30, max_candidates=1 << 30,
        centroid_score_threshold=-10.0, show_progress=False,
    )  # fmt: skip
    return [[number for number, _ in hits] for hits in found]


LIBRARIES: dict[str, Callable[..., list[list[int]]]] = {"fast-plaid": of_fast_plaid, "xtr-warp-rs": of_xtr_warp}


def overlap(some: Any, others: Any) -> float:
    """The mean share of the best that are the same."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(some, others, strict=True)]))


def measured(ranking: list[list[int]], folder: Path, queries: list[Any], exact: NDArray[np.int64]) -> dict[str, Any]:
    """The library's own quality, and that of what it is converted to."""
    report: dict[str, Any] = {"own_overlap_with_exact": overlap(exact, ranking)}
    for nbits in (2, 4, 8):
        started = time.process_time()
        index = Index.convert(folder, nbits=nbits, progress=False)
        seconds = time.process_time() - started
        found = [hits.ids for hits in index.search(queries, K, exhaustive=True)]
        report[f"{nbits} bits"] = {
            "overlap_with_library": overlap(ranking, found),
            "overlap_with_exact": overlap(exact, found),
            "cpu_seconds": seconds,
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--collection", default="scifact")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = load(options.data)
    offsets = data.offsets[: options.documents + 1]
    tokens = np.array(data.tokens[: offsets[-1]], np.float32)
    of = queries_of(options.data, options.collection)
    queries = [np.array(query, np.float32) for query in list(of.values())[: options.queries]]
    exact = np.argsort(-maxsim(Ragged.pack(queries), Ragged(tokens, offsets)), 1, kind="stable")[:, :K]
    documents = list(torch.from_numpy(tokens).split(np.diff(offsets).tolist()))
    about = {"documents": options.documents, "tokens": len(tokens), "dim": tokens.shape[1], "queries": len(queries)}
    report: dict[str, Any] = read_json(options.out) if options.out and options.out.exists() else {}
    report = report if about.items() <= report.items() else about  # libraries that are not measured keep their figures
    for name in options.libraries:
        build, of_machine = LIBRARIES[name], machine(sorted(os.sched_getaffinity(0)))
        with tempfile.TemporaryDirectory() as room:
            folder = Path(room) / "index"
            ranking = build(documents, [torch.from_numpy(query) for query in queries], folder)
            report[name] = {"machine": of_machine, **measured(ranking, folder, queries, exact)}
        print(name, report[name], flush=True)
        if options.out:
            write_json(options.out, report)


if __name__ == "__main__":
    main()
