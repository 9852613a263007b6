"""The sample, and indexes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import collections_of, exact_top, load, queries_of
from lateint.indexing import builder, clustering
from lateint.indexing.codec import Rotation, train_rotation
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.centroids import invert
from lateint_kernels.codes.engine import Engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays

TRUTH_DEPTH = 100
PROBE_TOKENS = 20_000  # tokens on which errors of single inner products are measured
Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Documents end to end, queries, and the exact top ``TRUTH_DEPTH`` of each query."""

    tokens: np.ndarray  # [N, dim] float16
    offsets: np.ndarray  # [n + 1] int64
    queries: list[np.ndarray]  # [Lq, dim] float32
    truth: np.ndarray  # [nq, TRUTH_DEPTH]

    @cached_property
    def picks(self) -> np.ndarray:
        """Rows of the tokens on which single inner products are compared."""
        return np.sort(np.random.default_rng(1).choice(len(self.tokens), PROBE_TOKENS, replace=False))

    @cached_property
    def query_tokens(self) -> np.ndarray:
        """All query tokens ``[T, dim]``."""
        return np.concatenate(self.queries)


def spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` numbers, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def take_sample(folder: Path, tokens: int, queries: int) -> Sample:
    """Evenly spaced documents of together about ``tokens`` tokens."""
    data = load(folder)
    rows = spread(len(data.lengths), int(len(data.lengths) * min(1, tokens / data.lengths.sum())))
    parts = [data.tokens[data.offsets[row] : data.offsets[row + 1]] for row in rows]
    offsets = np.concatenate([[0], np.cumsum(data.lengths[rows])]).astype(np.int64)
    chosen: list[np.ndarray] = []
    names = collections_of(folder)
    for name in names:
        found = list(queries_of(folder, name).values())
        chosen += [np.ascontiguousarray(found[row], np.float32) for row in spread(len(found), queries // len(names))]
    packed = np.concatenate(parts)
    return Sample(packed, offsets, chosen, exact_top(packed, offsets, chosen, TRUTH_DEPTH)[0])


@dataclass
class Coded:
    """Tokens as the engine sees them: rotated, cut to bytes, each with its centroid."""

    rotation: Rotation
    scaled: np.ndarray  # [N, width] float32, in units of the step
    rows: np.ndarray  # [N, depth] uint8
    centroids: clustering.Centroids
    ids: np.ndarray  # [N] uint32
    offsets: np.ndarray  # [n + 1]
    train_seconds: float

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Inverted lists: offsets ``[K + 1]`` and documents."""
        return invert(self.ids, self.offsets, len(self.centroids))

    @property
    def residual_norm(self) -> float:
        """Mean distance of a token from its centroid, on the scale of the embeddings, over every 16th token."""
        some = slice(None, None, 16)
        centres = self.centroids.rows[self.ids[some], : self.scaled.shape[1]].astype(np.float32) - 128
        return float(np.linalg.norm(self.scaled[some] - centres, axis=1).mean() * self.rotation.step)


def learned_rotation(tokens: np.ndarray, *, identity: bool = False, reach: float | None = None) -> Rotation:
    """Mean, rotation and step as `Index.build` learns them; without the rotation, or with another limit of the step.

    ``reach`` takes the place of `lateint.indexing.codec.REACH`; infinity cuts nothing.
    """
    pilot = np.ascontiguousarray(tokens[spread(len(tokens), builder.PILOT)])
    learned = train_rotation(pilot, seed=0, threads=0)
    if identity:
        learned = dataclasses.replace(learned, blocks=np.eye(learned.width, dtype=np.float32)[None])
    elif reach is None:
        return learned
    peaks = np.abs(learned.apply(pilot, step=1.0)).max(1)
    largest = min(float(peaks.max()), (reach or np.inf) * float(np.median(peaks)))
    return dataclasses.replace(learned, step=float(np.float32(largest / 127)))


def trained(
    rows: np.ndarray,
    count: int,
    *,
    cells: int = clustering.CELLS_SEARCHED,
    iterations: int = builder.ITERATIONS,
    per_centroid: int = builder.SAMPLE_PER_CENTROID,
) -> tuple[clustering.Centroids, float]:
    """Centroids learned from a random sample of the rows, and the seconds it took."""
    pick = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), count * per_centroid), replace=False))
    part = rows[pick]
    start = time.perf_counter()
    centroids = clustering.train(part, count, iterations=iterations, seed=0, cells_searched=cells)
    return centroids, time.perf_counter() - start


def code(
    sample: Sample, rotation: Rotation, count: int | None = None, base: Coded | None = None, **training: int
) -> Coded:
    """Runs a build up to the centroid of each token; takes the bytes of ``base`` where there is one."""
    scaled = base.scaled if base else rotation.apply(sample.tokens)
    rows = base.rows if base else residual.to_bytes(scaled)
    centroids, seconds = trained(rows, count or builder.default_centroids(len(rows)), **training)
    ids = clustering.assigner(centroids, HostOperators())(rows)
    return Coded(rotation, scaled, rows, centroids, ids, sample.offsets, seconds)


def engine_of(coded: Coded, nbits: int, codes: np.ndarray | None = None, scales: np.ndarray | None = None) -> Engine:
    """An engine over one segment. Codes of 8 bits are bytes, so any decoded tokens can be scored by passing them."""
    rotation, centroids = coded.rotation, coded.centroids
    if codes is None:
        codes, scales = residual.encode(coded.scaled, coded.ids, centroids.rows, nbits)
    low, high = residual.split_ids(coded.ids, len(centroids))
    shared = CodecArrays(
        rotation.mean,
        rotation.blocks,
        rotation.permutation,
        centroids.rows,
        centroids.cells,
        centroids.cell_offsets,
        rotation.step,
        nbits,
    )
    kept = None if nbits == 8 else scales
    return Engine(shared, [SegmentArrays(coded.offsets, codes, kept, low, high, *coded.lists)])


def gather_only(coded: Coded) -> Engine:
    """An engine for the coarse stage alone: its codes are empty."""
    tokens = len(coded.ids)
    return engine_of(coded, 1, np.zeros((tokens, coded.scaled.shape[1] // 8), np.uint8), np.zeros(tokens, np.uint8))


def whole(query: np.ndarray) -> np.ndarray:
    """Offsets of a batch of one query."""
    return np.array([0, len(query)], np.int64)


def exhaustive(engine: Engine, queries: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
    """Positions of the best k of each query."""
    return [engine.exhaustive(query, whole(query), k)[0][0] for query in queries]


def overlap(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], k: int = 10) -> float:
    """Mean share of the true best k that was found."""
    return float(np.mean([len(np.intersect1d(a, b[:k])) / k for a, b in zip(found, truth, strict=True)]))


def ranked(documents: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Documents best first, ties by position."""
    return documents[np.argsort(-scores, kind="stable")]


def latency(search: Callable[[np.ndarray], Any], queries: Sequence[np.ndarray], rounds: int = 5) -> Row:
    """Milliseconds of single calls: of each query the fastest of a few rounds, then percentiles over queries."""
    for query in queries[:10]:
        search(query)
    best = np.full(len(queries), np.inf)
    for _ in range(rounds):
        for i, query in enumerate(queries):
            start = time.perf_counter()
            search(query)
            best[i] = min(best[i], time.perf_counter() - start)
    return {"p50_ms": float(np.median(best) * 1e3), "p95_ms": float(np.percentile(best, 95) * 1e3)}


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
