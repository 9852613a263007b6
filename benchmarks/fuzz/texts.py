"""Variants of the postings that a search by words or by sparse vectors takes, in memory."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
from numpy.random import Generator

from benchmarks.fuzz.damage import damaged
from benchmarks.fuzz.outcomes import Outcome, attempt, worst
from lateint import Index
from lateint_kernels.text.building import check, check_sparse, join, join_sparse
from lateint_kernels.text.engine import SparseEngine, TextEngine
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText

WORDS = [b"often", b"more", b"1", b"\xc3\xa9", b"nothing"]

Base = list[SegmentText] | list[SegmentSparse]


def of(index: Index) -> list[Base]:
    """Copies of those that there are, for the files of the index will change."""
    fields = [part.fields for part in index._snapshot.state.parts]
    found: list[Base] = []
    if index.analyzer is not None:
        found.append([SegmentText(*map(np.copy, one.postings)) for one in fields])
    if any("sparse" in one.groups for one in fields):
        found.append([SegmentSparse(one.documents, *map(np.copy, one.sparse[1:])) for one in fields])
    return found


def variant(rng: Generator, base: Base) -> list[Any]:
    """One to three arrays damaged."""
    segments: list[Any] = list(base)
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(len(segments))
        values = {name: value for name, value in segments[place]._asdict().items() if isinstance(value, np.ndarray)}
        name = list(values)[rng.integers(len(values))]
        changed = damaged(rng, values[name], list(values.values()), reshape=rng.random() < 0.2)
        segments[place] = segments[place]._replace(**{name: changed})
    return segments


def run(rng: Generator, base: Base) -> Outcome:
    """Makes an engine of a variant and searches with it; checks and joins the segments."""
    segments, words = variant(rng, base), isinstance(base[0], SegmentText)
    sizes = [len(one.text_lengths) if words else one.documents for one in segments]
    n = sum(sizes)
    live = (rng.random(n) < 0.9).astype(np.uint8) if rng.integers(2) else None
    made: list[TextEngine | SparseEngine] = []
    kind: Any = TextEngine if words else SparseEngine
    outcome = attempt("opening", lambda: made.append(kind(segments, live)))
    if not made:
        return outcome
    engine, queries = made[0], [Counter(rng.choice(WORDS, rng.integers(1, 6)).tolist()) for _ in range(3)]
    places = [np.arange(first, last) for first, last in itertools.pairwise(np.cumsum([0, *sizes]))]
    threads = 2 if rng.random() < 0.05 else 1
    calls = [
        lambda: engine.score(queries[0], np.arange(n)),
        lambda: engine.statistics(queries[1]) if isinstance(engine, TextEngine) else None,
        lambda: [check(segment) if words else check_sparse(segment) for segment in segments],
        lambda: join(segments, places, n) if words else join_sparse(segments, places, n),
    ]
    chosen = [call for call in calls if rng.random() < 0.4]
    chosen.append(lambda: engine.search(queries, int(rng.choice([1, 5, 1000])), threads=threads))
    return worst([outcome, *(attempt("searching", call) for call in chosen)])
