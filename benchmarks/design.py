"""Checks the claims that the design rests on, on real embeddings, and writes the tables of ``docs/design.md``.

    python -m benchmarks.design --data EMBEDDINGS --out benchmarks/results/design.json
    python -m benchmarks.design --render       write the tables again from the JSON
    python -m benchmarks.design --check        fail if they are not what the JSON says

Everything runs on a sample: whole documents, evenly spaced over the folder (see ``benchmarks.embeddings``), and queries
evenly spaced over each collection. The exact ranking is MaxSim in float32 over the float16 tokens. Each experiment is a
function of its own that returns plain rows; rivals' methods (ColBERT's codec, PLAID's centroid interaction, pruning by
alpha) are written in numpy here, for quality only: no time is measured of them. Tables in the page stand between
``<!-- measured: NAME -->`` and ``<!-- /measured -->``, and so does every sentence with a figure in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.design_page import with_tables
from benchmarks.embeddings import collections_of, exact_top, load, queries_of, read_json, write_json
from benchmarks.rivals.run import machine
from lateint.indexing import builder, clustering
from lateint.indexing.codec import REACH, Rotation, train_rotation
from lateint_kernels import _cpu
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.centroids import invert
from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not

ROOT = Path(__file__).resolve().parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "design.json", ROOT / "docs" / "design.md"
TOKENS, QUERIES = 1_250_000, 150
TRUTH_DEPTH = 100
PROBE_TOKENS = 20_000  # tokens on which errors of single inner products are measured
DEPTHS = (64, 128, 256, 512)
ROUND = 32  # candidates that the engine scores between two looks at its patience
Row = dict[str, Any]


# ---------------------------------------------------------------------- the sample and indexes of it


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


def whole(query: np.ndarray) -> np.ndarray:
    """Offsets of a batch of one query."""
    return np.array([0, len(query)], np.int64)


def exhaustive(engine: Engine, queries: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
    """Positions of the best k of each query."""
    return [engine.exhaustive(query, whole(query), k)[0][0] for query in queries]


def overlap(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], k: int = 10) -> float:
    """Mean share of the true best k that was found."""
    return float(np.mean([len(np.intersect1d(a, b[:k])) / k for a, b in zip(found, truth, strict=True)]))


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


# ---------------------------------------------------------------------- 1. codec


def product_error(sample: Sample, decoded: np.ndarray) -> float:
    """Root mean square error of <q, x> with ``decoded`` [PROBE_TOKENS, dim] for the tokens ``sample.picks``."""
    wrong = decoded.astype(np.float32) - sample.tokens[sample.picks].astype(np.float32)
    return float(np.sqrt(np.mean((sample.query_tokens @ wrong.T) ** 2)))


def uniform_codes(rest: np.ndarray, nbits: int, distance: np.ndarray) -> np.ndarray:
    """Nearest of ``2**nbits`` uniform levels, as the multiple of ``distance`` that it stands for."""
    top = 2**nbits - 1
    return np.clip(np.round(rest / distance + top / 2), 0, top) - top / 2


def in_floats(coded: Coded, picks: np.ndarray, nbits: int) -> np.ndarray:
    """Our codec with nothing cut to bytes: float means of the clusters, a float scale, float levels."""
    width = coded.scaled.shape[1]
    sums = np.zeros((len(coded.centroids), width))
    order = np.argsort(coded.ids, kind="stable")
    members = np.bincount(coded.ids, minlength=len(sums))
    for begin in range(0, len(order), 1 << 17):  # np.add.at on sorted runs, without a copy of all tokens
        part = order[begin : begin + (1 << 17)]
        heads = np.flatnonzero(np.r_[True, np.diff(coded.ids[part]) > 0])
        sums[coded.ids[part[heads]]] += np.add.reduceat(coded.scaled[part], heads, axis=0)
    means = (sums / np.maximum(members, 1)[:, None]).astype(np.float32)
    rest = coded.scaled[picks] - means[coded.ids[picks]]
    distance = {1: 1.596, 2: 0.996, 4: 0.335}[nbits] * np.sqrt(np.mean(rest**2, axis=1, keepdims=True))
    for _ in range(3):
        levels = uniform_codes(rest, nbits, distance)
        distance = (rest * levels).sum(1, keepdims=True) / (levels**2).sum(1, keepdims=True)
    return means[coded.ids[picks]] + uniform_codes(rest, nbits, distance) * distance


def one_scale_for_all(coded: Coded, nbits: int) -> np.ndarray:
    """Decoded bytes ``[N, width]`` with the same level distance for every token, the best for their squared error."""
    width = coded.scaled.shape[1]
    some = slice(None, None, max(1, len(coded.ids) // PROBE_TOKENS))
    rest = coded.scaled[some] - (coded.centroids.rows[coded.ids[some], :width].astype(np.float32) - 128)
    start = {1: 1.596, 2: 0.996, 4: 0.335}[nbits] * rest.std()
    distances = start * np.linspace(0.6, 1.8, 25)
    distance = distances[np.argmin([np.mean((uniform_codes(rest, nbits, d) * d - rest) ** 2) for d in distances])]
    rows = np.empty((len(coded.ids), width), np.uint8)
    for begin in range(0, len(rows), 1 << 16):
        part = slice(begin, begin + (1 << 16))
        centres = coded.centroids.rows[coded.ids[part], :width].astype(np.float32)
        levels = uniform_codes(coded.scaled[part] - (centres - 128), nbits, distance) * distance
        rows[part] = np.clip(np.round(centres + levels), 0, 255)
    return rows


class ColbertCodec:
    """ColBERTv2's codec: levels are quantiles of all residual components together, decoded tokens have unit norm.

    Centroids are the float32 means of the clusters that our k-means found, without ColBERT's normalisation of them,
    and a token takes the nearest: both make its residuals smaller than in the original.
    """

    def __init__(self, sample: Sample, coded: Coded) -> None:
        self.tokens = sample.tokens
        self.ids = clustering.assigner(coded.centroids, HostOperators(), 0)(coded.rows)
        count = len(coded.centroids)
        sums = np.zeros((count, sample.tokens.shape[1]))
        for begin in range(0, len(self.ids), 1 << 17):
            ids = self.ids[begin : begin + (1 << 17)]
            order = np.argsort(ids, kind="stable")
            heads = np.flatnonzero(np.r_[True, np.diff(ids[order]) > 0])
            part = self.tokens[begin : begin + (1 << 17)][order].astype(np.float32)
            sums[ids[order[heads]]] += np.add.reduceat(part, heads, axis=0)
        members = np.bincount(self.ids, minlength=count)
        self.centroids = (sums / np.maximum(members, 1)[:, None]).astype(np.float32)
        self.held_out = self.tokens[sample.picks].astype(np.float32) - self.centroids[self.ids[sample.picks]]

    def decode(self, nbits: int, rows: np.ndarray | slice) -> np.ndarray:
        """Tokens ``rows`` as they come back from codes of ``nbits``."""
        shares = np.arange(2**nbits) / 2**nbits
        cuts, weights = np.quantile(self.held_out, shares[1:]), np.quantile(self.held_out, shares + 0.5 / 2**nbits)
        centres = self.centroids[self.ids[rows]]
        rest = self.tokens[rows].astype(np.float32) - centres
        decoded = centres + weights.astype(np.float32)[np.searchsorted(cuts.astype(np.float32), rest)]
        return decoded / np.linalg.norm(decoded, axis=1, keepdims=True)

    def all(self, nbits: int) -> np.ndarray:
        """All tokens, decoded, in half precision as ColBERT scores them on a GPU."""
        out = np.empty(self.tokens.shape, np.float16)
        for begin in range(0, len(out), 1 << 16):
            part = slice(begin, begin + (1 << 16))
            out[part] = self.decode(nbits, part)
        return out


def codec(sample: Sample, coded: Coded) -> list[Row]:
    """Error of <q, x> and overlap of the top 10 with exact float32, ours, ColBERT's, and ours without its parts."""
    rows: list[Row] = []

    def add(name: str, nbits: int, error: float, found: Sequence[np.ndarray] | None, centroids: int) -> None:
        same = overlap(found, sample.truth) if found is not None else None
        rows.append({"codec": name, "nbits": nbits, "error": error, "overlap": same, "centroids": centroids})

    count = len(coded.centroids)
    plain = code(sample, learned_rotation(sample.tokens, identity=True), count)
    for nbits in residual.NBITS:
        for name, version in (("ours", coded), ("without rotation", plain)):
            engine = engine_of(version, nbits)
            decoded = np.concatenate([engine.decode(0, int(row), 1) for row in sample.picks])
            found = exhaustive(engine, sample.queries, 10)
            add(name, nbits, product_error(sample, version.rotation.invert(decoded)), found, count)
        if nbits == 8:
            continue
        decoded = one_scale_for_all(coded, nbits)
        found = exhaustive(engine_of(coded, 8, decoded), sample.queries, 10)
        error = product_error(sample, coded.rotation.invert(decoded[sample.picks]))
        add("one scale for all tokens", nbits, error, found, count)
    plaid_count = 2 ** int(np.log2(16 * len(sample.tokens) ** 0.5))
    for version in (coded, code(sample, coded.rotation, plaid_count, coded)):
        rival = ColbertCodec(sample, version)
        for nbits in residual.NBITS if version is coded else (2, 4):
            decoded = rival.all(nbits)
            found = list(exact_top(decoded, sample.offsets, sample.queries, 10)[0])
            name = "ColBERT" if version is coded else "ColBERT, PLAID's number of centroids"
            add(name, nbits, product_error(sample, decoded[sample.picks]), found, len(version.centroids))
    return rows


def codec_parts(sample: Sample, coded: Coded) -> list[Row]:
    """What bytes add to the error of <q, x>: floats everywhere, documents in bytes, queries in bytes too."""
    exact = sample.query_tokens @ sample.tokens[sample.picks].astype(np.float32).T
    rows = []
    for nbits in residual.NBITS:
        engine = engine_of(coded, nbits)
        decoded = np.concatenate([engine.decode(0, int(row), 1) for row in sample.picks])
        integers, scales, _ = engine.prepare(sample.query_tokens)
        constants = sample.query_tokens @ coded.rotation.mean
        products = integers[:, : decoded.shape[1]].astype(np.float32) @ (decoded.astype(np.float32) - 128).T
        wrong = products * scales[:, None] + constants[:, None] - exact
        floats = None
        if nbits < 8:
            floats = product_error(sample, coded.rotation.turn_back(in_floats(coded, sample.picks, nbits)))
        rows.append(
            {
                "nbits": nbits,
                "floats": floats,
                "document_bytes": product_error(sample, coded.rotation.invert(decoded)),
                "query_bytes": float(np.sqrt(np.mean(wrong**2))),
            }
        )
    return rows


def norms(sample: Sample) -> list[Row]:
    """One step for all tokens where their norms differ (each token times a lognormal factor)."""
    rows = []
    for sigma in (0.0, 0.5, 1.0):
        factors = np.exp(np.random.default_rng(2).normal(0, sigma, len(sample.tokens))).astype(np.float32)
        tokens = (sample.tokens.astype(np.float32) * factors[:, None]).astype(np.float16)
        changed = dataclasses.replace(sample, tokens=tokens)
        truth = sample.truth if sigma == 0 else exact_top(tokens, sample.offsets, sample.queries, 10)[0]
        for uncut in (False, True):
            coded = code(changed, learned_rotation(tokens, reach=np.inf if uncut else REACH))
            cut = float(np.mean(np.abs(coded.scaled).max(1) > 127.5))
            for nbits in (2, 4, 8):
                found = exhaustive(engine_of(coded, nbits), sample.queries, 10)
                row = {"sigma": sigma, "uncut": uncut, "tokens_cut": cut, "nbits": nbits}
                rows.append({**row, "overlap": overlap(found, truth)})
    return rows


# ---------------------------------------------------------------------- 2. coarse stage


class Coarse:
    """Coarse scores of one query in numpy, as the definition of what the engine's scoreboard does and of its rivals."""

    def __init__(self, coded: Coded, engine: Engine, query: np.ndarray) -> None:
        self.coded = coded
        integers, scales, self.constant = engine.prepare(query)
        centres = coded.centroids.rows.astype(np.float32) - 128
        self.scores = (centres @ integers.astype(np.float32).T * scales).astype(np.float64)  # [K, Lq]
        self.best = np.argsort(-self.scores, axis=0, kind="stable")

    def imputed(self, nprobe: int, rank: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Documents touched, their scores, and how far these exceed what a document without any hit would get.

        A query token that no probed list gives a document takes the score of the centroid at ``rank`` (None: ``2
        nprobe``, as the engine does), or 0 where ``rank`` is 0.
        """
        rank = (2 * nprobe if rank is None else rank) - 1
        lanes = np.arange(self.scores.shape[1])
        missing = self.scores[self.best[rank], lanes] if rank >= 0 else np.zeros(len(lanes))
        board = np.tile(missing, (len(self.coded.offsets) - 1, 1))
        touched = np.zeros(len(board), bool)
        starts, documents = self.coded.lists
        for lane in lanes:
            for c in self.best[:nprobe, lane][::-1]:
                part = documents[starts[c] : starts[c + 1]]
                board[part, lane] = self.scores[c, lane]
                touched[part] = True
        found = np.flatnonzero(touched)
        totals = board[found].sum(1)
        return found, totals, totals - missing.sum()

    def interaction(self, documents: np.ndarray) -> tuple[np.ndarray, int]:
        """PLAID's centroid interaction: MaxSim with every token replaced by its centroid; and the tokens looked at."""
        starts = self.coded.offsets[documents]
        lengths = self.coded.offsets[documents + 1] - starts
        ends = np.cumsum(lengths)
        tokens = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
        best = np.maximum.reduceat(self.scores[self.coded.ids[tokens]], ends - lengths, axis=0)
        return best.sum(1), int(ends[-1])


def ranked(documents: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Documents best first, ties by position."""
    return documents[np.argsort(-scores, kind="stable")]


def recalls(rankings: Sequence[np.ndarray], truth: Sequence[np.ndarray], depths: Sequence[int] = DEPTHS) -> Row:
    """Share of the true top 10 among the first R, for each R."""
    return {f"recall_at_{depth}": overlap([r[:depth] for r in rankings], truth) for depth in depths}


def coarse(sample: Sample, coded: Coded, engine: Engine, truth: Sequence[np.ndarray]) -> list[Row]:
    """Recall of the exhaustive top 10 on the codes in the coarse top R."""
    rows: list[Row] = []
    for nprobe in (4, 8, 16, 24, 32):
        found = [engine.gather(query, Limits(nprobe, max(DEPTHS))) for query in sample.queries]
        timed = latency(partial(engine.gather, limits=Limits(nprobe, max(DEPTHS))), sample.queries)
        rows.append(
            {
                "method": "ids only",
                "nprobe": nprobe,
                "looked_at": float(np.mean([f.postings for f in found])),
                "documents": float(np.mean([f.touched for f in found])),
                **recalls([f.positions for f in found], truth),
                **timed,
            }
        )
    views = [Coarse(coded, engine, query) for query in sample.queries]
    rankings, looked, sizes = [], [], []
    for view in views:
        documents = view.imputed(4)[0]
        scores, tokens = view.interaction(documents)
        rankings.append(ranked(documents, scores))
        looked.append(tokens)
        sizes.append(len(documents))
    rows.append({"method": "centroid interaction", "nprobe": 4, **recalls(rankings, truth)})
    rows[-1] |= {"looked_at": float(np.mean(looked)), "documents": float(np.mean(sizes))}
    rankings, looked = [], []
    for view in views:
        first = ranked(*view.imputed(16)[:2])[:1024]
        scores, tokens = view.interaction(np.sort(first))
        rankings.append(ranked(np.sort(first), scores))
        looked.append(tokens)
    rows.append({"method": "ids only, then centroid interaction on 1,024", "nprobe": 16, **recalls(rankings, truth)})
    rows[-1] |= {"looked_at": float(np.mean(looked)), "documents": 1024.0}
    return rows


def imputation(sample: Sample, coded: Coded, engine: Engine, truth: Sequence[np.ndarray]) -> list[Row]:
    """What stands in where no probed list holds a document: nothing, or the score of the centroid of some rank."""
    rows = []
    views = [Coarse(coded, engine, query) for query in sample.queries]
    for nprobe in (4, 8, 16):
        for rank in (0, nprobe, nprobe + 1, 3 * nprobe // 2, 2 * nprobe, 3 * nprobe, 4 * nprobe):
            rankings = [ranked(*view.imputed(nprobe, rank)[:2]) for view in views]
            rows.append({"nprobe": nprobe, "rank": rank, **recalls(rankings, truth)})
    return rows


# ---------------------------------------------------------------------- 3. two levels


def cells(sample: Sample, engine: Engine, truth: Sequence[np.ndarray]) -> list[Row]:
    """Probing through the best few cells of each query token."""
    rows = []
    for count in (2, 4, 8, 12, 16, 0):
        found = [engine.gather(q, Limits(16, max(DEPTHS), cells=count)).positions for q in sample.queries]
        timed = latency(partial(engine.gather, limits=Limits(16, max(DEPTHS), cells=count)), sample.queries)
        rows.append({"cells": count, **recalls(found, truth), **timed})
    return rows


def gather_only(coded: Coded) -> Engine:
    """An engine for the coarse stage alone: its codes are empty."""
    tokens = len(coded.ids)
    return engine_of(coded, 1, np.zeros((tokens, coded.scaled.shape[1] // 8), np.uint8), np.zeros(tokens, np.uint8))


def crossover(sample: Sample, coded: Coded) -> list[Row]:
    """From how many centroids on cells pay: time to probe, and the share of the 16 best that cells find."""
    rows = []
    long = np.split(sample.query_tokens, range(32, len(sample.query_tokens), 32))[:-1]
    for count in (1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17):
        if count > len(coded.rows) // 8:
            break
        centroids, _ = trained(coded.rows, count, iterations=1, per_centroid=8)
        ids = clustering.assigner(centroids, HostOperators())(coded.rows)
        documents = gather_only(dataclasses.replace(coded, centroids=centroids, ids=ids))
        # Every centroid is a document of its own, so what is gathered is what was probed.
        each = np.arange(count, dtype=np.uint32)
        engine = gather_only(
            dataclasses.replace(coded, centroids=centroids, ids=each, offsets=np.arange(count + 1, dtype=np.int64))
        )
        flat: list[np.ndarray] = []
        for cells_probed in (0, 4, 8, 16):
            look = partial(engine.gather, limits=Limits(16, count, cells=cells_probed))
            found = [look(query).positions for query in sample.queries]
            flat = flat or found
            share = np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, flat, strict=True)])
            row = {"centroids": count, "cells": cells_probed, "found": float(share), **latency(look, sample.queries)}
            row["p50_ms_of_32_tokens"] = latency(look, long)["p50_ms"]
            gathered = [documents.gather(q, Limits(16, max(DEPTHS), cells=cells_probed)) for q in sample.queries]
            rows.append({**row, **recalls([g.positions for g in gathered], sample.truth)})
    return rows


def centroid_counts(sample: Sample, base: Coded) -> list[Row]:
    """K: residual norm, overlap with exact of 2 and 4 bits, and the coarse stage at several nprobe."""
    rows = []
    for per in (480, 240, 120):
        coded = code(sample, base.rotation, len(sample.tokens) // per, base)
        engines = {nbits: engine_of(coded, nbits) for nbits in (2, 4)}
        list_bytes = (4 * len(coded.lists[1]) + coded.centroids.rows.nbytes) / len(coded.ids)
        same = {
            f"overlap_{n}_bits": overlap(exhaustive(e, sample.queries, 10), sample.truth) for n, e in engines.items()
        }
        for nprobe in (8, 16, 32):
            found = [engines[4].gather(q, Limits(nprobe, max(DEPTHS))) for q in sample.queries]
            timed = latency(partial(engines[4].gather, limits=Limits(nprobe, max(DEPTHS))), sample.queries)
            rows.append(
                {
                    "tokens_per_centroid": per,
                    "centroids": len(coded.centroids),
                    "residual_norm": coded.residual_norm,
                    "train_seconds": coded.train_seconds,
                    "bytes_per_token": list_bytes,
                    **same,
                    "nprobe": nprobe,
                    "postings": float(np.mean([f.postings for f in found])),
                    **recalls([f.positions for f in found], sample.truth),
                    **timed,
                }
            )
    return rows


def training(sample: Sample, base: Coded) -> list[Row]:
    """k-means through cells, its iterations and its sample: one changed at a time."""
    default = {
        "cells": clustering.CELLS_SEARCHED,
        "iterations": builder.ITERATIONS,
        "per_centroid": builder.SAMPLE_PER_CENTROID,
    }
    changes: list[Row] = [{}, *({"cells": n} for n in (1, 2, 6, 0)), *({"iterations": n} for n in (2, 4, 8))]
    changes += [{"per_centroid": n} for n in (16, 64)]
    rows = []
    for change in changes:
        setting = {**default, **change}
        coded = code(sample, base.rotation, len(base.centroids), base, **setting)
        engine = gather_only(coded)
        found = [engine.gather(q, Limits(16, max(DEPTHS))).positions for q in sample.queries]
        rows.append(
            {
                **setting,
                "default": not change,
                "seconds": coded.train_seconds,
                "residual_norm": coded.residual_norm,
                **recalls(found, sample.truth),
            }
        )
    return rows


def assignment(coded: Coded) -> list[Row]:
    """How often a look into the nearest cells finds the nearest of all centroids."""
    rows: list[Row] = []
    exact = clustering.assigner(coded.centroids, HostOperators(), 0)(coded.rows)
    for count in (1, 2, 3, 6, 0):
        nearest = clustering.assigner(coded.centroids, HostOperators(), count)
        start = time.perf_counter()
        ids = nearest(coded.rows)
        seconds = time.perf_counter() - start
        norm = dataclasses.replace(coded, ids=ids).residual_norm
        rows.append({"cells": count, "same": float(np.mean(ids == exact)), "residual_norm": norm, "seconds": seconds})
    return rows


# ---------------------------------------------------------------------- 4. stopping


def stopped(scores: np.ndarray, k: int, patience: int) -> int:
    """How many of the candidates, best coarse score first, the engine scores before its patience ends."""
    top: list[float] = []
    idle = first = 0
    while first < len(scores) and idle < patience:
        part = scores[first : first + ROUND]
        worst = top[-1] if len(top) == k else -np.inf
        changed = bool((part > worst).any())
        top = sorted([*top, *part], reverse=True)[:k]
        idle = 0 if changed else idle + len(part)
        first += len(part)
    return first


def stopping(sample: Sample, coded: Coded, engine: Engine, k: int) -> list[Row]:
    """Recall of the exhaustive top k on the codes when scoring stops after a fixed number, of itself, or by alpha."""
    nprobe, most = (16 if k <= 10 else 34), 512 + 4 * k  # the defaults of Index.search
    truth = exhaustive(engine, sample.queries, k)
    found = [engine.gather(query, Limits(nprobe, most)) for query in sample.queries]
    scores = [engine.score(query, f.positions) for query, f in zip(sample.queries, found, strict=True)]
    rows: list[Row] = []

    def best(counts: Sequence[int]) -> list[np.ndarray]:
        return [ranked(f.positions[:n], s[:n])[:k] for f, s, n in zip(found, scores, counts, strict=True)]

    def add(rule: str, value: float, counts: Sequence[int]) -> None:
        row = {"k": k, "nprobe": nprobe, "rule": rule, "value": value, "scored": float(np.mean(counts))}
        rows.append({**row, "recall": overlap(best(counts), truth, k)})

    def add_timed(rule: str, value: int, counts: Sequence[int], **limits: int) -> None:
        def search(query: np.ndarray) -> np.ndarray:
            return engine.search(query, whole(query), k, Limits(nprobe, **limits), threads=1)[0][0]

        add(rule, value, counts)
        rows[-1] |= latency(search, sample.queries, rounds=3)
        for query, expected in zip(sample.queries, best(counts), strict=True):
            if set(search(query)) != set(expected):
                raise AssertionError(f"the engine does not stop where {rule} {value} should")

    for fixed in (64, 128, 256, 512) if k == 10 else (192, 256, 512, 912):
        add_timed("fixed", fixed, [min(fixed, len(s)) for s in scores], candidates=fixed)
    for patience in (32, 64, 96, 128, 160):
        counts = [stopped(s, k, patience) for s in scores]
        add_timed("patience", patience, counts, candidates=most, patience=patience)
    views = [Coarse(coded, engine, query).imputed(nprobe) for query in sample.queries]
    constants = [engine.prepare(query)[2] for query in sample.queries]
    for alpha in (0.9, 0.925, 0.95):
        kept = [above(view[1] + c, k, alpha) for view, c in zip(views, constants, strict=True)]
        add("alpha of the score", alpha, [min(most, n) for n in kept])
    for alpha in (0.6, 0.7, 0.8):
        add("alpha of the excess", alpha, [min(most, above(view[2], k, alpha)) for view in views])
    return rows


def above(scores: np.ndarray, k: int, alpha: float) -> int:
    """How many coarse scores reach ``alpha`` times the k-th best."""
    return int((scores >= alpha * np.sort(scores)[-min(k, len(scores))]).sum())


# ---------------------------------------------------------------------- 5. bytes of the query


def query_bytes(sample: Sample, coded: Coded) -> list[Row]:
    """Scores with the query in bytes against scores with the query in floats, on the same decoded documents."""
    rows = []
    for nbits in (2, 4, 8):
        engine = engine_of(coded, nbits)
        errors, same = [], []
        for query, truth in zip(sample.queries, sample.truth, strict=True):
            ours = engine.score(query, truth)
            starts, lengths = sample.offsets[truth], sample.offsets[truth + 1] - sample.offsets[truth]
            parts = [engine.decode(0, int(s), int(n)) for s, n in zip(starts, lengths, strict=True)]
            products = query @ coded.rotation.invert(np.concatenate(parts)).T
            first = np.cumsum(lengths) - lengths
            floats = np.maximum.reduceat(products, first, axis=1).sum(0, dtype=np.float64)
            errors.append(np.abs(ours - floats) / np.abs(floats))
            same.append(overlap([ranked(truth, ours)[:10]], [ranked(truth, floats)]))
        rows.append(
            {
                "nbits": nbits,
                "mean_relative_error": float(np.mean(errors)),
                "max_relative_error": float(np.max(errors)),
                "same_top_10": float(np.mean(same)),
                "scores": int(sum(len(e) for e in errors)),
            }
        )
    return rows


# ---------------------------------------------------------------------- 6. instruction sets


def tiers(sample: Sample, coded: Coded) -> list[Row]:
    """Nanoseconds a token on one core, instruction set by instruction set, and whether the bits are the same."""
    query = sample.query_tokens[:32]
    documents = np.arange(64)
    tokens = int(sample.offsets[len(documents)])
    engines = {nbits: engine_of(coded, nbits) for nbits in residual.NBITS}
    nearest = clustering.assigner(coded.centroids, HostOperators(1), clustering.CELLS_SEARCHED)
    part = coded.rows[:tokens]
    expected: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    before = _cpu.active_isa()
    for isa in reversed(INSTRUCTION_SETS):
        if why_not(isa) is not None or isa == "avx512bf16":  # its integer kernels are those of avx512
            continue
        _cpu.set_active_isa(isa)
        work: dict[str, Callable[[], np.ndarray]] = {
            f"score_{nbits}_bits": partial(engine.score, query, documents, threads=1)
            for nbits, engine in engines.items()
        }
        work["assign"] = partial(nearest, part)
        row: Row = {"isa": isa, "same_bits": True}
        for name, run in work.items():
            result = run()
            row["same_bits"] &= bool(np.array_equal(result, expected.setdefault(name, result)))
            row[f"{name}_ns"] = min(timed(run) for _ in range(3 if isa == "scalar" else 25)) / tokens * 1e9
        rows.append(row)
    _cpu.set_active_isa(before)
    return rows


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---------------------------------------------------------------------- all of it


def measure(folder: Path, tokens: int, queries: int) -> Row:
    """Runs every experiment."""
    begun = time.perf_counter()
    result: Row = {"machine": machine(sorted(os.sched_getaffinity(0)))}

    def step(name: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        print(f"{name} ...", end=" ", flush=True)
        done = run()
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        return done

    sample = step("exact ranking", lambda: take_sample(folder, tokens, queries))
    coded = step("index", lambda: code(sample, learned_rotation(sample.tokens)))
    engine = engine_of(coded, 4)
    truth = exhaustive(engine, sample.queries, 10)
    result["data"] = {
        "collections": collections_of(folder),
        "documents": len(sample.offsets) - 1,
        "tokens": len(sample.tokens),
        "dim": sample.tokens.shape[1],
        "queries": len(sample.queries),
        "query_tokens": len(sample.query_tokens) / len(sample.queries),
        "centroids": len(coded.centroids),
        "cells": len(coded.centroids.cells),
        "residual_norm": coded.residual_norm,
    }
    experiments: dict[str, Callable[[], list[Row]]] = {
        "coarse": lambda: coarse(sample, coded, engine, truth),
        "imputation": lambda: imputation(sample, coded, engine, truth),
        "cells": lambda: cells(sample, engine, truth),
        "stopping": lambda: [row for k in (10, 100) for row in stopping(sample, coded, engine, k)],
        "crossover": lambda: crossover(sample, coded),
        "centroid_counts": lambda: centroid_counts(sample, coded),
        "training": lambda: training(sample, coded),
        "assignment": lambda: assignment(coded),
        "query_bytes": lambda: query_bytes(sample, coded),
        "tiers": lambda: tiers(sample, coded),
        "codec_parts": lambda: codec_parts(sample, coded),
        "norms": lambda: norms(sample),
        "codec": lambda: codec(sample, coded),
    }
    for name, experiment in experiments.items():
        result[name] = step(name, experiment)
    result["seconds"] = time.perf_counter() - begun
    return result


def main() -> None:
    """Measures, renders, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--out", type=Path, default=RESULT, help="the JSON to write (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of the sample (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=QUERIES, help="of the sample (default: %(default)s)")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page's tables from the JSON")
    parser.add_argument("--check", action="store_true", help="measure and write nothing, fail if the page is stale")
    args = parser.parse_args()
    if not (args.render or args.check):
        if args.data is None:
            parser.error("--data is needed to measure")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, measure(args.data, args.tokens, args.queries))
        if args.out.resolve() != RESULT:
            return  # a trial
    page = PAGE.read_text()
    rendered = with_tables(page, {**read_json(RESULT), "divided": read_json(RESULT.with_name("divided.json"))})
    if args.check and rendered != page:
        sys.exit(f"{PAGE.name} is not what {RESULT.name} says; run python -m benchmarks.design --render")
    if not args.check:
        PAGE.write_text(rendered)


if __name__ == "__main__":
    main()
