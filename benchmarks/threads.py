"""What a second thread is worth to a single query, while searches follow each other and after a pause.

    python -m benchmarks.threads --data EMBEDDINGS --out benchmarks/results/threads.json
    python -m benchmarks.threads --page docs/design.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made of several collections; each gets an index of 4 bits. In a stream,
``BLOCK`` queries follow each other on one thread, then the same ones on two, and so on. After a pause of ``PAUSE``
seconds the second thread sleeps. A query's time is the median of its turns, and the gain is the median over queries of
the ratio of both times.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of
from benchmarks.pruning import excerpts
from benchmarks.tables import command, machine_text, table
from lateint import Index

RESULT = Path(__file__).resolve().parent / "results" / "threads.json"
MARKS = "<!-- threads -->", "<!-- /threads -->"
LENGTHS, LONG = (8, 12, 32), 320  # tokens of a query
BLOCK, TURNS, MOST = 20, 9, 100  # queries in a row; times each is asked; queries of a length
PAUSE, PAUSED = 0.02, 20  # seconds; queries that are asked after one


def of_collection(data: Embeddings, name: str) -> Embeddings:
    """The documents of one collection, which lie together."""
    rows = [row for row, one in enumerate(data.ids) if one.startswith(f"{name}/")]
    first, last = rows[0], rows[-1] + 1
    tokens = data.tokens[data.offsets[first] : data.offsets[last]]
    return Embeddings(data.folder, tokens, data.lengths[first:last], data.ids[first:last])


def timed(index: Index, queries: list[NDArray[np.float32]], threads: int, pause: float) -> list[float]:
    """Milliseconds of each query."""
    found = []
    for query in queries:
        if pause:
            time.sleep(pause)
        start = time.perf_counter()
        index.search(query, k=10, threads=threads)
        found.append(1e3 * (time.perf_counter() - start))
    return found


def measure(index: Index, queries: list[NDArray[np.float32]], pause: float) -> dict[str, float]:
    """Times of one thread and of two, and what the second is worth."""
    times: dict[int, list[NDArray[np.float64]]] = {1: [], 2: []}
    for first in range(0, len(queries), BLOCK):
        some = queries[first : first + BLOCK]
        turns: dict[int, list[list[float]]] = {1: [], 2: []}
        for _ in range(TURNS):
            for threads, asked in turns.items():
                asked.append(timed(index, some, threads, pause))
        for threads, asked in turns.items():
            times[threads].append(np.median(asked, axis=0))
    one, two = (np.concatenate(times[threads]) for threads in (1, 2))
    ratio = float(np.median(one / two))
    return {"one_ms": float(np.median(one)), "two_ms": float(np.median(two)), "ratio": ratio}


def row_of(index: Index, name: str, length: int, queries: list[NDArray[np.float32]]) -> dict[str, Any]:
    """One row of the table."""
    stream, paused = measure(index, queries, 0.0), measure(index, queries[:PAUSED], PAUSE)
    row = {"collection": name, "query_tokens": length, "queries": len(queries), "stream": stream, "paused": paused}
    print(row, flush=True)
    return row


def measure_all(folder: Path) -> list[dict[str, Any]]:
    """Rows of all collections."""
    data, rows = load(folder), []
    for name in collections_of(folder):
        mine = of_collection(data, name)
        index = Index.build(mine.tokens, lengths=mine.lengths, nbits=4, progress=False)
        whole = [np.ascontiguousarray(query, np.float32) for query in queries_of(folder, name).values()]
        for length in LENGTHS:
            queries = [query[:length] for query in whole if len(query) >= length][:MOST]
            if len(queries) >= BLOCK:
                rows.append(row_of(index, name, length, queries))
        rows.append(row_of(index, name, LONG, excerpts(mine, BLOCK)))
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (row["collection"], str(row["query_tokens"]), f"{row['stream']['one_ms']:.2f} ms",
         f"{row['stream']['two_ms']:.2f} ms", f"{row['stream']['ratio']:.2f}x", f"{row['paused']['ratio']:.2f}x")
        for row in results["rows"]
    ]  # fmt: skip
    head = ("collection", "query tokens", "one thread", "two threads", "gain", "gain after a pause")
    return f"{machine_text(results['machine'])}\n\n{table(head, rows)}"


if __name__ == "__main__":
    command(__doc__, RESULT, MARKS, page, measure_all)
