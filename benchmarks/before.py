"""Builds and searches of this checkout beside those of an older one, in turn on one machine.

    python -m benchmarks.before CHECKOUT --data EMBEDDINGS --out benchmarks/results/before-avx2.json
    python -m benchmarks.before CHECKOUT --data EMBEDDINGS --index INDEX --out benchmarks/results/before-scoreboard.json

CHECKOUT is a clone at an older commit, compiled in place; EMBEDDINGS a folder that ``benchmarks.embed`` made. Both
libraries build an index of the stream of ``benchmarks.scale``, each in a process of its own, and search the index of
this checkout, so that the same work is compared; with ``--index`` one that is there is searched, and none is built.
The turns are repeated; of a build the fastest counts, of a query the fastest search. Searches run on one thread and on
two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import load, read_json, write_json
from benchmarks.rivals.measure import percentiles
from benchmarks.rivals.run import machine
from benchmarks.scale import PerturbedDocuments, long_queries

ROOT = Path(__file__).resolve().parents[1]
THREADS, BUILDS, SEARCHES = (1, 2), 2, 8


def asked(checkout: Path, job: dict[str, Any], work: Path, module: str) -> Any:
    """What ``answer`` of a module of these benchmarks writes where the library is that of another checkout."""
    file = work / "job.json"
    write_json(file, job)
    code = f"import sys; sys.path.append({str(ROOT)!r}); from {module} import answer; answer({str(file)!r})"
    paths = f"{checkout}{os.pathsep}{checkout / 'kernels'}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=work, env={**os.environ, "PYTHONPATH": paths})
    return read_json(file.with_suffix(".result.json"))


def commit_of(checkout: Path) -> str:
    """The commit that is checked out."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    return found.stdout.strip()


def answer(file: str) -> None:
    """Writes what a process was asked for."""
    job = read_json(Path(file))
    write_json(Path(file).with_suffix(".result.json"), build(job) if job["phase"] == "build" else search(job))


def build(job: dict[str, Any]) -> dict[str, float]:
    """Seconds of a build, by its parts."""
    import lateint

    documents = PerturbedDocuments(load(Path(job["data"])), job["tokens"], threads=2)
    start = time.perf_counter()
    index = lateint.Index.build(documents, job["index"], nbits=2, threads=2, progress=False, overwrite=True)
    return {"all": time.perf_counter() - start, **index.stats()["build_seconds"]}


def search(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each query, the fastest of three, for each number of threads; and the ids that were found."""
    import lateint

    queries, index = long_queries(Path(job["data"]), job["queries"]), lateint.Index.open(job["index"])
    ids = [index.search(query, k=10).ids.tolist() for query in queries]
    found: dict[str, Any] = {"ids": ids, "tokens": index.stats()["tokens"]}
    for threads in THREADS:
        times = np.full((3, len(queries)), np.inf)
        for turn in times:
            for n, query in enumerate(queries):
                start = time.perf_counter()
                index.search(query, k=10, threads=threads)
                turn[n] = time.perf_counter() - start
        found[str(threads)] = times.min(0).tolist()
    return found


def main() -> None:
    """Measures both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--tokens", default="1e7", help="size of the index (default: %(default)s)")
    parser.add_argument("--index", type=Path, help="search this one, and build none")
    parser.add_argument("--queries", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    sides = {"before": args.checkout.resolve(), "now": ROOT}
    job: dict[str, Any] = {"data": str(args.data.resolve()), "tokens": int(float(args.tokens)), "queries": args.queries}
    here = machine(sorted(os.sched_getaffinity(0)))
    builds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    searches: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for _ in range(0 if args.index else BUILDS):
            for side, checkout in sides.items():
                path = str(work / side)
                builds[side].append(
                    asked(checkout, {**job, "phase": "build", "index": path}, work, "benchmarks.before")
                )
        path = str(args.index.resolve() if args.index else work / "now")
        for _ in range(SEARCHES):
            for side, checkout in sides.items():
                one = asked(checkout, {**job, "phase": "search", "index": path}, work, "benchmarks.before")
                searches[side].append(one)
    if any(one["ids"] != searches["now"][0]["ids"] for some in searches.values() for one in some):
        sys.exit("the two libraries find other hits")
    tokens = searches["now"][0]["tokens"]
    results: dict[str, Any] = {"machine": here, "tokens": tokens, "queries": args.queries}
    for side, checkout in sides.items():
        fastest = min(builds[side], key=lambda one: one["all"], default=None)
        milliseconds = {
            str(threads): percentiles(np.min([one[str(threads)] for one in searches[side]], axis=0).tolist())
            for threads in THREADS
        }
        results[side] = {"commit": commit_of(checkout), "build_seconds": fastest, "search": milliseconds}
    write_json(args.out, results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
