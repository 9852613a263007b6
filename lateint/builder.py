"""Building an index: learn the codec from a sample, then encode all tokens in one streaming pass."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from lateint import clustering, storage
from lateint.codec import Codec, Rotation, train_rotation
from lateint.documents import Documents
from lateint_kernels import first_nonfinite_row, first_zero_row, residual
from lateint_kernels.building import Operators

CHUNK = 1 << 15  # tokens encoded at a time: arrays of 16 MB at dim 128, which malloc reuses without page faults
PILOT = 1 << 16  # tokens that mean and step are learned from
TOKENS_PER_CENTROID = 240
SAMPLE_PER_CENTROID = 32
ITERATIONS = 5
TOLERATED_OVERFLOW = 1.25  # by how much a component may exceed the step's reach before a build warns
CELLS_SEARCHED = 3  # of the sqrt(K) cells, when a token looks for its centroid; docs/design.md has what that misses


@dataclass
class Plan:
    """What a build is going to do.

    Attributes:
        nbits: bits per component.
        centroids: how many.
        sample: tokens they are learned from.
        segment_tokens: a segment is closed when it holds so many.
        seed: of every random choice.
        threads: 0 for the default.
        progress: show progress bars.
    """

    nbits: int
    centroids: int
    sample: int
    segment_tokens: int
    seed: int
    threads: int
    progress: bool


@dataclass
class Timings:
    """Seconds by part of a build."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Adds the time spent inside to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def default_centroids(tokens: int) -> int:
    """K grows with N up to 4 M tokens and with N^(3/4) beyond, so that neither lists nor probing grow as fast as N."""
    knee = 4_000_000
    scaled = tokens if tokens <= knee else knee * (tokens / knee) ** 0.75
    return max(1, min(1 << 24, int(scaled / TOKENS_PER_CENTROID)))


def plan(
    documents: Documents,
    *,
    nbits: int,
    ncentroids: int | None,
    max_ram: int | None,
    seed: int,
    threads: int,
    progress: bool,
) -> Plan:
    """Fits sample and segments into ``max_ram`` bytes (working memory, the input and an index in memory not counted).

    Working memory: ``sample * (depth + 16) + K * 15 depth + CHUNK * (20 dim + 128) + segment_tokens * 13
    + documents * 8``.
    """
    tokens = int(documents.lengths.sum())
    count = default_centroids(tokens) if ncentroids is None else min(ncentroids, tokens)
    depth = residual.depth_of(-(-documents.dim // 8) * 8)
    sample, segment = min(tokens, count * SAMPLE_PER_CENTROID), tokens
    if max_ram is not None:
        fixed = count * 15 * depth + CHUNK * (20 * documents.dim + 128) + len(documents.lengths) * 8
        least = fixed + 4 * count * (depth + 16)
        if max_ram < least:
            raise ValueError(
                f"max_ram must be at least {least:,} bytes for {tokens:,} tokens of dim {documents.dim} and {count:,} "
                f"centroids, got {max_ram:,}"
            )
        sample = min(sample, (max_ram - fixed) // (depth + 16))
        segment = min(segment, max(CHUNK, (max_ram - fixed) // 13))
    return Plan(nbits, count, int(sample), int(segment), seed, threads, progress)


def build(documents: Documents, plan: Plan, store: storage.Store, operators: Operators) -> dict[str, Any]:
    """Writes codec and segments into ``store``; returns what the manifest needs to say about them."""
    timings = Timings()
    operators.check(**_sizes(documents, plan))
    with timings.of("codec"):
        pilot = documents.pilot(PILOT)
        if _first_bad_row(pilot, plan.threads) is not None:
            _check_all(documents, plan.threads)
        rotation = train_rotation(pilot, seed=plan.seed, threads=plan.threads)
    with timings.of("sample"):
        sample = _sample(documents, rotation, plan, operators)
    with timings.of("centroids"):
        centroids = _train_centroids(sample, plan, operators)
    del sample
    encoder = _Encoder(rotation, centroids, plan, operators, timings)
    _put_codec(store, Codec(rotation, centroids.on_host(operators), plan.nbits))
    segments = []
    stream = _Stream(documents, plan, CHUNK * operators.chunks(documents.dim))
    for number, (first, last) in enumerate(_cut_into_segments(documents.lengths, plan.segment_tokens)):
        name = f"segments/{number:06d}"
        encoder.segment(documents.lengths[first:last], stream, store, name)
        segments.append({"name": name, "documents": last - first, "tokens": int(documents.lengths[first:last].sum())})
    stream.close()
    encoder.overflow.warn(int(documents.lengths.sum()))
    return {
        "dim": documents.dim,
        "width": rotation.width,
        "block": rotation.blocks.shape[1],
        "nbits": plan.nbits,
        "step": rotation.step,
        "seed": plan.seed,
        "centroids": len(centroids),
        "cells": len(centroids.cells),
        "segments": segments,
        "seconds": timings.seconds,
    }


def _first_bad_row(tokens: NDArray[Any], threads: int) -> tuple[int, str] | None:
    """A row that no score can be made of, and why."""
    row = first_nonfinite_row(tokens, "doc_embs", threads=threads)
    if row is not None:
        return row, "holds a NaN or an infinity"
    row = first_zero_row(tokens, "doc_embs", threads=threads)
    return None if row is None else (row, "is all zero, as padding is")


def _check(tokens: NDArray[Any], offsets: NDArray[np.int64], threads: int, first: int) -> None:
    """Refuses rows that no score can be made of. ``first`` is the number of the first row in the stream."""
    if found := _first_bad_row(tokens, threads):
        row, what = first + found[0], found[1]
        document = int(np.searchsorted(offsets, row, side="right")) - 1
        raise ValueError(
            f"doc_embs must be finite and not zero, but token {row - offsets[document]} of document {document} {what}"
        )


def _check_all(documents: Documents, threads: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(documents.lengths)])
    first = 0
    for chunk in documents.chunks(CHUNK):
        _check(chunk, offsets, threads, first)
        first += len(chunk)


class _Overflow:
    """Counts tokens with components that a byte cannot hold, which are cut."""

    def __init__(self) -> None:
        self.tokens, self.most = 0, 1.0

    def add(self, peaks: NDArray[np.float32]) -> None:
        """Counts tokens whose largest components these are."""
        self.tokens += len(peaks)
        self.most = max(self.most, float(peaks.max(initial=0)) / 127)

    def warn(self, total: int) -> None:
        """Says how many there were."""
        if self.tokens:
            warnings.warn(
                f"{self.tokens:,} of {total:,} tokens have components up to {self.most:.3g} times what codes can hold "
                "and were cut, so scores with them come out too small; embeddings of about equal norms avoid this",
                stacklevel=5,
            )


def _sizes(documents: Documents, plan: Plan) -> dict[str, int]:
    """What memory depends on."""
    cuts = _cut_into_segments(documents.lengths, plan.segment_tokens)
    return {
        "dim": documents.dim,
        "centroids": plan.centroids,
        "sample": plan.sample,
        "segment_tokens": max(int(documents.lengths[first:last].sum()) for first, last in cuts),
        "segment_documents": max(last - first for first, last in cuts),
    }


def _sample(documents: Documents, rotation: Rotation, plan: Plan, operators: Operators) -> Any:
    """Random tokens as rows ``[S, depth]`` of the operators, the same share of every part of the stream."""
    total = int(documents.lengths.sum())
    rng = np.random.default_rng(plan.seed)
    rotate = operators.rotation(rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
    rows = operators.empty(plan.sample, rotation.width)
    seen = taken = 0
    for chunk in _progress(documents.chunks(CHUNK), total, "sample", plan):
        seen += len(chunk)
        want = plan.sample * seen // total - taken
        if want == 0:
            continue
        pick = np.sort(rng.choice(len(chunk), want, replace=False))
        rows[taken : taken + want] = operators.to_bytes(rotate(np.ascontiguousarray(chunk[pick])))
        taken += want
    return rows


def _train_centroids(sample: Any, plan: Plan, operators: Operators) -> clustering.Centroids:
    with tqdm(total=ITERATIONS, desc="centroids", unit="iteration", disable=not plan.progress) as bar:
        return clustering.train(
            sample,
            plan.centroids,
            iterations=ITERATIONS,
            seed=plan.seed,
            cells_searched=CELLS_SEARCHED,
            operators=operators,
            report=bar.update,
        )


def _put_codec(store: storage.Store, codec: Codec) -> None:
    storage.put(store, "mean", codec.rotation.mean)
    storage.put(store, "rotation", codec.rotation.blocks)
    storage.put(store, "permutation", codec.rotation.permutation)
    storage.put(store, "centroids", codec.centroids.rows)
    storage.put(store, "cells", codec.centroids.cells)
    storage.put(store, "cell_offsets", codec.centroids.cell_offsets)


def _cut_into_segments(lengths: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Ranges of documents with at most ``most`` tokens each (a longer document is a segment of its own)."""
    ends = np.cumsum(lengths)
    cuts, first = [], 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        cuts.append((first, last))
        first = last
    return cuts


class _Stream:
    """All tokens of a build once more, handed out in pieces of any size, checked as they pass."""

    def __init__(self, documents: Documents, plan: Plan, chunk: int) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(documents.lengths)])
        self.threads = plan.threads
        total = int(self.offsets[-1])
        self.chunks = iter(_progress(documents.chunks(chunk), total, "encode", plan))
        self.held: NDArray[Any] = np.empty((0, documents.dim), np.float32)
        self.passed = 0

    def take(self, most: int) -> NDArray[Any]:
        """The next tokens, at least one and at most ``most``."""
        if len(self.held) == 0:
            held = next(self.chunks, None)
            if held is None:
                raise ValueError("doc_embs gave fewer tokens the last time than the first")
            self.held = held
            _check(self.held, self.offsets, self.threads, self.passed)
            self.passed += len(self.held)
        part, self.held = self.held[:most], self.held[most:]
        return part

    def close(self) -> None:
        """Runs the stream to its end, which checks that it has no more documents than it said."""
        for _ in self.chunks:
            raise ValueError("doc_embs gave more tokens the last time than the first")


class _Encoder:
    """Turns the stream into segments, a chunk at a time."""

    def __init__(
        self, rotation: Rotation, centroids: clustering.Centroids, plan: Plan, operators: Operators, timings: Timings
    ) -> None:
        self.rotate = operators.rotation(rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
        self.centroids, self.nbits, self.operators, self.timings = centroids, plan.nbits, operators, timings
        self.code_bytes = rotation.width * plan.nbits // 8
        self.overflow = _Overflow()

    def segment(self, lengths: NDArray[np.int64], stream: _Stream, store: storage.Store, name: str) -> None:
        """Writes the documents of these lengths, which come next in the stream."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens, timings = int(offsets[-1]), self.timings
        with timings.of("assign"):
            nearest = clustering.assigner(self.centroids, self.operators)
        centroid_ids = np.empty(tokens, np.uint32)
        codes = store.create(f"{name}/codes", np.uint8, (tokens, self.code_bytes))
        scales = store.create(f"{name}/scales", np.uint8, (tokens,)) if self.nbits < 8 else None
        done = 0
        while done < tokens:
            with timings.of("input"):
                part = stream.take(tokens - done)
            ids, code, scale = self._encoded(part, nearest)
            with timings.of("write"):
                codes.write(code)
                if scales is not None:
                    scales.write(scale)
            centroid_ids[done : done + len(part)] = ids
            done += len(part)
        self._put_lists(centroid_ids, offsets, store, name)

    def _encoded(self, tokens: NDArray[Any], nearest: Callable[[Any, int], Any]) -> list[NDArray[Any]]:
        """Ids, codes and scales of tokens, which are waited for before the clock is read."""
        operators, timings = self.operators, self.timings
        with timings.of("rotate"):
            scaled = self.rotate(tokens)
            rows = operators.to_bytes(scaled)
            self.overflow.add(operators.peaks(rows, scaled, 127 * TOLERATED_OVERFLOW))
        with timings.of("assign"):
            ids = nearest(rows, CELLS_SEARCHED)
            found = operators.host(ids)
        with timings.of("encode"):
            coded = operators.encode(scaled, ids, self.centroids.rows, self.nbits)
            return [found, *map(operators.host, coded)]

    def _put_lists(
        self, centroid_ids: NDArray[np.uint32], offsets: NDArray[np.int64], store: storage.Store, name: str
    ) -> None:
        count = len(self.centroids)
        with self.timings.of("lists"):
            list_offsets, list_documents = self.operators.invert(centroid_ids, offsets, count)
        with self.timings.of("write"):
            low, high = residual.split_ids(centroid_ids, count)
            storage.put(store, f"{name}/offsets", offsets)
            storage.put(store, f"{name}/centroid_ids", low)
            if high is not None:
                storage.put(store, f"{name}/centroid_high", high)
            storage.put(store, f"{name}/list_offsets", list_offsets)
            storage.put(store, f"{name}/list_documents", list_documents)


def _progress(chunks: Iterator[NDArray[Any]], total: int, label: str, plan: Plan) -> Iterator[NDArray[Any]]:
    with tqdm(total=total, desc=label, unit="token", unit_scale=True, disable=not plan.progress) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))
