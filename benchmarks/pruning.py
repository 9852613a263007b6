"""What pruning costs and what it saves: number of centroids, probes and the stopping rule, chosen together.

    python -m benchmarks.pruning EMBEDDINGS... --out benchmarks/results/pruning.json
    python -m benchmarks.pruning --page docs/design.md

Each EMBEDDINGS is a folder that ``benchmarks.embed`` made of one collection. Every setting is asked every query in
turn, a few times over, so that other work on the machine meets all of them; a query's time is its fastest. Recall is of
the exhaustive top k on the codes of the same index, overlap of the exact float32 top 10.

Queries are those of the collection, the same cut to 12 tokens, and excerpts of documents: ``EXCERPT`` tokens in a row,
each moved by a random vector of norm 0.5. The last setting is asked on two threads, too. What is measured again
replaces what the file has of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of, write_json
from benchmarks.rivals.run import machine
from benchmarks.tables import between
from lateint import Index
from lateint.retrieval.limits import limits
from lateint_kernels import Ragged
from lateint_kernels.codes.engine import Limits

BEFORE = Limits(16, 512 + 4 * 10, patience=96)  # with N/240 centroids
QUERIES, REPEATS, EXCERPT, SHORT = 200, 5, 320, 12
COLUMNS = "N/240, before", "N/48, before", "N/48, probes", "N/48, probes and line", "default"
MARKS = "<!-- pruning -->", "<!-- /pruning -->"


def excerpts(data: Embeddings, count: int) -> list[NDArray[np.float32]]:
    """Long queries, such as passages or pictures."""
    rng = np.random.default_rng(0)
    found = []
    for start in rng.integers(0, len(data.tokens) - EXCERPT, count):
        tokens = data.tokens[start : start + EXCERPT].astype(np.float32)
        tokens += rng.standard_normal(tokens.shape, np.float32) * np.float32(0.5 / tokens.shape[1] ** 0.5)
        found.append(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))
    return found


def sets_of(folder: Path, data: Embeddings) -> dict[str, list[NDArray[np.float32]]]:
    """Queries by name."""
    (collection,) = collections_of(folder)
    queries = [np.ascontiguousarray(q, np.float32) for q in queries_of(folder, collection).values()][:QUERIES]
    short = [np.ascontiguousarray(query[:SHORT]) for query in queries]
    return {"queries": queries, f"{SHORT} tokens": short, f"{EXCERPT} tokens": excerpts(data, QUERIES // 4)}


def measured(settings: dict[str, tuple[Any, Limits, int]], queries: list[NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Recall and time of each setting: a name, and an engine with limits and a number of threads."""
    times = {name: np.full(len(queries), np.inf) for name in settings}
    recall: dict[str, list[float]] = {name: [] for name in settings}
    exact: dict[tuple[int, int], NDArray[np.int64]] = {}
    for turn in range(REPEATS):
        for i, query in enumerate(queries):
            whole = np.array([0, len(query)])
            for name, (engine, scope, threads) in settings.items():
                start = time.perf_counter()
                ((positions, _),) = engine.search(query, whole, 10, scope, threads=threads)
                times[name][i] = min(times[name][i], time.perf_counter() - start)
                if turn == 0:
                    if (i, id(engine)) not in exact:
                        exact[i, id(engine)] = engine.exhaustive(query, whole, 10)[0][0]
                    best = exact[i, id(engine)]
                    recall[name].append(len(np.intersect1d(positions, best)) / len(best))
    return [
        {"setting": name, "recall_at_10": float(np.mean(recall[name])), "p50_ms": 1e3 * float(np.median(times[name]))}
        for name in settings
    ]


def collection(folder: Path, nbits: int) -> dict[str, Any]:
    """One collection at one width, with as many centroids as before and as by default now."""
    data = load(folder)
    documents = Ragged.from_lengths(data.tokens, data.lengths)
    engines, builds = {}, {}
    for name, count in (("N/240", len(data.tokens) // 240), ("N/48", None)):
        start = time.process_time()
        index = Index.build(documents, nbits=nbits, ncentroids=count, progress=False)
        builds[name] = {
            "cpu_seconds": time.process_time() - start,
            "centroids": index.codec.centroids.rows.shape[0],
            "bytes_a_token": index.stats()["bytes_per_token"]["all"],
        }
        engines[name], ncells = index._snapshot.engine, index.stats()["cells"]
    many = builds["N/48"]["centroids"]
    size = {"centroids": many, "ncells": ncells}
    now = limits(10, **size, documents=len(data.lengths), tokens=len(data.tokens))
    few, many_centroids = engines["N/240"], engines["N/48"]
    settings = {
        "N/240, before": (few, BEFORE, 1),
        "N/48, before": (many_centroids, BEFORE, 1),
        "N/48, probes": (many_centroids, now._replace(deviations=0.0, sampled=0), 1),
        "N/48, probes and line": (many_centroids, now._replace(sampled=0), 1),
        "default": (many_centroids, now, 1),
        "default, two threads": (many_centroids, now, 2),
    }
    found = {name: measured(settings, queries) for name, queries in sets_of(folder, data).items()}
    return {"collection": collections_of(folder)[0], "nbits": nbits, "tokens": len(data.tokens), "builds": builds,
            "limits": now._asdict(), "searches": found}  # fmt: skip


def _cell(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['recall_at_10']:.3f}, {found['p50_ms']:.2f} ms"


def page(report: dict[str, Any]) -> str:
    """The table in docs/design.md."""
    lines = [
        "| collection, bits | centroids | build, CPU s | bytes/token | queries "
        "| before | more centroids | more probes | the line | some tokens | two threads |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["collections"]:
        old, new = row["builds"]["N/240"], row["builds"]["N/48"]
        first = [
            f"{row['collection']}, {row['nbits']}",
            f"{old['centroids']:,} / {new['centroids']:,}",
            f"{old['cpu_seconds']:.1f} / {new['cpu_seconds']:.1f}",
            f"{old['bytes_a_token']:.1f} / {new['bytes_a_token']:.1f}",
        ]
        for name, found in row["searches"].items():
            by_name = {one["setting"]: one for one in found}
            cells = [_cell(by_name.get(setting)) for setting in COLUMNS]
            one, two = by_name.get("default"), by_name.get("default, two threads")
            cells.append(f"{one['p50_ms'] / two['p50_ms']:.2f}x" if one and two else "-")
            lines.append("| " + " | ".join([*first, name, *cells]) + " |")
            first = [""] * len(first)
    return "\n".join(lines)


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--nbits", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning.json"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.folders:
        rows = [collection(folder, nbits) | {"machine": machine([0, 1])}
                for folder in options.folders for nbits in options.nbits]  # fmt: skip
        measured_now = {(row["collection"], row["nbits"]) for row in rows}
        known = json.loads(options.out.read_text()) if options.out.exists() else {"collections": []}
        kept = [row for row in known["collections"] if (row["collection"], row["nbits"]) not in measured_now]
        write_json(options.out, known | {"collections": [*kept, *rows]})
    if options.page:
        between(options.page, MARKS, page(json.loads(options.out.read_text())))


if __name__ == "__main__":
    main()
