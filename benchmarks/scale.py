"""How cost grows: indexes of 1e6 to 1e8 tokens, made by perturbing real embeddings.

    python -m benchmarks.scale --data EMBEDDINGS --tokens 1e6,1e7,3e7,1e8 --out benchmarks/results/scale.json

The set is a stream of copies of the real collection. In each copy every document is the first half of one real document
and the second half of another, and each token moves by a vector of norm ``NOISE``: a difference of two real tokens,
partly the document's own and partly the token's, then back to unit norm. So noise has the covariance of the data.
``NOISE`` is chosen from the data: on 4.6 M real tokens the nearest token of another document is 0.43 away on average
(0.49 with a quarter of the tokens, 0.55 with a sixteenth), and two copies of a token are about ``NOISE * sqrt(2)``,
0.42, apart. Sizes are nested: a smaller set is the start of a larger one.

What it shows: the cost of building, storing and searching at a size, with inverted lists, residuals and document
lengths like real ones. What it does not show: the quality of retrieval, since no document is about anything, nor how
the density of real text grows: real tokens come closer together with N (the distance above falls by a ninth for four
times the tokens), copies stay about as far apart as they are, and a query has as many near-equal answers as there are
copies. That makes scores bunch together, so recall of the exhaustive ranking of the same codes is if anything harder
here; residuals are about 5 % longer than real ones (mean 0.71 against 0.68 with 1,024 centroids on a million tokens).
Recall counts a document whose score is as high as the tenth of the exhaustive scan, so ties do not matter;
``same_ids_at_10`` counts ids. Searches have one thread; ``together`` is a single query on all of them. ``cold`` is the
first pass over the queries, with nothing of the index in the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of, read_json, write_json
from benchmarks.rivals.measure import peak_rss, percentiles, watched
from benchmarks.rivals.run import machine

NOISE = 0.3
OWN_SHARE = 0.75  # of the noise's variance; the rest is shared by the tokens of a document
BANK = 1 << 16  # noise vectors; a chunk uses a run of them from a random start, which costs no random access
CHUNK = 1 << 16  # tokens a chunk, about
BLOCK = 1 << 12  # tokens at a time within it: they stay in cache
QUERY_TOKENS = 32
PART = 1 << 25  # tokens that are scanned at a time
CHEAPER = {"nprobe": 48, "cells": 12}  # beside the default settings


class PerturbedDocuments:
    """The first ``tokens`` tokens of the stream, as chunks ``(tokens [T, dim] float32, lengths [n] int64)``.

    Each iteration starts afresh and gives the same chunks. A chunk is good until the next one is asked for.

    Args:
        data: the real collection.
        tokens: how many there are to be.
        seed: of every random choice.
        threads: that make a chunk.
    """

    def __init__(self, data: Embeddings, tokens: int, seed: int = 0, threads: int = 1) -> None:
        self.source, self.total, self.seed = np.asarray(data.tokens, np.float32), tokens, seed
        self.starts, self.lengths = data.offsets[:-1], data.lengths
        self.pool = ThreadPoolExecutor(threads)
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.integers(0, len(self.source), 2 * BANK))
        bank = self.source[rows][rng.permutation(2 * BANK)]
        bank = bank[:BANK] - bank[BANK:]
        bank /= np.maximum(np.linalg.norm(bank, axis=1, keepdims=True), 1e-6)
        self.own = bank * np.float32(NOISE * OWN_SHARE**0.5)  # [BANK, dim]
        self.shared = bank * np.float32(NOISE * (1 - OWN_SHARE) ** 0.5)
        self.room = np.empty((2 * CHUNK + int(self.lengths.max()), self.source.shape[1]), np.float32)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        left, copy = self.total, 0
        while left > 0:
            rng = np.random.default_rng([self.seed, copy])
            first, second = rng.permutation(len(self.lengths)), rng.permutation(len(self.lengths))
            # The first half of one document, rounded up, and the second half of another, rounded down: never empty.
            head, tail = (self.lengths[first] + 1) // 2, self.lengths[second] // 2
            ends = np.cumsum(head + tail)
            begin = 0
            while begin < len(first) and left > 0:
                done = ends[begin - 1] if begin else 0
                stop = max(begin + 1, int(np.searchsorted(ends, done + CHUNK, "right")))
                part = slice(begin, stop)
                spans = np.stack([self.starts[first[part]], self.starts[second[part]] + self.lengths[second[part]]], 1)
                spans[:, 1] -= tail[part]
                sizes = np.stack([head[part], tail[part]], 1)
                lengths = sizes.sum(1)
                kept = int(np.searchsorted(np.cumsum(lengths), left, "right"))
                if kept < len(lengths):  # the last document is cut, so that the total is met
                    lengths = lengths[: kept + 1].copy()
                    lengths[-1] = left - lengths[:-1].sum()
                    lengths = lengths[lengths > 0]
                yield self._chunk(spans.ravel(), sizes.ravel(), int(lengths.sum()), lengths, rng), lengths
                left -= int(lengths.sum())
                begin = stop
            copy += 1

    def _chunk(
        self, starts: np.ndarray, sizes: np.ndarray, total: int, lengths: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Tokens ``[total, dim]`` of the spans, moved."""
        ends = np.cumsum(sizes)
        rows = np.arange(ends[-1]) + np.repeat(starts - (ends - sizes), sizes)
        shared = rng.integers(0, BANK, len(lengths))[np.repeat(np.arange(len(lengths)), lengths)]
        own = int(rng.integers(0, BANK - BLOCK))
        result = self.room[:total]

        def fill(begin: int) -> None:
            moved = result[begin : begin + BLOCK]
            first = (own + begin * 7) % (BANK - BLOCK)
            np.take(self.source, rows[begin : begin + len(moved)], 0, moved, "clip")  # or a copy is made of it
            moved += self.own[first : first + len(moved)]
            moved += self.shared[shared[begin : begin + len(moved)]]
            moved /= np.sqrt(np.einsum("td,td->t", moved, moved))[:, None]

        list(self.pool.map(fill, range(0, total, BLOCK)))
        return result


def long_queries(folder: Path, most: int) -> list[np.ndarray]:
    """Real queries of at least ``QUERY_TOKENS`` tokens, cut to that, spread over the collections."""
    long = [
        np.ascontiguousarray(tokens[:QUERY_TOKENS], np.float32)
        for name in collections_of(folder)
        for tokens in queries_of(folder, name).values()
        if len(tokens) >= QUERY_TOKENS
    ]
    rows = np.unique(np.linspace(0, len(long) - 1, most).astype(int))
    return [long[row] for row in rows]


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Builds one index from the stream."""
    import lateint

    documents = PerturbedDocuments(load(Path(job["data"])), job["tokens"], threads=job["threads"])
    start = time.perf_counter()
    made = sum(len(lengths) for _, lengths in documents)
    stream = time.perf_counter() - start
    settings = {"nbits": job["nbits"], "threads": job["threads"], "max_ram": job["max_ram"]}
    start = time.perf_counter()
    index = lateint.Index.build(documents, job["index"], progress=False, **settings)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in Path(job["index"]).rglob("*") if path.is_file())
    return {
        "documents": made,
        "seconds": seconds,
        "stream_seconds_a_pass": stream,
        "max_ram": job["max_ram"],
        "peak_rss": peak_rss(),
        "bytes_per_token": size / job["tokens"],
        "stats": index.stats(),
    }


def search(job: dict[str, Any]) -> dict[str, Any]:
    """Latency with one thread, cold and warm, and with all; recall against the exhaustive scan of the same codes."""
    import lateint

    queries = long_queries(Path(job["data"]), job["queries"])
    cores = os.sched_getaffinity(0)
    forget(Path(job["index"]))
    before = time.perf_counter()
    index = lateint.Index.open(job["index"])
    opened = time.perf_counter() - before
    os.sched_setaffinity(0, {max(cores)})
    cold = _timed(index, queries, {})
    before = time.perf_counter()
    lateint.Index.open(job["index"])
    again = time.perf_counter() - before
    asked = {"default": {}, "cheaper": CHEAPER}
    seconds = {name: [t for _ in range(3) for t in _timed(index, queries, limits)] for name, limits in asked.items()}
    found = {name: [index.search(q, k=10, threads=1, **limits) for q in queries] for name, limits in asked.items()}
    memory = peak_rss()  # before the whole index is read
    os.sched_setaffinity(0, cores)
    _timed(index, queries[:10], {}, job["threads"])  # threads begin
    together = [t for _ in range(3) for t in _timed(index, queries, {}, job["threads"])]
    exact = kept_exhaustive(index, queries, job)
    measured = {name: {**percentiles(seconds[name]), **recalled(found[name], exact)} for name in asked}
    return {
        "queries": len(queries),
        "query_tokens": QUERY_TOKENS,
        "cold": {"open_ms": opened * 1e3, "first_search_ms": cold[0] * 1e3, **percentiles(cold)},
        "open_ms": again * 1e3,
        **measured["default"],
        "cheaper": {**CHEAPER, **measured["cheaper"]},
        "together": {"threads": job["threads"], **percentiles(together)},
        "peak_rss": memory,
    }


def forget(folder: Path) -> None:
    """Drops the files of an index from the system's cache, as after a restart."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def touch(size: int) -> None:
    """Uses so many bytes of memory once. The host of a virtual machine takes back memory that lay idle, and the first
    use of a gigabyte may then take seconds, which are not the build's.
    """
    pieces = [np.ones(min(1 << 28, size - first), np.uint8) for first in range(0, size, 1 << 28)]
    del pieces


def kept_exhaustive(index: Any, queries: list[np.ndarray], job: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """`exhaustive`, or what an earlier search of the same index with the same queries wrote: it may take an hour."""
    kept = Path(job["exact"])
    stats, crc = index.stats(), zlib.crc32(np.concatenate(queries).tobytes())
    asked = {"codec": stats["codec"], "tokens": stats["tokens"], "queries": crc}
    if kept.exists() and (known := read_json(kept))["asked"] == asked:
        return [(np.array(scores, np.float32), np.array(ids)) for scores, ids in known["best"]]
    found = exhaustive(index, queries, job["threads"])
    write_json(kept, {"asked": asked, "best": [(scores.tolist(), ids.tolist()) for scores, ids in found]})
    return found


def exhaustive(index: Any, queries: list[np.ndarray], threads: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and ids of the true best ten of each query: a part of the documents for all queries, then the next, so
    that what does not fit into memory is read once.
    """
    parts = max(1, round(index.stats()["tokens"] / PART))
    scores, ids = [[] for _ in queries], [[] for _ in queries]
    for part in np.array_split(np.arange(len(index)), parts):
        chosen = index.subset(part)
        for number, query in enumerate(queries):
            hits = index.search(query, k=10, exhaustive=True, subset=chosen, threads=threads)
            scores[number].append(np.asarray(hits.scores))
            ids[number].append(np.asarray(hits.ids))
    best = []
    for of_query, its_ids in zip(scores, ids, strict=True):
        found, names = np.concatenate(of_query), np.concatenate(its_ids)
        order = np.lexsort((names, -found))[:10]
        best.append((found[order], names[order]))
    return best


def _timed(index: Any, queries: list[np.ndarray], limits: dict[str, int], threads: int = 1) -> list[float]:
    """Seconds of each query."""
    seconds = []
    for query in queries:
        before = time.perf_counter()
        index.search(query, k=10, threads=threads, **limits)
        seconds.append(time.perf_counter() - before)
    return seconds


def recalled(found: list[Any], exact: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over queries: documents with the score of the true tenth or more, and the same ids."""
    recalls, same = [], []
    for hits, (scores, ids) in zip(found, exact, strict=True):
        recalls.append(float(np.mean(np.asarray(hits.scores) >= scores[-1] - 1e-5)))
        same.append(len(set(np.asarray(hits.ids).tolist()) & set(ids.tolist())) / len(ids))
    return {"recall_at_10": statistics.mean(recalls), "same_ids_at_10": statistics.mean(same)}


def main() -> None:
    """Builds and searches each size, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--tokens", default="1e6,1e7,3e7,1e8", help="sizes (default: %(default)s)")
    parser.add_argument("--nbits", type=int, default=2, help="bits a dimension (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=100, help="queries a size (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the build (default: %(default)s)")
    parser.add_argument("--max-ram", type=float, help="bytes that the build works with (default: no limit)")
    parser.add_argument("--touch", type=float, default=0, help="bytes of memory that are used once before a build")
    parser.add_argument("--work", type=Path, help="folder for the indexes (default: a temporary one)")
    parser.add_argument("--reuse", action="store_true", help="take the indexes that --work holds; the JSON says so")
    parser.add_argument("--keep", action="store_true", help="do not delete each index after its turn")
    parser.add_argument("--add", action="store_true", help="leave the other sizes of --out as they are")
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)  # how the processes for one size are started
    args = parser.parse_args()
    if args.job:
        job = read_json(args.job)
        write_json(args.job.with_suffix(".result.json"), build(job) if job["phase"] == "build" else search(job))
        return
    if args.out is None:
        parser.error("--out is needed")
    scratch = None if args.work else tempfile.TemporaryDirectory()
    work = args.work or Path(scratch.name if scratch else "")
    work.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    sizes = {row["tokens"]: row for row in read_json(args.out)["sizes"]} if args.add else {}
    for tokens in (int(float(size)) for size in args.tokens.split(",")):
        index = work / f"index-{tokens}"
        row: dict[str, Any] = {"tokens": tokens, "nbits": args.nbits, "machine": machine(cores)}
        built = work / f"build-{tokens}.measured.json"
        reused = args.reuse and index.exists() and built.exists() and read_json(built)["stats"]["nbits"] == args.nbits
        if reused:
            row["build"] = {**read_json(built), "reused": True}
        else:
            shutil.rmtree(index, ignore_errors=True)
        for phase in ("search",) if reused else ("build", "search"):
            job = {"phase": phase, "index": str(index), "data": str(args.data), "tokens": tokens, "nbits": args.nbits}
            job["exact"] = str(work / f"exact-{tokens}.json")
            file = work / f"{phase}-{tokens}.json"
            max_ram = None if args.max_ram is None else int(args.max_ram)
            write_json(file, {**job, "queries": args.queries, "threads": args.threads, "max_ram": max_ram})
            command = [sys.executable, "-m", "benchmarks.scale", "--data", str(args.data), "--job", str(file)]
            if phase == "build":
                touch(int(args.touch))
            status, anonymous = watched(command)
            if status:
                sys.exit(f"{phase} of {tokens} tokens failed with exit status {status}")
            row[phase] = {**read_json(file.with_suffix(".result.json")), "peak_anonymous": anonymous}
            if phase == "build":
                row[phase]["touched_before"] = int(args.touch)
                write_json(built, row[phase])
            print(json.dumps({"tokens": tokens, phase: row[phase]}), flush=True)
        sizes[tokens] = row
        write_json(args.out, {"noise": NOISE, "sizes": [sizes[tokens] for tokens in sorted(sizes)]})
        if not args.keep:
            shutil.rmtree(index)
    if scratch:
        scratch.cleanup()


if __name__ == "__main__":
    main()
