"""Centroids by faiss beside our own: CPU seconds, distortion, and what a search finds with them.

    python -m benchmarks.faiss_kmeans --data EMBEDDINGS --out benchmarks/results/faiss-kmeans.json

EMBEDDINGS is a folder that ``benchmarks.embed`` made. Both cluster the same sample, the rotated bytes of the build,
which faiss takes as float32: five iterations, one thread, from the same number of random tokens. The codec is
otherwise the same. Recall is of the ten best of an exhaustive search of the same index, since centroids decide what a
search looks at; overlap is with exact MaxSim, since they are also what codes are relative to.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import load, queries_of, write_json
from benchmarks.rivals.run import machine
from lateint import Codec, Index, Ragged, train_codec
from lateint.indexing import builder, clustering
from lateint_kernels import maxsim
from lateint_kernels.codes.building import HostOperators

K = 10


def rows_of(codec: Codec, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Tokens as the rows that are clustered."""
    operators = HostOperators(1)
    of = codec.rotation
    return operators.to_bytes(operators.rotation(of.mean, of.blocks, of.permutation, of.step)(tokens))


def own(rows: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Our k-means."""
    made = clustering.train(
        rows, count, iterations=builder.ITERATIONS, seed=0, operators=HostOperators(1)
    )  # fmt: skip
    return np.asarray(made.rows)


def by_faiss(rows: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """faiss's k-means of the same rows, rounded to bytes."""
    import faiss

    faiss.omp_set_num_threads(1)
    trained = faiss.Kmeans(rows.shape[1], count, niter=builder.ITERATIONS, seed=1, max_points_per_centroid=1 << 20)
    trained.train(rows.astype(np.float32))
    return np.clip(np.rint(trained.centroids), 0, 255).astype(np.uint8)


def distortion(rows: NDArray[np.uint8], centroids: NDArray[np.uint8]) -> float:
    """Mean distance of a thousand rows from the nearest centroid, in steps."""
    some = rows[:: max(1, len(rows) // 1000)].astype(np.float32)
    others = centroids.astype(np.float32)
    squares = (some**2).sum(1)[:, None] - 2 * some @ others.T + (others**2).sum(1)
    return float(np.sqrt(np.maximum(squares.min(1), 0)).mean())


def found(codec: Codec, documents: Ragged, queries: list[Any], exact: NDArray[np.int64]) -> dict[str, float]:
    """What searches find in an index with this codec."""
    index = Index.build(documents, codec=codec, progress=False, threads=1)
    whole = [hits.ids for hits in index.search(queries, K, exhaustive=True)]
    pruned = [hits.ids for hits in index.search(queries, K)]
    return {
        "recall_of_exhaustive": float(np.mean([np.isin(a, b).mean() for a, b in zip(whole, pruned, strict=True)])),
        "overlap_with_exact": float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, whole, strict=True)])),
    }


def measured(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """Both ways on the first ``size`` documents."""
    data = load(options.data)
    tokens = np.asarray(data.tokens[: data.offsets[size]], np.float32)
    documents = Ragged(tokens, data.offsets[: size + 1])
    of = queries_of(options.data, options.collection)
    queries = [np.ascontiguousarray(query, np.float32) for query in list(of.values())[:100]]
    exact = np.argsort(-maxsim(Ragged.pack(queries), documents), 1, kind="stable")[:, :K]
    codec = train_codec(documents, progress=False, threads=1)
    count = len(codec.centroids)
    sample = min(len(tokens), count * builder.SAMPLE_PER_CENTROID)
    rows = rows_of(codec, tokens[np.sort(np.random.default_rng(0).choice(len(tokens), sample, replace=False))])
    report: dict[str, Any] = {"documents": size, "tokens": len(tokens), "centroids": count, "sample": sample}
    ways = {"own": own, "faiss": by_faiss}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    centroids = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.process_time()
            centroids[name] = way(rows, count)
            seconds[name].append(time.process_time() - started)
    for name, made in centroids.items():
        grouped = clustering.group(made, None, np.random.default_rng(0), HostOperators(1))
        report[name] = {
            "cpu_seconds": float(np.median(seconds[name])),
            "distortion": distortion(rows, made),
            **found(replace(codec, centroids=grouped), documents, queries, exact),
        }
        print(size, name, report[name], flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--collection", default="scifact")
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--rounds", type=int, default=3, help="each clusters so often, in turn; the median counts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [measured(options, size) for size in options.documents]
    if options.out:
        write_json(options.out, {"machine": machine(sorted(os.sched_getaffinity(0))), "sizes": sizes})


if __name__ == "__main__":
    main()
