"""Variants of the postings that searches by words and by sparse vectors take, in memory."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from numpy.random import Generator

from benchmarks.fuzz.damage import Array, damaged
from benchmarks.fuzz.outcomes import Outcome, attempt, worst
from lateint import Index
from lateint_kernels.text.building import check, check_sparse, join, join_sparse
from lateint_kernels.text.engine import SparseEngine, TextEngine
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText

WORDS = [b"often", b"more", b"1", b"\xc3\xa9", b"a", b"nothing"]

Base = list[SegmentText] | list[SegmentSparse]


def of(index: Index) -> list[Base]:
    """The postings of texts and those of sparse vectors; copies, for the files of the index will change."""
    parts = [part.fields for part in index._snapshot.state.parts]
    return [_copied([fields.postings for fields in parts]), _copied([fields.sparse for fields in parts])]


def _copied(segments: Base) -> Base:
    """As it is, but with arrays of its own."""
    return [
        segment._replace(**{name: array.copy() for name, array in _arrays(segment).items()}) for segment in segments
    ]


def _arrays(segment: SegmentText | SegmentSparse) -> dict[str, Array]:
    return {name: value for name, value in segment._asdict().items() if isinstance(value, np.ndarray)}


def variant(rng: Generator, base: Base) -> Base:
    """One to three arrays damaged."""
    segments = list(base)
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(len(segments))
        values = _arrays(segments[place])
        name = list(values)[rng.integers(len(values))]
        changed = damaged(rng, values[name], list(values.values()), reshape=rng.random() < 0.2)
        segments[place] = segments[place]._replace(**{name: changed})
    return segments


def run(rng: Generator, base: Base) -> Outcome:
    """Makes an engine of a variant and searches with it; checks and joins the segments."""
    segments = variant(rng, base)
    is_text = isinstance(segments[0], SegmentText)
    sizes = [len(segment.text_lengths) if is_text else segment.documents for segment in segments]
    n, firsts = sum(sizes), np.cumsum([0, *sizes])
    live = (rng.random(n) < 0.9).astype(np.uint8) if rng.integers(2) else None
    made: list[TextEngine | SparseEngine] = []
    outcome = attempt("opening", lambda: made.append((TextEngine if is_text else SparseEngine)(segments, live)))
    if not made:
        return outcome
    engine, queries = made[0], [Counter(rng.choice(WORDS, rng.integers(1, 6)).tolist()) for _ in range(3)]
    places = [np.arange(first, last) for first, last in itertools.pairwise(firsts)]
    threads = 2 if rng.random() < 0.05 else 1
    calls = [
        lambda: engine.score(queries[0], np.arange(n)),
        lambda: is_text and engine.statistics(queries[1]),
        lambda: [(check if is_text else check_sparse)(segment) for segment in segments],
        lambda: (join if is_text else join_sparse)(segments, places, n),
    ]
    chosen = [call for call in calls if rng.random() < 0.4]
    chosen.append(lambda: engine.search(queries, int(rng.choice([1, 5, 1000])), threads=threads))
    return worst([outcome, *(attempt("searching", call) for call in chosen)])
