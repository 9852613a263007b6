"""Variants of the postings that a search by words takes, in memory."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from numpy.random import Generator

from benchmarks.fuzz.damage import damaged
from benchmarks.fuzz.outcomes import Outcome, attempt, worst
from lateint import Index
from lateint_kernels.text.building import check, join
from lateint_kernels.text.engine import TextEngine
from lateint_kernels.text.segment_text import SegmentText

WORDS = [b"often", b"more", b"1", b"\xc3\xa9", b"nothing"]

Base = list[SegmentText]


def of(index: Index) -> Base:
    """Copies, for the files of the index will change."""
    return [SegmentText(*(array.copy() for array in part.fields.postings)) for part in index._snapshot.state.parts]


def variant(rng: Generator, base: Base) -> Base:
    """One to three arrays damaged."""
    segments = list(base)
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(len(segments))
        values = segments[place]._asdict()
        name = list(values)[rng.integers(len(values))]
        changed = damaged(rng, values[name], list(values.values()), reshape=rng.random() < 0.2)
        segments[place] = segments[place]._replace(**{name: changed})
    return segments


def run(rng: Generator, base: Base) -> Outcome:
    """Makes an engine of a variant and searches with it; checks and joins the segments."""
    segments = variant(rng, base)
    n = sum(len(segment.text_lengths) for segment in segments)
    live = (rng.random(n) < 0.9).astype(np.uint8) if rng.integers(2) else None
    made: list[TextEngine] = []
    outcome = attempt("opening", lambda: made.append(TextEngine(segments, live)))
    if not made:
        return outcome
    engine, queries = made[0], [Counter(rng.choice(WORDS, rng.integers(1, 6)).tolist()) for _ in range(3)]
    firsts = np.cumsum([0, *(len(segment.text_lengths) for segment in segments)])
    places = [np.arange(first, last) for first, last in itertools.pairwise(firsts)]
    threads = 2 if rng.random() < 0.05 else 1
    calls = [
        lambda: engine.score(queries[0], np.arange(n)),
        lambda: engine.statistics(queries[1]),
        lambda: [check(segment) for segment in segments],
        lambda: join(segments, places, n),
    ]
    chosen = [call for call in calls if rng.random() < 0.4]
    chosen.append(lambda: engine.search(queries, int(rng.choice([1, 5, 1000])), threads=threads))
    return worst([outcome, *(attempt("searching", call) for call in chosen)])
