"""Variants of the arrays that an engine takes, in memory: thousands in a second."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from benchmarks.fuzz.damage import damaged
from benchmarks.fuzz.outcomes import Outcome, attempt, worst
from lateint import Index
from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays


class Base(NamedTuple):
    """What an intact index consists of."""

    codec: CodecArrays
    segments: list[SegmentArrays]

    @classmethod
    def of(cls, index: Index) -> Base:
        """Copies, for the files of the index will change."""
        arrays = [part.arrays for part in index._snapshot.state.parts]
        segments = [SegmentArrays(*(None if array is None else array.copy() for array in one)) for one in arrays]
        codec = index._snapshot.engine._codec
        copies = {name: array.copy() for name, array in vars(codec).items() if isinstance(array, np.ndarray)}
        return cls(replace(codec, **copies), segments)


def variant(rng: Generator, base: Base) -> tuple[CodecArrays, list[SegmentArrays]]:
    """One to three arrays of an index damaged."""
    codec, segments = base.codec, list(base.segments)
    arrays = [field.name for field in fields(codec) if isinstance(getattr(codec, field.name), np.ndarray)]
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.3:
            name = [*arrays, "step", "nbits"][rng.integers(len(arrays) + 2)]
            if name == "step":
                codec = replace(codec, step=float(rng.choice([0.0, -1.0, 1e-40, 1e38, np.nan, np.inf])))
            elif name == "nbits":
                codec = replace(codec, nbits=int(rng.choice([1, 2, 4, 8, 0, 3, -1, 64])))
            else:
                others = [getattr(codec, other) for other in arrays]
                codec = replace(codec, **{name: damaged(rng, getattr(codec, name), others, reshape=rng.random() < 0.1)})
            continue
        place = rng.integers(len(segments))
        values = {name: array for name, array in segments[place]._asdict().items() if array is not None}
        name = list(values)[rng.integers(len(values))]
        changed = damaged(rng, values[name], list(values.values()), reshape=rng.random() < 0.2)
        segments[place] = segments[place]._replace(**{name: changed})
    return codec, segments


def run(rng: Generator, base: Base) -> Outcome:
    """Makes an engine of a variant, searches with it, and asks it some of what else it can be asked."""
    codec, segments = variant(rng, base)
    made: list[Engine] = []
    outcome = attempt("opening", lambda: made.append(Engine(codec, segments)))
    if not made:
        return outcome
    engine, n = made[0], sum(max(0, len(segment.offsets) - 1) for segment in segments)
    queries = rng.standard_normal((6, len(codec.mean)), dtype=np.float32)
    offsets = np.array([0, 2, len(queries)])
    limits = Limits(
        int(rng.choice([1, 3, 16, 2**62])), int(rng.choice([1, 10, 2**62])), int(rng.integers(3)), int(rng.integers(4))
    )
    threads = 2 if rng.random() < 0.05 else 1
    calls = [
        lambda: engine.exhaustive(queries, offsets, 5, threads=threads),
        lambda: engine.gather(queries, limits),
        lambda: engine.probe(queries, offsets, 3, cells=limits.cells),
        lambda: engine.score(queries, np.arange(n)),
        lambda: engine.decode(len(segments) - 1, 0, len(segments[-1].centroid_ids)),
        lambda: engine.prepare(queries),
    ]
    chosen = [call for call in calls if rng.random() < 0.4]
    chosen.append(lambda: engine.search(queries, offsets, 5, limits, threads=threads))
    return worst([outcome, *(attempt("searching", call) for call in chosen)])
