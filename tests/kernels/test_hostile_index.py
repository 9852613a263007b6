"""No array of an index makes the engine read or write out of range: it raises, and names the array."""

from dataclasses import replace

import numpy as np
import pytest
from random_index import RANGE, make

from lateint_kernels.codes.engine import Engine, Limits

LENGTHS = [3, 0, 5, 130, 1, 2, 4, 3]


def search_all(codec, segments, dim=40):
    """Every way into an engine."""
    engine = Engine(codec, segments)
    query = np.random.default_rng(1).standard_normal((5, dim)).astype(np.float32)
    offsets, n = np.array([0, 5]), sum(len(segment.offsets) - 1 for segment in segments)
    return [
        engine.search(query, offsets, 3, Limits(30, n)),
        engine.search(query, offsets, 3, Limits(30, n, cells=5), threads=2),
        engine.exhaustive(query, offsets, 3, threads=2),
        engine.gather(query, Limits(30, n)),
        engine.score(query, np.arange(n)),
    ]


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


DAMAGE = {
    "offsets decrease": ("offsets", lambda offsets: changed(offsets, 3, 1)),
    "offsets are negative": ("offsets", lambda offsets: changed(offsets, 2, -(2**62))),
    "offsets go beyond the tokens": ("offsets", lambda offsets: changed(offsets, 4, 2**62)),
    "offsets end beyond the tokens": ("offsets", lambda offsets: changed(offsets, -1, offsets[-1] + 1)),
    "no offsets": ("offsets", lambda offsets: offsets[:0]),
    "a centroid that is not there": ("centroid_ids", lambda ids: changed(ids, 100, 30)),
    "centroids far away": ("centroid_ids", lambda ids: ids * 0 + 65535),
    "list offsets decrease": ("list_offsets", lambda offsets: changed(offsets, 7, 0)),
    "list offsets are negative": ("list_offsets", lambda offsets: changed(offsets, 7, -(2**62))),
    "list offsets go beyond the lists": ("list_offsets", lambda offsets: changed(offsets, 9, 2**62)),
    "list offsets end beyond the lists": ("list_offsets", lambda offsets: changed(offsets, -1, offsets[-1] + 1)),
    "a document that is not there": ("list_documents", lambda lists: changed(lists, 5, 8)),
    "documents far away": ("list_documents", lambda lists: lists * 0 + np.uint32(2**32 - 1)),
    "fewer codes than tokens": ("codes", lambda codes: codes[:-1]),
    "codes of another width": ("codes", lambda codes: np.ascontiguousarray(codes[:, :-1])),
    "fewer scales than tokens": ("scales", lambda scales: scales[:-1]),
    "fewer lists than centroids": ("list_offsets", lambda offsets: offsets[:-1]),
}


@pytest.mark.parametrize("nbits", [1, 4])
@pytest.mark.parametrize("damage", DAMAGE)
def test_segments(isa, damage, nbits):
    made = make(np.random.default_rng(0), LENGTHS, nbits=nbits)
    name, change = DAMAGE[damage]
    segment = made.segments[0]
    search_all(made.codec, [segment])
    with pytest.raises(RuntimeError, match=f"the index is damaged: .*{name}"):
        search_all(made.codec, [segment._replace(**{name: change(getattr(segment, name))})])


def test_a_later_segment(isa):
    made = make(np.random.default_rng(0), LENGTHS, cuts=(3,))
    first, second = made.segments
    second = second._replace(list_documents=changed(second.list_documents, -1, 5))
    with pytest.raises(RuntimeError, match="list_documents holds 5 out of order, or beyond the 5 documents"):
        search_all(made.codec, [first, second])


def test_documents_out_of_order(isa):
    """Beyond the documents that the scoreboard holds first, where it does not reach back."""
    n = RANGE + 500
    made = make(np.random.default_rng(0), [1] * n, width=8, count=4, cells=2, ids=np.zeros(n, np.uint32))
    lists = made.segments[0].list_documents
    segment = made.segments[0]._replace(list_documents=changed(lists, -1, 7))
    query = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    for threads in (1, 2):
        with pytest.raises(RuntimeError, match="list_documents holds 7 out of order"):
            Engine(made.codec, [segment]).search(query, np.array([0, 5]), 3, Limits(4, n), threads=threads)


def test_more_centroids_than_16_bits_count(isa):
    made = make(np.random.default_rng(0), LENGTHS, width=8, count=70000)
    segment = made.segments[0]
    with pytest.raises(RuntimeError, match=r"centroid_ids hold .* but there are 70000 centroids"):
        search_all(made.codec, [segment._replace(centroid_high=segment.centroid_high * 0 + 255)], dim=8)


CODEC = {
    "nbits": [0, 3, 16, -1],
    "step": [0.0, -1.0, float("nan"), float("inf")],
    "mean": [np.full(40, np.nan, np.float32), np.zeros(1600, np.float32)],
    "permutation": [np.arange(1, 41, dtype=np.int32), np.full(40, -1, np.int32), np.arange(39, dtype=np.int32)],
    "cell_offsets": [
        np.array([0, 6, 12, 18, 24, 31]),
        np.array([1, 6, 12, 18, 24, 30]),
        np.array([0, 12, 6, 18, 24, 30]),
    ],
    "centroids": [np.zeros((30, 40), np.uint8), np.zeros((0, 64), np.uint8), np.zeros((29, 64), np.uint8)],
    "cells": [np.zeros((5, 40), np.uint8), np.zeros((4, 64), np.uint8)],
    "rotation": [np.zeros((1, 40, 39), np.float32), np.zeros((2, 40, 40), np.float32), np.zeros((40, 40), np.float32)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CODEC.items() for value in values])
def test_codec(isa, name, value):
    made = make(np.random.default_rng(0), LENGTHS)
    wanted = {
        "centroids": "(centroids|cell_offsets|list_offsets)",
        "cells": "(cells|cell_offsets)",
        "permutation": "(permutation|rotation)",
    }
    with pytest.raises(RuntimeError, match=f"the index is damaged: .*{wanted.get(name, name)}|no centroids"):
        search_all(replace(made.codec, **{name: value}), made.segments)


def test_a_rotation_that_is_not_finite(isa):
    made = make(np.random.default_rng(0), LENGTHS)
    codec = replace(made.codec, rotation=changed(made.codec.rotation, (0, 3, 5), np.nan))
    with pytest.raises(RuntimeError, match="not finite when rotated"):
        search_all(codec, made.segments)


def test_an_array_of_another_type():
    made = make(np.random.default_rng(0), LENGTHS)
    with pytest.raises(TypeError, match="offsets must be a C-contiguous array of int64"):
        search_all(made.codec, [made.segments[0]._replace(offsets=made.segments[0].offsets.astype(np.int32))])


def test_empty_cells(isa):
    """Allowed: nobody finds a centroid there."""
    made = make(np.random.default_rng(0), LENGTHS)
    codec = replace(made.codec, cell_offsets=np.array([0, 0, 0, 30, 30, 30]))
    offsets = np.array([0, 5])
    query = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)
    for cells in (1, 2, 5):
        Engine(codec, made.segments).search(query, offsets, 3, Limits(4, 5, cells=cells))


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1])
def test_limits_of_any_size_are_all_there_is(isa, size):
    made = make(np.random.default_rng(0), LENGTHS)
    query = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)
    everything = made.engine.search(query, np.array([0, 5]), 8, Limits(30, 8))
    for threads in (1, 2**31 - 1):
        found = made.engine.search(query, np.array([0, 5]), size, Limits(size, size, size, size), threads=threads)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found[0], everything[0], strict=True))


@pytest.mark.parametrize("size", [1 << 62, (2**64 + 2) // 3, 2**63 - 1])
def test_no_number_of_watched_hits_stops_a_search_too_soon(isa, size):
    """Three times as many must not change before tokens that were sampled stop: a number that may not fit 64 bits."""
    lengths = [3] * 200
    made = make(np.random.default_rng(0), lengths)
    query = np.random.default_rng(1).standard_normal((40, 40)).astype(np.float32)
    limits = Limits(30, len(lengths), patience=1, sampled=8, watched=size)
    (positions, _), *_ = made.engine.search(query, np.array([0, 40]), size, limits, threads=1)
    assert sorted(positions.tolist()) == list(range(200))


def test_a_query_of_many_tokens(isa):
    made = make(np.random.default_rng(0), LENGTHS, width=8, count=4, cells=2)
    query = np.random.default_rng(1).standard_normal((70000, 8)).astype(np.float32)
    best = made.best(query, 8)[0]
    for cells in (0, 1):
        positions, _ = made.engine.search(query, np.array([0, 70000]), 8, Limits(4, 8, cells=cells), threads=1)[0]
        assert positions.tolist() == best


def test_arguments():
    made = make(np.random.default_rng(0), LENGTHS)
    query = np.zeros((5, 40), np.float32)
    with pytest.raises(ValueError, match=r"queries must be \[T, 40\]"):
        made.engine.search(query[:, :39].copy(), np.array([0, 5]), 3, Limits(3, 3))
    for offsets in ([0, 6], [1, 5], [0, 4, 3, 5], []):
        with pytest.raises(ValueError, match="offsets must rise from 0 to the number of query tokens"):
            made.engine.search(query, np.array(offsets, np.int64), 3, Limits(3, 3))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        made.engine.exhaustive(query, np.array([0, 5]), 0)
    with pytest.raises(ValueError, match="allowed must have a number for each of 8 documents"):
        made.engine.exhaustive(query, np.array([0, 5]), 3, allowed=np.ones(7, np.uint8))
    for position in (-1, 8):
        with pytest.raises(ValueError, match="positions must be from 0 to 7"):
            made.engine.score(query, np.array([position]))
    for segment, first, n in ((1, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 149), (0, 2**62, 2**62)):
        with pytest.raises(IndexError, match="there is no such segment, or it has no such tokens"):
            made.engine.decode(segment, first, n)
