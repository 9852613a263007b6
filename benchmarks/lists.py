"""Which inverted lists a search reads: of every query token as many, or of all tokens those that gain most; the
centroids of how many cells it looks at; and when it stops.

    python -m benchmarks.lists INDEX... --data EMBEDDINGS --out benchmarks/results/lists.json
    python -m benchmarks.lists --page docs/design.md

An INDEX is one that ``benchmarks.scale --keep`` left, EMBEDDINGS the folder it was made from; indexes of the same
tokens may differ in their cells. Every setting of each is asked every query in turn, on one thread, and a query's time
is its fastest. Recall is of the exhaustive top 10 on the same codes.
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
from lateint.retrieval.limits import limits
from lateint_kernels.codes.engine import Limits

RESULT = Path(__file__).resolve().parent / "results" / "lists.json"
MARKS = "<!-- lists -->", "<!-- /lists -->"
LENGTHS = 32, 12  # of queries
SHOWN = "nprobe", "lists", "cells", "candidates", "patience", "deviations"


def settings_of(usual: Limits) -> list[Limits]:
    """The default, and others that differ from it in one way each."""
    few = limits(10, centroids=10_000, ncells=100, documents=usual.candidates, tokens=480_000)  # of which all are read
    stops = {"candidates": few.candidates, "patience": few.patience, "deviations": few.deviations}
    others = [{"lists": usual.lists * 3 // 2}, {"lists": usual.lists * 2 // 3}]
    others += [{"nprobe": 2 * usual.nprobe}, {"nprobe": usual.nprobe // 2}]
    others += [{"cells": 2 * usual.cells}, {"cells": usual.cells // 2}, stops]
    return [usual, *(usual._replace(**other) for other in others)]


def measure(indexes: list[Any], queries: list[np.ndarray]) -> list[dict[str, Any]]:
    """Recall, time and entries of lists for each setting of each index."""
    asked = {}
    for number, index in enumerate(indexes):
        stats = index.stats()
        size = {"centroids": stats["centroids"], "ncells": stats["cells"], "tokens": stats["tokens"]}
        for n, scope in enumerate(settings_of(limits(10, **size, documents=stats["documents"]))):
            asked[f"{number} {n}"] = (index._snapshot.engine, scope, 1)
    rows = measured(asked, queries)
    for row, (engine, scope, _) in zip(rows, asked.values(), strict=True):
        entries = np.mean([engine.gather(query, scope).postings for query in queries])
        row |= {"entries": float(entries), **{name: getattr(scope, name) for name in SHOWN}}
        row["index"] = int(row["setting"].split()[0])
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (f"{results['cells'][row['index']]:,}", length,
         str(row["nprobe"]), str(row["lists"] or row["nprobe"]), str(row["cells"]),
         f"{row['candidates']:,}, {row['patience']}, {row['deviations']:.0f} sigma",
         f"{row['entries']:,.0f}", f"{row['recall_at_10']:.3f}", f"{row['p50_ms']:.2f} ms")
        for length, found in results["searches"].items()
        for row in found
    ]  # fmt: skip
    head = (
        "cells of the index", "query tokens", "probes", "lists a token", "cells", "stops", "entries of lists",
        "recall@10", "p50",
    )  # fmt: skip
    about = f"{results['tokens']:,} tokens, 2 bits, {results['centroids']:,} centroids, {results['queries']} queries."
    return f"{machine_text(results['machine'])} {about}\n\n{table(head, rows)}"


def main() -> None:
    """Measures, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="*")
    parser.add_argument("--queries", type=int, default=50, help="how many (default: %(default)s)")
    args = options(parser, RESULT, MARKS, page)
    if args is None:
        return
    if not args.index:
        parser.error("INDEX is needed")
    here, indexes = machine(sorted(os.sched_getaffinity(0))), [lateint.Index.open(path) for path in args.index]
    queries = long_queries(args.data, args.queries)
    cut = {length: [np.ascontiguousarray(query[:length]) for query in queries] for length in LENGTHS}
    searches = {str(length): measure(indexes, some) for length, some in cut.items()}
    stats = [index.stats() for index in indexes]
    results = {"machine": here, "tokens": stats[0]["tokens"], "centroids": stats[0]["centroids"]}
    results |= {"cells": [one["cells"] for one in stats], "queries": len(queries)}
    write_json(args.out, {**results, "searches": searches})


if __name__ == "__main__":
    main()
