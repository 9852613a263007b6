"""What every adapter does the same way: read the job, time the system's own calls, write one JSON.

An adapter is a module run in the environment of its system, ``python -m benchmarks.rivals.NAME JOB.json OUT.json``.
It gives ``main`` two functions. ``build(job, data)`` makes the index and returns ``(seconds, parts)``, timed around
the system's own call, with the input opened as that system prefers it. ``opener(job)`` opens an index and returns a
``Searcher``. The driver pins the process to ``job["threads"]`` cores and sets the usual thread variables before it
starts, so one thread is one core. Only numpy and the standard library are imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.embeddings import Embeddings, fixed_queries, load

Job = dict[str, Any]
Build = Callable[[Job, Embeddings], tuple[float, dict[str, float]]]

WARM_UP = 10  # queries searched before any is timed
DEPTH = 10  # the k of every timed search


class Searcher(Protocol):
    """An open index."""

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """Document numbers, best first, for one query ``[Lq, dim]`` float32."""
        ...

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """The same for many queries at once."""
        ...


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes: memory-mapped pages that were touched count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def watched(command: Sequence[str], **settings: Any) -> tuple[int, int]:
    """Runs a command; its exit status, and the largest size of its memory that is no mapped file, in bytes.

    Looked at from outside twenty times a second, since the process itself may be busy in a library that holds the GIL.
    """
    largest = 0
    with subprocess.Popen(command, **settings) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it may end between the two lines
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        largest = max(largest, int(line.split()[1]) * 1024)
            time.sleep(0.05)
    return process.returncode, largest


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Their versions; lateint's own even where it runs from the source tree."""
    found = {}
    for name in packages:
        if name == "lateint":
            from lateint.version import __version__

            found[name] = __version__
        else:
            found[name] = version(name)
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {"p50_ms": statistics.median(seconds) * 1e3, "p95_ms": float(np.percentile(seconds, 95)) * 1e3}


def time_single(searcher: Searcher, queries: list[np.ndarray], setting: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Latency of one query at a time: every query at least once, then whole passes until the budget is used."""
    for query in queries[:WARM_UP]:
        searcher.single(query, setting)
    seconds: list[float] = []
    found: list[list[int]] = []
    start = time.perf_counter()
    while not found or time.perf_counter() - start < job["seconds"]:
        ids = []
        for query in queries:
            before = time.perf_counter()
            ids.append(searcher.single(query, setting))
            seconds.append(time.perf_counter() - before)
        found = found or ids
    return {**percentiles(seconds), "searches": len(seconds), "ids": found}


def time_batch(searcher: Searcher, queries: list[np.ndarray], setting: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Throughput of all queries in one call: the best of as many calls as fit the budget, at least one."""
    best, calls = float("inf"), 0
    found: list[list[int]] = []
    start = time.perf_counter()
    while not calls or time.perf_counter() - start < job["seconds"]:
        before = time.perf_counter()
        found = searcher.batch(queries, setting)
        best = min(best, time.perf_counter() - before)
        calls += 1
    return {"queries_per_second": len(queries) / best, "calls": calls, "batch_ids": found}


def main(packages: tuple[str, ...], build: Build, opener: Callable[[Job], Searcher]) -> None:
    """Runs the job named on the command line and writes what was measured."""
    job: Job = json.loads(Path(sys.argv[1]).read_text())
    result: dict[str, Any] = {"versions": versions(packages), "rss_after_import": peak_rss()}
    if job["phase"] == "build":
        seconds, parts = build(job, load(Path(job["data"])))
        result |= {"seconds": seconds, "parts": parts}
    else:
        queries = [query.tokens for query in fixed_queries(Path(job["data"]))]
        before = time.perf_counter()
        searcher = opener(job)
        result["open_seconds"] = time.perf_counter() - before
        result["settings"] = []
        for setting in job["settings"]:
            measured = time_single(searcher, queries, setting, job)
            if job["batch"]:
                measured |= time_batch(searcher, queries, setting, job)
            result["settings"].append({"setting": setting, **measured})
    times = os.times()
    result |= {"peak_rss": peak_rss(), "cpu_seconds": times.user + times.system}
    Path(sys.argv[2]).write_text(json.dumps(result))
