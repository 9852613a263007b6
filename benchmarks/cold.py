"""Searches whose index is on the disk and not in memory: how long they take, and how much they read.

    python -m benchmarks.cold --data EMBEDDINGS --out benchmarks/results/cold.json [--before CHECKOUT] [--add]
    python -m benchmarks.cold --page docs/sizing.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made; the index is the stream of ``benchmarks.scale``. Before each
query the files that are named are dropped from this process and from the system's cache, which needs Linux and a folder
on a disk. ``read`` is what the system read for the query. ``--before`` is a checkout of an older commit, compiled in
place, whose library searches the same index, in a process of its own. How much the system reads around a page that is
missing is a setting of the disk (``read_ahead_kb``); ``--add`` keeps what was measured with another one.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.before import ROOT, asked, commit_of
from benchmarks.embeddings import load, read_json, write_json
from benchmarks.rivals.measure import percentiles
from benchmarks.rivals.run import machine
from benchmarks.scale import PerturbedDocuments, long_queries
from benchmarks.tables import machine_text, number, options, table

MARKS = "<!-- cold -->", "<!-- /cold -->"
CODES = "codes.npy", "scales.npy", "centroid_ids.npy", "centroid_high.npy"
DROPPED = {"nothing": (), "codes": CODES, "all": (".npy",)}  # how the names of files end
MADV_DONTNEED = 4
READ_AHEAD = Path("/sys/class/bdi")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds and megabytes of each kind, of the library that this process imports."""
    import lateint

    path, queries = Path(job["index"]), long_queries(Path(job["data"]), job["queries"])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.sync()
    index = lateint.Index.open(path)
    found: dict[str, Any] = {}
    for query in queries:
        index.search(query, k=10, threads=1)
    for name, ends in DROPPED.items():
        seconds, read, hits = [], [], []
        for query in queries:
            _drop(path, ends)
            before, start = _bytes_read(), time.perf_counter()
            hits.append(index.search(query, k=10, threads=1).ids)
            seconds.append(time.perf_counter() - start)
            read.append((_bytes_read() - before) / 1e6)
        found[name] = {**percentiles(seconds), "read_mb": float(np.median(read)), "ids": np.stack(hits).tolist()}
    return found


def _drop(folder: Path, ends: tuple[str, ...]) -> None:
    """Files whose names end so: their pages leave this process first, for the system keeps what is mapped."""
    if not ends:
        return
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name.startswith(str(folder)) and name.endswith(ends):
            first, end = (int(one, 16) for one in span.split("-"))
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_DONTNEED)
    for path in folder.rglob("*"):
        if path.name.endswith(ends):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _read_ahead(folder: Path) -> int | None:
    """Bytes that the system reads around a page that is missing, on the disk of a folder; None: it does not tell."""
    device = os.stat(folder).st_dev
    file = READ_AHEAD / f"{os.major(device)}:{os.minor(device)}" / "read_ahead_kb"
    return int(file.read_text()) * 1024 if file.exists() else None


def answer(file: str) -> None:
    """Writes what a process was asked for."""
    write_json(Path(file).with_suffix(".result.json"), measure(read_json(Path(file))))


def page(runs: list[dict[str, Any]]) -> str:
    """A table of each run."""
    return "\n\n".join(map(_table, runs))


def _table(results: dict[str, Any]) -> str:
    rows = []
    for name, label in (("nothing", "nothing"), ("codes", "codes"), ("all", "everything")):
        cells = [label]
        for which in ("before", "now"):
            if which in results:
                one = results[which][name]
                cells += [f"{number(one['p50_ms'])} ms", f"{number(one['p95_ms'])} ms", f"{number(one['read_mb'])} MB"]
        rows.append(tuple(cells))
    columns = ("p50", "p95", "read")
    head = ["on disk only"]
    if "before" in results:
        head += [f"{one}, `{results['before']['commit'][:7]}`" for one in columns]
    head += columns
    ahead = results["read_ahead_bytes"]
    around = "" if ahead is None else f" Around a page that is missing, this system reads {number(ahead / 1e6)} MB."
    size = f"{results['tokens']:,} tokens, {number(results['bytes'] / 1e9)} GB, {results['queries']} queries."
    return f"{machine_text(results['machine'])} {size}{around}\n\n{table(tuple(head), rows)}"


def main() -> None:
    """Measures, or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="3e7", help="size of the index (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="an older checkout to measure as well")
    parser.add_argument("--work", type=Path, help="folder for the index, which is kept there and taken again")
    parser.add_argument("--add", action="store_true", help="leave the other runs of --out as they are")
    args = options(parser, ROOT / "benchmarks" / "results" / "cold.json", MARKS, lambda result: page(result["runs"]))
    if args is None:
        return
    import lateint

    with tempfile.TemporaryDirectory() as scratch:
        work = (args.work or Path(scratch)).resolve()
        index, tokens = work / "index", int(float(args.tokens))
        if not index.exists():
            documents = PerturbedDocuments(load(args.data), tokens, threads=2)
            lateint.Index.build(documents, index, nbits=2, progress=False)
        job = {"index": str(index), "data": str(args.data.resolve()), "queries": args.queries}
        checkouts = {"now": ROOT, **({"before": args.before.resolve()} if args.before else {})}
        found = {
            side: {"commit": commit_of(checkout), **asked(checkout, job, work, "benchmarks.cold")}
            for side, checkout in checkouts.items()
        }
        ids = [[one[name].pop("ids") for name in DROPPED] for one in found.values()]
        if any(one != ids[0][0] for some in ids for one in some):
            sys.exit("hits depend on what is in memory, or on the library")
        results = {
            "machine": machine(sorted(os.sched_getaffinity(0))),
            "tokens": tokens,
            "bytes": sum(path.stat().st_size for path in index.rglob("*") if path.is_file()),
            "queries": args.queries,
            "read_ahead_bytes": _read_ahead(index),
            **found,
        }
    write_json(args.out, {"runs": [*(read_json(args.out)["runs"] if args.add else []), results]})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
