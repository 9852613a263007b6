"""How a token of a large collection finds its centroid: through whole cells, or through parts of more cells.

    python -m benchmarks.divided --data EMBEDDINGS --out benchmarks/results/divided.json

Centroids are learned, as a build learns them, from the stream of perturbed embeddings of `benchmarks.scale`. Other
tokens of the stream then look for theirs, a build's chunk at a time. Distances are compared with those to the nearest
of all centroids.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import load, write_json
from benchmarks.rivals.run import machine
from benchmarks.scale import PerturbedDocuments
from lateint.indexing import builder, clustering
from lateint.indexing.codec import train_rotation
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.centroids import subdivide

TRUTH = 1 << 14  # tokens that are compared with all centroids
TIMED = 1 << 19  # tokens that are assigned
REPEATS = 3

Row = dict[str, Any]


def rows_of(data: Path, count: int, operators: HostOperators, threads: int) -> NDArray[np.uint8]:
    """The first tokens of the stream as the bytes ``[count, depth]`` that are clustered."""
    documents = PerturbedDocuments(load(data), count, threads=threads)
    rotate, rows, done = None, operators.empty(count, documents.source.shape[1]), 0
    for tokens, _ in documents:
        if rotate is None:
            learned = train_rotation(tokens, seed=0, threads=threads)
            rotate = operators.rotation(learned.mean, learned.blocks, learned.permutation, learned.step)
        rows[done : done + len(tokens)] = operators.to_bytes(rotate(tokens))
        done += len(tokens)
    return rows


def distance(rows: NDArray[np.uint8], centroids: NDArray[np.uint8], ids: NDArray[np.uint32]) -> float:
    """The mean square of it."""
    apart = rows.astype(np.int32) - centroids[ids]
    return float((apart * apart).sum(1).mean())


def measure(data: Path, count: int, threads: int) -> list[Row]:
    """Both ways with so many centroids, in turn."""
    operators = HostOperators(threads)
    rows = rows_of(data, count * builder.SAMPLE_PER_CENTROID + TIMED, operators, threads)
    start = time.perf_counter()
    centroids = clustering.train(rows[:-TIMED], count, iterations=builder.ITERATIONS, seed=0, operators=operators)
    trained = time.perf_counter() - start
    others = rows[-TIMED:]
    few = np.ascontiguousarray(others[:: TIMED // TRUTH])
    cells, offsets = centroids.cells, centroids.cell_offsets
    if centroids.small_cells:  # the large ones that they come from
        cells, parts = clustering.regions(centroids, operators)
        offsets = offsets[parts.first]
    else:
        parts = subdivide(centroids.rows, offsets)
    exact = operators.assigner(centroids.rows, cells, offsets, None)(few, 0)
    least = distance(few, centroids.rows, exact)
    ways = [("whole", clustering.CELLS_SEARCHED, None), ("whole", clustering.DIVIDED_SEARCHED, None)]
    ways.append(("divided", clustering.DIVIDED_SEARCHED, parts))
    found: list[Row] = []
    for name, searched, divided in ways:
        nearest = operators.assigner(centroids.rows, cells, offsets, divided)
        ids = nearest(few, searched)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            for first in range(0, TIMED, builder.CHUNK):
                nearest(others[first : first + builder.CHUNK], searched)
            seconds.append(time.perf_counter() - start)
        found.append(
            {
                "centroids": count,
                "cells_of_codec": len(cells),
                "cells": name,
                "searched": searched,
                "same": float(np.mean(ids == exact)),
                "farther": distance(few, centroids.rows, ids) / least - 1,
                "nanoseconds": min(seconds) / TIMED * 1e9,
                "training_seconds": trained,
            }
        )
    return found


def main() -> None:
    """Measures each number of centroids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--centroids", default="65536,235399,835000", help="how many (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="that look for centroids (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="the JSON to write")
    args = parser.parse_args()
    rows = []
    for count in map(int, args.centroids.split(",")):
        for row in measure(args.data, count, args.threads):
            print(row, flush=True)
            rows.append(row)
    cores = sorted(os.sched_getaffinity(0))
    write_json(args.out, {"machine": machine(cores), "threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
