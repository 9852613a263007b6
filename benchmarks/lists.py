"""Which inverted lists a search reads: of every query token as many, or of all tokens those that gain most; the
centroids of how many cells it looks at; and when it stops.

    python -m benchmarks.lists INDEX --data EMBEDDINGS --out benchmarks/results/lists.json
    python -m benchmarks.lists --page docs/design.md

INDEX is one that ``benchmarks.scale --keep`` left, EMBEDDINGS the folder it was made from. Every setting is asked every
query in turn, on one thread, and a query's time is its fastest. Recall is of the exhaustive top 10 on the same codes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

import lateint
from benchmarks.embeddings import write_json
from benchmarks.pruning import measured
from benchmarks.rivals.run import machine
from benchmarks.scale import long_queries
from benchmarks.tables import machine_text, options, table
from lateint.retrieval.limits import MANY, limits
from lateint_kernels.codes.engine import Limits

RESULT = Path(__file__).resolve().parent / "results" / "lists.json"
MARKS = "<!-- lists -->", "<!-- /lists -->"
LENGTHS = 32, 12  # of queries
FEWER_CELLS = 16
SHOWN = "nprobe", "lists", "cells", "candidates", "patience", "deviations"


def settings_of(usual: Limits) -> list[Limits]:
    """Around the default: at first, half of its probes had all their lists read, and searches stopped as others do."""
    before, short = usual.nprobe // 2, limits(10, centroids=2 * MANY, documents=usual.candidates, tokens=2 * MANY)
    sooner = usual._replace(candidates=short.candidates, patience=short.patience, deviations=short.deviations)
    third, sixth = -(-usual.nprobe // 3), -(-usual.nprobe // 6)
    found = [sooner._replace(nprobe=before, lists=0), sooner._replace(lists=third), usual._replace(lists=third)]
    found += [usual, usual._replace(lists=sixth), usual._replace(cells=FEWER_CELLS)]
    return [*found, *(usual._replace(nprobe=before, lists=lists) for lists in (usual.lists, sixth))]


def measure(index: Any, queries: list[np.ndarray]) -> list[dict[str, Any]]:
    """Recall, time and entries of lists for each setting."""
    engine, stats = index._snapshot.engine, index.stats()
    usual = limits(10, centroids=stats["centroids"], documents=stats["documents"], tokens=stats["tokens"])
    scopes = settings_of(usual)
    rows = measured({str(n): (engine, scope, 1) for n, scope in enumerate(scopes)}, queries)
    for row, scope in zip(rows, scopes, strict=True):
        entries = np.mean([engine.gather(query, scope).postings for query in queries])
        row |= {"entries": float(entries), **{name: getattr(scope, name) for name in SHOWN}}
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (length, str(row["nprobe"]), str(row["lists"] or row["nprobe"]), str(row["cells"]),
         f"{row['candidates']:,}, {row['patience']}, {row['deviations']:.0f} sigma",
         f"{row['entries']:,.0f}", f"{row['recall_at_10']:.3f}", f"{row['p50_ms']:.2f} ms")
        for length, found in results["searches"].items()
        for row in found
    ]  # fmt: skip
    head = ("query tokens", "probes", "lists a token", "cells", "stops", "entries of lists", "recall@10", "p50")
    about = f"{results['tokens']:,} tokens, 2 bits, {results['centroids']:,} centroids, {results['queries']} queries."
    return f"{machine_text(results['machine'])} {about}\n\n{table(head, rows)}"


def main() -> None:
    """Measures, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("--queries", type=int, default=50, help="how many (default: %(default)s)")
    args = options(parser, RESULT, MARKS, page)
    if args is None:
        return
    if args.index is None:
        parser.error("INDEX is needed")
    here, index = machine(sorted(os.sched_getaffinity(0))), lateint.Index.open(args.index)
    queries = long_queries(args.data, args.queries)
    searches = {str(length): measure(index, [np.ascontiguousarray(q[:length]) for q in queries]) for length in LENGTHS}
    stats = index.stats()
    results = {"machine": here, "tokens": stats["tokens"], "centroids": stats["centroids"], "queries": len(queries)}
    write_json(args.out, {**results, "searches": searches})


if __name__ == "__main__":
    main()
