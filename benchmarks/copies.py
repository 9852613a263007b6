"""Many near copies of few documents, found by few lists: which of a search's limits the best ten are lost to.

    python -m benchmarks.copies --data EMBEDDINGS --out benchmarks/results/copies.json
    python -m benchmarks.copies --page docs/scale.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made. ``benchmarks.scale`` makes the documents, of a part of the real
ones, so that each has as many copies as in a much larger index. Of such an index, each token of a query covers a small
part: the documents in its lists. Here ``nprobe`` makes that part as small. No search stops of itself. Recall is of the
exhaustive top 10 on the same codes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import lateint
from benchmarks.embeddings import Embeddings, load, write_json
from benchmarks.rivals.run import machine
from benchmarks.scale import PerturbedDocuments, exhaustive, long_queries, recalled
from benchmarks.tables import machine_text, options, table

RESULT = Path(__file__).resolve().parent / "results" / "copies.json"
MARKS = "<!-- copies -->", "<!-- /copies -->"
PROBES, CANDIDATES = (3, 6, 12, 24, 48), (0.7, 1.75, 3.5)  # centroids of a token; documents scored, in copies of one
CELLS = 24


def some_of(data: Embeddings, count: int) -> Embeddings:
    """So many documents, evenly spaced."""
    rows = np.unique(np.linspace(0, len(data.lengths) - 1, count).astype(int))
    parts = [np.asarray(data.tokens[data.offsets[row] : data.offsets[row + 1]]) for row in rows]
    return Embeddings(data.folder, np.concatenate(parts), data.lengths[rows], [data.ids[row] for row in rows])


def measure(index: Any, queries: list[np.ndarray], copies: float) -> list[dict[str, Any]]:
    """Recall of each pair of limits, and how many documents the lists of a query token hold."""
    exact = exhaustive(index, queries, len(os.sched_getaffinity(0)))
    stats = index.stats()
    each = stats["bytes_per_token"]["lists"] / 4 * stats["tokens"] / stats["centroids"]  # documents of a list, about
    rows = []
    for nprobe in PROBES:
        row: dict[str, Any] = {"nprobe": nprobe, "covered": nprobe * each / stats["documents"], "recall": {}}
        for share in CANDIDATES:
            limits = {"nprobe": nprobe, "candidates": round(share * copies), "cells": CELLS}
            found = [index.search(query, k=10, **limits) for query in queries]
            row["recall"][str(share)] = recalled(found, exact)["recall_at_10"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (str(row["nprobe"]), f"{row['covered']:.1%}", *(f"{row['recall'][str(share)]:.3f}" for share in CANDIDATES))
        for row in results["rows"]
    ]
    copies = results["copies"]
    head = ("nprobe", "its lists, of all documents", *(f"{round(share * copies):,} candidates" for share in CANDIDATES))
    about = (
        f"{results['tokens']:,} tokens: about {copies:.0f} copies of each of {results['real']:,} documents, "
        f"{results['centroids']:,} centroids, {results['queries']} queries."
    )
    return f"{machine_text(results['machine'])} {about}\n\n{table(head, rows)}"


def main() -> None:
    """Builds and measures, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="3e7", help="of the index (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=400, help="real ones (default: %(default)s)")
    parser.add_argument("--centroids", type=int, default=25_000, help="of the index (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=30, help="how many (default: %(default)s)")
    args = options(parser, RESULT, MARKS, page)
    if args is None:
        return
    here = machine(sorted(os.sched_getaffinity(0)))
    real, queries = some_of(load(args.data), args.documents), long_queries(args.data, args.queries)
    with tempfile.TemporaryDirectory() as work:
        documents = PerturbedDocuments(real, int(float(args.tokens)), threads=2)
        index = lateint.Index.build(documents, Path(work) / "index", nbits=2, ncentroids=args.centroids)
        copies = len(index) / len(real.lengths)
        rows = measure(index, queries, copies)
    results = {
        "machine": here,
        "tokens": documents.total,
        "real": len(real.lengths),
        "copies": copies,
        "centroids": args.centroids,
        "queries": len(queries),
        "rows": rows,
    }
    write_json(args.out, results)


if __name__ == "__main__":
    main()
