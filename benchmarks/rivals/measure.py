"""What every adapter does the same way: read the job, build an index or answer queries, time the system's own calls.

An adapter is a module run in the environment of its system, ``python -m benchmarks.rivals.NAME JOB.json [OUT.json]``.
It gives ``main`` two functions. ``build(job, data)`` makes the index and returns ``(seconds, parts)``, timed around
the system's own call, with the input opened as that system prefers it; what was measured is written to ``OUT.json``.
``opener(job)`` opens an index and returns a ``Searcher``, which answers what is asked on the standard input, a line of
JSON each. The driver pins the process to ``job["threads"]`` cores and sets the usual thread variables before it starts,
so one thread is one core. Only numpy and the standard library are imported here.
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

from benchmarks.embeddings import Embeddings, load

Job = dict[str, Any]
Build = Callable[[Job, Embeddings], tuple[float, dict[str, float]]]

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


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {"p50_ms": statistics.median(seconds) * 1e3, "p95_ms": float(np.percentile(seconds, 95)) * 1e3}


def read_queries(path: Path) -> list[np.ndarray]:
    """The queries ``[Lq, dim]`` float32 that the driver saved."""
    with np.load(path) as saved:
        return np.split(saved["tokens"], np.cumsum(saved["lengths"])[:-1])


def answer(searcher: Searcher, queries: list[np.ndarray], order: Mapping[str, Any]) -> dict[str, Any]:
    """What was found for the queries that the order names, and the seconds of every call, by the clock and of CPU."""
    asked = [queries[number] for number in order["queries"]]
    if order["batch"]:
        start = time.perf_counter()
        found = searcher.batch(asked, order["setting"])
        return {"seconds": [time.perf_counter() - start], "ids": found, "peak_rss": peak_rss()}
    seconds, spent, ids = [], [], []
    for query in asked:
        before, start = time.process_time(), time.perf_counter()
        ids.append(searcher.single(query, order["setting"]))
        seconds.append(time.perf_counter() - start)
        spent.append(time.process_time() - before)
    return {"seconds": seconds, "cpu_seconds": spent, "ids": ids, "peak_rss": peak_rss()}


def answer_all(packages: Sequence[str], job: Job, opener: Callable[[Job], Searcher]) -> None:
    """Opens the index and answers orders until there are none."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print where they like
    queries = read_queries(Path(job["queries"]))
    start = time.perf_counter()
    searcher = opener(job)
    print(json.dumps({"open_seconds": time.perf_counter() - start, "versions": versions(packages)}), file=replies)
    for line in sys.stdin:
        try:
            reply = answer(searcher, queries, json.loads(line))
        except Exception as error:  # one setting that fails is no reason to lose the others
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)


def main(packages: tuple[str, ...], build: Build, opener: Callable[[Job], Searcher]) -> None:
    """Does the job named on the command line."""
    job: Job = json.loads(Path(sys.argv[1]).read_text())
    if job["phase"] == "answer":
        answer_all(packages, job, opener)
        return
    result: dict[str, Any] = {"versions": versions(packages), "rss_after_import": peak_rss()}
    seconds, parts = build(job, load(Path(job["data"])))
    times = os.times()
    result |= {"seconds": seconds, "parts": parts, "peak_rss": peak_rss(), "cpu_seconds": times.user + times.system}
    Path(sys.argv[2]).write_text(json.dumps(result))
