"""What k-means costs and how good its centroids are, where its first iterations see parts of the sample.

    python -m benchmarks.kmeans --data EMBEDDINGS --out benchmarks/results/kmeans.json
    python -m benchmarks.kmeans --page docs/design.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made of several collections. Each of them, and random vectors, is built
with every setting, in turn, ``TURNS`` times, on two threads. The error is the mean distance of ``TOKENS`` tokens,
whether in the sample or not, from their centroids, in units of the embeddings. Overlap is that of searches of 4 bits
with the exact top 10. Queries of random vectors are the first tokens of documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of
from benchmarks.tables import command, machine_text, table
from benchmarks.threads import of_collection
from lateint import Index
from lateint.indexing import clustering
from lateint.indexing.clustering import Centroids
from lateint.indexing.encoding import Encoder
from lateint.timings import Timings
from lateint_kernels.codes.building import HostOperators, Operators

RESULT = Path(__file__).resolve().parent / "results" / "kmeans.json"
MARKS = "<!-- kmeans -->", "<!-- /kmeans -->"
TURNS, QUERIES, TOKENS, CHUNK, RANDOM = 3, 100, 200_000, 1 << 14, 1000


@dataclass(frozen=True)
class Setting:
    """Of so many tokens of the sample each iteration sees one."""

    parts: tuple[int, ...]

    @property
    def passes(self) -> float:
        """Tokens that are assigned, for each token of the sample."""
        return sum(1 / part for part in self.parts)

    def train(self, tokens: Any, count: int, *, seed: int, operators: Operators, **ignored: object) -> Centroids:
        """As `clustering.train`, but that each iteration sees the next part of the tokens, which are shuffled before.

        Parts that do not overlap matter: centroids that see the same tokens again fit these, and not the others.
        """
        rng = np.random.default_rng(seed)
        tokens = operators.take(tokens, rng.permutation(len(tokens)))
        centroids = clustering.group(operators.take(tokens, np.arange(count)), None, rng, operators)
        first = 0
        for part in self.parts:
            size = len(tokens) // part
            first = first if first + size <= len(tokens) else 0
            some = tokens[first : first + size]
            first += size
            nearest = clustering.assigner(centroids, operators)(some)
            rows = operators.means(some, nearest, count, partial(rng.integers, 0, size))
            centroids = clustering.group(rows, centroids.cells, rng, operators)
        return centroids


SETTINGS = tuple(map(Setting, ((1, 1, 1, 1), (1, 1, 1), (1, 1), (2, 2, 1, 1), (2, 1, 1), (4, 4, 2, 1))))


def built(data: Embeddings, setting: Setting) -> Index:
    """An index whose centroids were learned so."""
    with mock.patch.object(clustering, "train", setting.train):
        return Index.build(data.tokens, lengths=data.lengths, nbits=4, threads=2, progress=False)


def error(index: Index, tokens: NDArray[Any]) -> float:
    """Mean distance of tokens from their centroids."""
    operators = HostOperators(2)
    encoder = Encoder(index.codec, operators, Timings())
    nearest = clustering.assigner(encoder.centroids, operators)
    step, width, distances = index.codec.rotation.step, index.codec.rotation.width, []
    for first in range(0, len(tokens), CHUNK):
        scaled = encoder.rotate(np.asarray(tokens[first : first + CHUNK], np.float32))
        ids = nearest(operators.to_bytes(scaled))
        apart = scaled - (np.asarray(encoder.centroids.rows)[ids][:, :width].astype(np.float32) - 128)
        distances.append(np.linalg.norm(apart, axis=1))
    return float(step * np.concatenate(distances).mean())


def exact(data: Embeddings, queries: list[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
    """The best ten documents of each query, in float32."""
    tokens, found = np.asarray(data.tokens, np.float32), []
    for query in queries:
        scores = np.maximum.reduceat(query @ tokens.T, data.offsets[:-1], axis=1).sum(0)
        found.append(np.argsort(-scores, kind="stable")[:10])
    return found


def overlap(index: Index, queries: list[NDArray[np.float32]], truth: list[NDArray[np.int64]], **limits: Any) -> float:
    """With the exact top 10."""
    hits = index.search(queries, k=10, **limits)
    return float(np.mean([len(np.intersect1d(one.ids, best)) / 10 for one, best in zip(hits, truth, strict=True)]))


def random_vectors(folder: Path) -> tuple[Embeddings, list[NDArray[np.float32]]]:
    """Documents of unit vectors in all directions, which have no clusters, and queries."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 60, RANDOM)
    tokens = rng.standard_normal((lengths.sum(), 128), np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    data = Embeddings(folder, tokens, lengths, [str(row) for row in range(RANDOM)])
    return data, [tokens[first : first + 8] for first in data.offsets[:QUERIES]]


def collections(folder: Path) -> Iterator[tuple[str, Embeddings, list[NDArray[np.float32]]]]:
    """Name, documents and queries of each."""
    data = load(folder)
    for name in collections_of(folder):
        queries = [np.ascontiguousarray(query, np.float32) for query in queries_of(folder, name).values()]
        yield name, of_collection(data, name), queries[:QUERIES]
    yield "random vectors", *random_vectors(folder)


def measure(folder: Path) -> list[dict[str, Any]]:
    """Rows of all collections and settings."""
    rows = []
    for name, mine, queries in collections(folder):
        truth = exact(mine, queries)
        some = np.sort(np.random.default_rng(0).choice(len(mine.tokens), min(TOKENS, len(mine.tokens)), replace=False))
        seconds: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
        found: dict[Setting, Index] = {}
        for _ in range(TURNS):
            for setting in SETTINGS:
                found[setting] = built(mine, setting)
                seconds[setting].append(found[setting].stats()["build_seconds"]["centroids"])
        for setting, index in found.items():
            row = {
                "collection": name,
                "parts": list(setting.parts),
                "assigned_per_token": setting.passes,
                "centroids": len(index.codec.centroids),
                "seconds": min(seconds[setting]),
                "error": error(index, mine.tokens[some]),
                "overlap_exhaustive": overlap(index, queries, truth, exhaustive=True),
                "overlap_default": overlap(index, queries, truth),
            }
            print(row, flush=True)
            rows.append(row)
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (row["collection"], ", ".join(f"1/{part}" if part > 1 else "all" for part in row["parts"]),
         f"{row['seconds']:.2f} s", f"{row['error']:.4f}", f"{row['overlap_exhaustive']:.3f}",
         f"{row['overlap_default']:.3f}")
        for row in results["rows"]
    ]  # fmt: skip
    head = ("collection", "iterations see", "k-means", "error", "overlap, exhaustive", "default")
    return f"{machine_text(results['machine'])}\n\n{table(head, rows)}"


if __name__ == "__main__":
    command(__doc__, RESULT, MARKS, page, measure)
