"""Where a search may stop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.design.coarse import Coarse
from benchmarks.design.sample import Coded, Row, Sample, exhaustive, latency, overlap, ranked, whole
from lateint_kernels.codes.engine import Engine, Limits

ROUND = 32  # candidates that the engine scores between two looks at its patience


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
