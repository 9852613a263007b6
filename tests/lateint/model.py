"""Random collections, changes, settings and threads, and what a search must find then: by brute force on the integers
that docs/format.md says are in the files, with nothing of the engine but how it rounds a query.
"""

import warnings

import numpy as np

from lateint import Index

EVERYTHING = 1 << 40  # a limit that nothing reaches


def decoded(index):
    """The bytes of each document's tokens by id, as docs/format.md decodes codes."""
    state = index._snapshot.state
    manifest, rows = state.manifest, {}
    centroids = state.arrays[manifest.codec_array("centroids")][:, : manifest.width].astype(int)
    for part in state.parts:
        codes = part.arrays.codes.astype(int)
        levels = np.concatenate(
            [codes >> shift & 2**manifest.nbits - 1 for shift in range(0, 8, manifest.nbits)], axis=1
        )
        if manifest.nbits < 8:
            unit = 16 if manifest.nbits == 4 else 4
            twice, scale = 2 * levels - (2**manifest.nbits - 1), part.arrays.scales.astype(int)[:, None]
            steps = np.sign(twice) * ((abs(twice) * scale + unit) // (2 * unit))
            levels = centroids[part.centroid_ids()] + steps
        names, offsets = part.ids.at(np.arange(part.entry.documents)).tolist(), part.arrays.offsets
        for row, name in enumerate(names):
            if part.live is None or part.live[row]:
                rows[name] = levels[offsets[row] : offsets[row + 1]] - 128
    return rows


def brute_force(index, rows, query):
    """Every document that has tokens with its score, best first, ties in the order of documents."""
    integers, scales, constant = index._snapshot.engine.prepare(query)
    scored = []
    for name, tokens in rows.items():
        if len(tokens):
            score = constant
            for scale, product in zip(
                scales, (integers[:, : tokens.shape[1]].astype(int) @ tokens.T).max(1), strict=True
            ):
                score += scale * product
            scored.append((name, float(np.float32(score))))
    return sorted(scored, key=lambda pair: -pair[1])


def documents(rng, count, dim):
    """Of very different lengths, some without tokens, some alike, so that scores are equal."""
    centres = rng.standard_normal((rng.integers(1, 9), dim))
    lengths = rng.integers(0, rng.choice([2, 6, 40]), count)
    lengths[rng.integers(count)] += 1
    made = [
        (centres[rng.integers(0, len(centres), length)] + rng.choice([0.01, 0.5]) * rng.standard_normal((length, dim)))
        for length in lengths
    ]
    made = [(rng.choice([1, 1, 7]) * tokens).astype(np.float32) for tokens in made]
    return [made[0] if rng.random() < 0.2 and len(made[0]) else tokens for tokens in made]


def built(rng, folder):
    """An index in several segments, from which documents were deleted: in memory, on disk, or opened."""
    dim, count = int(rng.integers(1, 70)), int(rng.integers(1, 60))
    strings = rng.random() < 0.5
    names = rng.permutation(1000)[: 2 * count].tolist()
    names = [f"\u00fc{name}" for name in names] if strings else names
    source = documents(rng, count, dim)
    if not any(map(len, source)):
        source[0] = np.ones((1, dim), np.float32)
    path = None if rng.random() < 0.5 else folder
    settings = {
        "nbits": int(rng.choice([1, 2, 4, 8])),
        "ncentroids": int(rng.choice([1, 3, 20])),
        "seed": int(rng.integers(9)),
    }
    settings |= {"threads": int(rng.integers(1, 4)), "allow_empty": True, "overwrite": True, "progress": False}
    index = Index.build(source, path, ids=names[:count], **settings)
    names = names[count:]
    for _ in range(rng.integers(0, 4)):
        what, there = rng.choice(["add", "delete", "compact"]), index.ids.tolist()
        if what == "add" and names:
            more = documents(rng, len(part := names[: rng.integers(1, 9)]), dim)
            names = names[len(part) :]
            index.add(more, ids=part, allow_empty=True)
        elif what == "delete" and there:
            index.delete(rng.choice(np.array(there, object), rng.integers(1, len(there) + 1), replace=False).tolist())
        elif what == "compact":
            index.compact(full=bool(rng.random() < 0.5))
    if path is not None and rng.random() < 0.5:
        index = Index.open(path, verify=True)
    return index


def check(seed, folder):
    """Raises AssertionError where a search finds anything else than brute force does."""
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tokens are cut, which brute force sees, too
        index = built(rng, folder)
    rows = decoded(index)
    assert index.ids.tolist() == list(rows) and len(index) == len(rows)
    queries = [rng.standard_normal((rng.integers(1, 40), index.dim)).astype(np.float32) for _ in range(3)]
    expected = [brute_force(index, rows, query) for query in queries]
    k, threads = int(rng.choice([1, 3, 10, 100])), int(rng.integers(1, 4))
    everything = {"nprobe": EVERYTHING, "candidates": EVERYTHING}
    for settings in ({"exhaustive": True}, everything, {**everything, "cells": 0}):
        hits = index.search(queries, k, threads=threads, **settings)
        assert [list(one) for one in hits] == [ranking[:k] for ranking in expected], settings
        assert list(index.search(queries[0], k, **settings)) == expected[0][:k], settings
    limits = {
        "nprobe": int(rng.integers(1, 9)),
        "candidates": int(rng.integers(1, 30)),
        "cells": int(rng.integers(0, 4)),
    }
    for settings in ({}, limits):
        hits = index.search(queries, k, threads=threads, **settings)
        for one, ranking in zip(hits, expected, strict=True):
            known = dict(ranking)
            assert len(one) == min(k, len(ranking)), settings
            assert all(known[name] == score for name, score in one), settings
            assert sorted(one.scores.tolist(), reverse=True) == one.scores.tolist(), settings
        again = index.search(queries[1], k, **settings)
        assert list(again) == list(hits[1]), settings
    some = [name for name in rows if rng.random() < 0.4]
    chosen = [[pair for pair in ranking if pair[0] in set(some)] for ranking in expected]
    for settings in ({}, {"exhaustive": True}):
        assert [list(one) for one in index.search(queries, k, subset=some, **settings)] == [one[:k] for one in chosen]
    assert list(index.rerank(queries[2], some[::-1])) == chosen[2]
