"""How many components are rotated together: what codes lose, and how long it takes.

    python -m benchmarks.rotation --data EMBEDDINGS --out benchmarks/results/rotation.json
    python -m benchmarks.rotation --page docs/design.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made. ``overlap`` is the share of the exact float32 top 10 that an
exhaustive search of the codes returns. ``error`` is the root mean square of what scores of that top 10 are off, in
standard deviations of these scores. Both are means over seeds, each of which draws other rotations and centroids.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of, write_json
from benchmarks.rivals.run import machine
from benchmarks.tables import machine_text, options, table
from lateint import Index, Ragged
from lateint.indexing import codec

RESULT = Path(__file__).resolve().parent / "results" / "rotation.json"
MARKS = "<!-- rotation -->", "<!-- /rotation -->"
BLOCKS, BITS, SEEDS, QUERIES, REPEATS = (128, 64, 32), (1, 2, 4), (0, 1), 150, 5


def exact(data: Embeddings, queries: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """``[n]`` scores of all documents, for each query."""
    tokens, starts = np.asarray(data.tokens, np.float32), np.asarray(data.offsets[:-1])
    return [np.maximum.reduceat(tokens @ query.T, starts, axis=0).sum(1) for query in queries]


def lost(
    documents: Ragged, queries: list[NDArray[np.float32]], scores: list[NDArray[np.float32]], nbits: int, seed: int
) -> tuple[float, float]:
    """Overlap and error of an index."""
    index = Index.build(documents, nbits=nbits, seed=seed, progress=False)
    overlap, error, spread = [], [], []
    for query, right in zip(queries, scores, strict=True):
        best = np.argsort(-right, kind="stable")[:10]
        hits = index.search(query, k=10, exhaustive=True)
        overlap.append(len(set(np.asarray(hits.ids).tolist()) & set(best.tolist())) / 10)
        error.append(np.asarray(hits.scores) - right[np.asarray(hits.ids)])
        spread.append(right[best])
    return float(np.mean(overlap)), float(np.sqrt(np.mean(np.square(error))) / np.std(spread))


def seconds(tokens: NDArray[np.float32]) -> float:
    """Of a token that is rotated, on one thread: the fastest of a few times."""
    rotation = codec.train_rotation(tokens[:4096], seed=0, threads=1)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        rotation.apply(tokens, threads=1)
        times.append((time.perf_counter() - start) / len(tokens))
    return min(times)


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = []
    for row in results["rows"]:
        found = [f"{row['overlap'][str(n)]:.3f} / {row['error'][str(n)]:.3f}" for n in BITS]
        rows.append((str(row["block"]), *found, f"{row['microseconds']:.2f} us"))
    head = ("components", *(f"{n} bit{'s' * (n > 1)}" for n in BITS), "a token")
    about = f"{results['collection']}, {results['tokens']:,} tokens, {QUERIES} queries, {len(SEEDS)} seeds."
    return f"{machine_text(results['machine'])} {about}\n\n{table(head, rows)}"


def main() -> None:
    """Measures, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = options(parser, RESULT, MARKS, page)
    if args is None:
        return
    here = machine(sorted(os.sched_getaffinity(0)))
    data, (collection, *_) = load(args.data), collections_of(args.data)
    documents = Ragged(np.asarray(data.tokens), data.offsets)
    queries = [np.asarray(query, np.float32) for query in queries_of(args.data, collection).values()][:QUERIES]
    sample, rows, times = np.asarray(data.tokens[: 1 << 17], np.float32), [], {}
    for block in BLOCKS:
        codec.LARGEST_BLOCK = block
        times[block] = seconds(sample)
    scores = exact(data, queries)
    for block in BLOCKS:
        codec.LARGEST_BLOCK = block
        row: dict[str, Any] = {"block": block, "microseconds": times[block] * 1e6, "overlap": {}, "error": {}}
        for nbits in BITS:
            found = [lost(documents, queries, scores, nbits, seed) for seed in SEEDS]
            row["overlap"][str(nbits)], row["error"][str(nbits)] = (
                float(np.mean(one)) for one in zip(*found, strict=True)
            )
        rows.append(row)
        print(json.dumps(row), flush=True)
    write_json(args.out, {"machine": here, "collection": collection, "tokens": len(documents.tokens), "rows": rows})


if __name__ == "__main__":
    main()
