"""Page images: documents of 1,024 patches, searched by default and exhaustively.

    python -m benchmarks.pages EMBEDDINGS --out benchmarks/results/pages.json
    python -m benchmarks.pages --page PAGE.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made. A page is a run of 1,024 tokens of the stream of
``benchmarks.scale``: some four passages of real tokens, moved a little, as a page has some regions. Queries are those
of the collection. Both ways of searching are asked every query in turn, a few times; a query's time is its fastest.
Recall is of the exhaustive top 10 on the same codes; a page with the score of the tenth counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import collections_of, load, queries_of, write_json
from benchmarks.rivals.run import machine
from benchmarks.scale import PerturbedDocuments
from benchmarks.tables import between
from lateint import Index

PATCHES, QUERIES, REPEATS = 1024, 100, 3
MARKS = "<!-- pages -->", "<!-- /pages -->"


class Pages:
    """So many pages, as chunks ``(tokens [T, dim] float32, lengths [n] int64)``."""

    def __init__(self, folder: Path, count: int) -> None:
        self.stream = PerturbedDocuments(load(folder), count * PATCHES)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        left: list[NDArray[Any]] = []
        for tokens, _ in self.stream:
            joined = np.concatenate([*left, tokens])
            whole = len(joined) // PATCHES
            yield joined[: whole * PATCHES], np.full(whole, PATCHES, np.int64)
            left = [joined[whole * PATCHES :]]


def measured(folder: Path, count: int, nbits: int, path: Path) -> dict[str, Any]:
    """Times and recall of an index of so many pages."""
    index = Index.build(Pages(folder, count), path, nbits=nbits, progress=False)
    (collection,) = collections_of(folder)
    queries = [np.ascontiguousarray(q, np.float32) for q in queries_of(folder, collection).values()][:QUERIES]
    ways: dict[str, dict[str, Any]] = {"default": {}, "exhaustive": {"exhaustive": True}}
    times = {name: np.full(len(queries), np.inf) for name in ways}
    recall = []
    for turn in range(REPEATS):
        for i, query in enumerate(queries):
            hits = {}
            for name, options in ways.items():
                start = time.perf_counter()
                hits[name] = index.search(query, k=10, threads=1, **options)
                times[name][i] = min(times[name][i], time.perf_counter() - start)
            if turn == 0:
                recall.append(float(np.mean(hits["default"].scores >= hits["exhaustive"].scores[-1])))
    p50 = {name: 1e3 * float(np.median(found)) for name, found in times.items()}
    return {
        "pages": count,
        "patches": PATCHES,
        "nbits": nbits,
        "centroids": index.stats()["centroids"],
        "query_tokens": float(np.mean([len(query) for query in queries])),
        "recall_at_10": float(np.mean(recall)),
        "p50_ms": p50,
        "ratio": float(np.median(times["exhaustive"] / times["default"])),
    }


def page(report: dict[str, Any]) -> str:
    """The table, between the marks of a page."""
    lines = [
        "| pages of 1,024 patches | bits | recall@10 | default, p50 | exhaustive, p50 | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['pages']:,} | {one['nbits']} | {one['recall_at_10']:.3f} | {one['p50_ms']['default']:.1f} ms "
        f"| {one['p50_ms']['exhaustive']:.0f} ms | {one['ratio']:.0f} |"
        for one in report["sizes"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pages", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--nbits", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pages.json"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.folder:
        rows = []
        for count in options.pages:
            for nbits in options.nbits:
                with tempfile.TemporaryDirectory(prefix="lateint-pages-") as folder:
                    rows.append(measured(options.folder, count, nbits, Path(folder) / "index"))
        write_json(options.out, {"machine": machine([0]), "sizes": rows})
    if options.page:
        between(options.page, MARKS, page(json.loads(options.out.read_text())))


if __name__ == "__main__":
    main()
