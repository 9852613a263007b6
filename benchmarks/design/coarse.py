"""What the coarse stage finds: rankings by centroids, imputation, cells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.design.sample import Coded, Row, Sample, latency, overlap, ranked
from lateint_kernels.codes.engine import Engine, Limits

DEPTHS = (64, 128, 256, 512)


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


def cells(sample: Sample, engine: Engine, truth: Sequence[np.ndarray]) -> list[Row]:
    """Probing through the best few cells of each query token."""
    rows = []
    for count in (2, 4, 8, 12, 16, 0):
        found = [engine.gather(q, Limits(16, max(DEPTHS), cells=count)).positions for q in sample.queries]
        timed = latency(partial(engine.gather, limits=Limits(16, max(DEPTHS), cells=count)), sample.queries)
        rows.append({"cells": count, **recalls(found, truth), **timed})
    return rows
