import itertools
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from random_index import Made, make, one, whole

from lateint_kernels import _cpu, reference
from lateint_kernels.codes.centroids import invert
from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.index_arrays import SegmentArrays
from lateint_kernels.codes.residual import NBITS, decode, depth_of

LENGTHS = [1, 15, 16, 17, 63, 64, 65, 300]
QUERIES = [1, 15, 16, 17, 33, 320, 1000]


# ------------------------------------------------------------------------- queries and scores


@pytest.mark.parametrize(("width", "dim"), [(8, 1), (8, 7), (40, 40), (104, 100), (128, 128), (320, 320)])
def test_prepare(isa, width, dim):
    """A query token in bytes is off by at most half a unit of its scale; the same bits everywhere."""
    rng = np.random.default_rng(dim)
    made = make(rng, [3], width=width, dim=dim)
    query = rng.standard_normal((17, dim)).astype(np.float32)
    integers, scales, constant = made.engine.prepare(query)
    codec = made.codec
    exact = reference.rotate(query, np.zeros(dim, np.float32), codec.rotation, codec.permutation, 1.0)
    assert integers.shape == (17, depth_of(width)) and not integers[:, width:].any()
    np.testing.assert_array_equal(np.abs(integers).max(1), 127)
    np.testing.assert_allclose(integers[:, :width] * (scales / codec.step)[:, None], exact, atol=scales.max() / 0.0198)
    np.testing.assert_allclose(constant, (query.astype(np.float64) @ codec.mean).sum(), rtol=1e-9)
    before = _cpu.active_isa()
    _cpu.set_active_isa("scalar")
    same = made.engine.prepare(query)
    _cpu.set_active_isa(before)
    for left, right in zip((integers, scales, constant), same, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_query_token_of_zeros(isa):
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS)
    query = rng.standard_normal((3, 40)).astype(np.float32)
    query[1] = 0
    integers, scales, _ = made.engine.prepare(query)
    assert not integers[1].any() and np.isfinite(scales).all()
    positions, scores = one(made.engine.exhaustive(query, whole(query), 8))
    without = one(made.engine.exhaustive(query[[0, 2]], whole(query[:2]), 8))
    assert (positions, scores) == without


def test_scores_are_a_loop(isa):
    rng = np.random.default_rng(0)
    made = make(rng, [2, 5, 1], width=8)
    query = rng.standard_normal((3, 8)).astype(np.float32)
    integers, scales, constant = made.engine.prepare(query)
    expected = [
        reference.compressed_maxsim(integers[:, :8], scales, constant, made.document(position).astype(np.int64))
        for position in range(3)
    ]
    assert made.engine.score(query, np.arange(3)).tolist() == np.array(expected, np.float32).tolist()
    assert made.scores(query).tolist() == np.array(expected, np.float32).tolist()


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", [8, 96, 104, 128, 136, 320])
def test_scores(isa, nbits, width):
    rng = np.random.default_rng(width)
    made = make(rng, [1, 5] if isa == "scalar" else LENGTHS, width=width, nbits=nbits, cuts=(1,))
    for length in (1, 17, 33):
        query = rng.standard_normal((length, width)).astype(np.float32)
        expected = made.scores(query).tolist()
        for threads in (1, 2, 3):
            assert made.engine.score(query, np.arange(len(made.lengths)), threads=threads).tolist() == expected


@pytest.mark.parametrize("width", [1024, 2056, 4096])
def test_scores_of_wide_tokens(isa, width):
    rng = np.random.default_rng(width)
    made = make(rng, [3, 18], width=width, nbits=2, count=5, cells=2)
    query = rng.standard_normal((2, width)).astype(np.float32)
    assert made.engine.score(query, np.arange(2)).tolist() == made.scores(query).tolist()


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-31])
def test_a_query_too_small_to_have_a_scale_counts_as_zero(isa, size):
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS)
    query = np.full((2, 40), size, np.float32)
    integers, scales, constant = made.engine.prepare(query)
    assert not integers.any() and np.isfinite(scales).all()
    assert made.engine.score(query, np.arange(8)).tolist() == [np.float32(constant)] * 8


@pytest.mark.parametrize("length", QUERIES)
def test_query_lengths(isa, length):
    rng = np.random.default_rng(length)
    made = make(rng, [1, 16, 17] if isa == "scalar" else LENGTHS, width=8)
    query = rng.standard_normal((length, 8)).astype(np.float32)
    assert one(made.engine.exhaustive(query, whole(query), 5)) == made.best(query, 5)


def test_all_similarities_negative(isa):
    """Lanes and rows of padding would score 0 and win."""
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS)
    centroids = made.codec.centroids.copy()
    centroids[:, :40] = 215
    codec = replace(
        made.codec,
        centroids=centroids,
        mean=np.zeros(40, np.float32),
        rotation=np.eye(40, dtype=np.float32)[None],
        permutation=np.arange(40, dtype=np.int32),
    )
    segment = made.segments[0]
    rows = decode(segment.codes, segment.scales, made.centroid_ids, centroids, 4, 40)
    made = Made(codec, made.segments, made.lengths, made.centroid_ids, rows, 40)
    query = (-np.abs(rng.standard_normal((5, 40)))).astype(np.float32)
    scores = made.engine.score(query, np.arange(8))
    assert (scores < 0).all()
    assert scores.tolist() == made.scores(query).tolist()
    assert one(made.engine.exhaustive(query, whole(query), 3)) == made.best(query, 3)


def test_any_order_and_repeated_positions(isa):
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS, cuts=(2, 3))
    query = rng.standard_normal((4, 40)).astype(np.float32)
    positions = rng.integers(0, 8, 200)
    assert made.engine.score(query, positions, threads=2).tolist() == made.scores(query)[positions].tolist()
    assert made.engine.score(query, np.zeros(0, np.int64)).tolist() == []


def test_decode(isa):
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS, width=104, cuts=(3,))
    first = sum(LENGTHS[:3])
    np.testing.assert_array_equal(made.engine.decode(0, 2, 5), made.rows[2:7])
    np.testing.assert_array_equal(made.engine.decode(1, 7, 100), made.rows[first + 7 : first + 107])
    assert made.engine.decode(1, 5, 0).shape == (0, 104)


# ------------------------------------------------------------------------- search


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("cuts", [(), (2,), (1, 4, 5)])
def test_without_pruning_search_is_brute_force(isa, nbits, cuts):
    rng = np.random.default_rng(nbits)
    lengths = [0, 1, 5, 0, 17] if isa == "scalar" else [0, *LENGTHS, 0, 3, 3, 0]
    made = make(rng, lengths, nbits=nbits, cuts=[cut for cut in cuts if cut < len(lengths)])
    n = len(lengths)
    for length in (1, 18):
        query = rng.standard_normal((length, 40)).astype(np.float32)
        for k in (1, 4, n, n + 10):
            expected = made.best(query, k)
            assert one(made.engine.exhaustive(query, whole(query), k)) == expected
            for threads in (1, 2, 3, 9, 20):
                found = made.engine.search(query, whole(query), k, Limits(30, n), threads=threads)
                assert one(found) == expected


def test_documents_left_out(isa):
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(0, 9, 50).tolist(), cuts=(10,))
    query = rng.standard_normal((5, 40)).astype(np.float32)
    for share in (0.0, 0.1, 0.7, 1.0):
        allowed = (rng.random(50) < share).astype(np.uint8) * 7
        expected = made.best(query, 6, allowed)
        assert one(made.engine.exhaustive(query, whole(query), 6, allowed=allowed)) == expected
        assert one(made.engine.search(query, whole(query), 6, Limits(30, 50), allowed=allowed)) == expected


def test_ties_break_by_position(isa):
    """The same document many times, in several segments, among a few others."""
    rng = np.random.default_rng(0)
    tokens = 4
    made = make(rng, [tokens] * 40, cuts=(9, 30))
    order = rng.integers(0, 3, 40)  # three different documents
    segments, first = [], 0
    source = made.segments[0]
    for last in (9, 30, 40):
        pick = np.concatenate([np.arange(tokens) + tokens * number for number in order[first:last]])
        offsets = np.arange(last - first + 1, dtype=np.int64) * tokens
        ids = made.centroid_ids[pick]
        lists = invert(ids, offsets, 30)
        segments.append(
            SegmentArrays(offsets, source.codes[pick], source.scales[pick], ids.astype(np.uint16), None, *lists)
        )
        first = last
    pick = np.concatenate([np.arange(tokens) + tokens * number for number in order])
    same = Made(made.codec, segments, [tokens] * 40, made.centroid_ids[pick], made.rows[pick], 40)
    query = rng.standard_normal((6, 40)).astype(np.float32)
    for k in (1, 5, 20, 40):
        expected = same.best(query, k)
        assert one(same.engine.exhaustive(query, whole(query), k, threads=2)) == expected
        assert one(same.engine.search(query, whole(query), k, Limits(30, 40))) == expected


def test_more_centroids_than_16_bits_count(isa):
    rng = np.random.default_rng(0)
    count, lengths = 70_000, [5] * 200
    ids = rng.integers(0, count, 1000).astype(np.uint32)
    ids[:10] = [0, 65_535, 65_536, 69_999, 65_537, 1, 2, 3, 65_538, 4]
    made = make(rng, lengths, width=8, count=count, cells=260, ids=ids, cuts=(100,))
    assert made.segments[0].centroid_high is not None
    query = rng.standard_normal((3, 8)).astype(np.float32)
    expected = made.best(query, 7)
    assert one(made.engine.exhaustive(query, whole(query), 7)) == expected
    assert one(made.engine.search(query, whole(query), 7, Limits(count, 200))) == expected
    for cells in (0, 10):
        rankings = made.engine.search(query, whole(query), 200, Limits(2000, 200, cells=cells))
        positions, scores = one(rankings)
        assert scores == made.scores(query)[positions].tolist() == sorted(scores, reverse=True)


def test_a_batch_is_its_queries_one_by_one(isa):
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 9, 50).tolist(), cuts=(20,))
    lengths = [1, 17, 3, 33, 16, 1, 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    queries = rng.standard_normal((sum(lengths), 40)).astype(np.float32)
    alone = [
        one(made.engine.search(queries[a:b], np.array([0, b - a]), 4, Limits(3, 9)))
        for a, b in itertools.pairwise(offsets)
    ]
    for threads in (1, 2, 3):
        batch = made.engine.search(queries, offsets, 4, Limits(3, 9), threads=threads)
        assert [(positions.tolist(), scores.tolist()) for positions, scores in batch] == alone
    assert made.engine.search(queries[:0], np.zeros(1, np.int64), 4, Limits(3, 9)) == []


def test_more_documents_of_the_same_search(isa):
    rng = np.random.default_rng(5)
    made = make(rng, rng.integers(1, 9, 2000).tolist(), nbits=2, count=40)
    fewer = 0
    for _ in range(5):
        query = rng.standard_normal((4, 40)).astype(np.float32)
        few = one(made.engine.search(query, whole(query), 5, Limits(20, 2000, patience=32)))
        more = one(made.engine.search(query, whole(query), 1000, Limits(20, 2000, patience=32, watched=5)))
        assert tuple(part[:5] for part in more) == few
        most = one(made.engine.search(query, whole(query), 1000, Limits(20, 2000, patience=32)))
        fewer += len(more[0]) < len(most[0])
    assert fewer


def test_some_tokens_of_a_long_query_find_its_candidates(isa):
    rng = np.random.default_rng(6)
    made = make(rng, rng.integers(0, 9, 300).tolist(), nbits=2, count=40, cuts=(100,))
    for length, sampled in ((7, 4), (50, 8), (320, 96)):
        query = rng.standard_normal((length, 40)).astype(np.float32)
        picks = np.arange(sampled) * length // sampled
        candidates = np.sort(made.engine.gather(query[picks], Limits(3, 60)).positions)
        scores = made.engine.score(query, candidates)
        best = np.argsort(-scores, kind="stable")[:10]
        found, their_scores = one(made.engine.search(query, whole(query), 10, Limits(3, 60, sampled=sampled)))
        assert found == candidates[best].tolist() and their_scores == scores[best].tolist()
    short = rng.standard_normal((6, 40)).astype(np.float32)
    assert one(made.engine.search(short, whole(short), 10, Limits(3, 60, sampled=4))) == one(
        made.engine.search(short, whole(short), 10, Limits(3, 60))
    )


def test_some_tokens_of_a_long_query_say_which_candidates_to_score(isa):
    rng = np.random.default_rng(7)
    made = make(rng, rng.integers(1, 9, 2000).tolist(), nbits=4, count=60)
    found = []
    for _ in range(3 if isa == "scalar" else 10):
        query = rng.standard_normal((200, 40)).astype(np.float32)
        best = one(made.engine.exhaustive(query, whole(query), 10))[0]
        limits = Limits(30, 2000, patience=96, deviations=3.0, sampled=96)
        found.append(len(np.intersect1d(best, one(made.engine.search(query, whole(query), 10, limits))[0])) / 10)
    assert np.mean(found) >= 0.9


def test_equal_centroids(isa):
    """No probe is better than another: the coarse scores are all the same."""
    rng = np.random.default_rng(0)
    made = make(rng, [3] * 20)
    codec = replace(made.codec, centroids=np.repeat(made.codec.centroids[:1], 30, axis=0))
    engine = Engine(codec, made.segments)
    query = rng.standard_normal((4, 40)).astype(np.float32)
    expected = one(engine.exhaustive(query, whole(query), 5))
    assert one(engine.search(query, whole(query), 5, Limits(30, 20))) == expected
    assert engine.gather(query, Limits(30, 20)).positions.tolist() == list(range(20))


def test_random_shapes(isa):
    rng = np.random.default_rng(2)
    for _ in range(4 if isa == "scalar" else 25):
        n, count = int(rng.integers(1, 40)), int(rng.integers(1, 60))
        lengths = rng.integers(0, 12, n).tolist()
        lengths[int(rng.integers(n))] += 1
        made = make(
            rng,
            lengths,
            width=8 * int(rng.integers(1, 20)),
            nbits=NBITS[rng.integers(4)],
            count=count,
            cells=int(rng.integers(1, count + 1)),
            cuts=sorted(set(rng.integers(1, n, 2).tolist())) if n > 2 else (),
        )
        query = rng.standard_normal((int(rng.integers(1, 40)), made.width)).astype(np.float32)
        k, threads = int(rng.integers(1, n + 3)), int(rng.integers(1, 4))
        expected = made.best(query, k)
        assert one(made.engine.exhaustive(query, whole(query), k, threads=threads)) == expected
        assert one(made.engine.search(query, whole(query), k, Limits(count, n), threads=threads)) == expected
        nprobe, candidates = int(rng.integers(1, count + 1)), int(rng.integers(1, n + 1))
        allowed = np.zeros(n, np.uint8)
        allowed[made.engine.gather(query, Limits(nprobe, candidates)).positions] = 1
        rankings = made.engine.search(query, whole(query), k, Limits(nprobe, candidates), threads=threads)
        assert one(rankings) == made.best(query, k, allowed)


# ------------------------------------------------------------------------- callers


def test_callers_on_many_threads(isa):
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 9, 60).tolist(), cuts=(20,))
    queries = [rng.standard_normal((5, 40)).astype(np.float32) for _ in range(8)]
    expected = [one(made.engine.search(query, whole(query), 5, Limits(4, 20))) for query in queries]
    failures = []

    def ask(number):
        for round_ in range(30):
            query = queries[(number + round_) % 8]
            found = one(made.engine.search(query, whole(query), 5, Limits(4, 20), threads=1 + number % 3))
            if found != expected[(number + round_) % 8]:
                failures.append(number)

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_others_run_during_a_search():
    """The interpreter's lock is free while the engine works: a counter gets on."""
    rng = np.random.default_rng(0)
    made = make(rng, [300] * 200, width=128)
    queries = rng.standard_normal((3200, 128)).astype(np.float32)
    offsets = np.arange(0, 3201, 32, dtype=np.int64)
    done = threading.Event()
    worker = threading.Thread(target=lambda: (made.engine.exhaustive(queries, offsets, 3, threads=1), done.set()))
    worker.start()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    worker.join()
    assert turns >= 3


@pytest.mark.parametrize("count", [5, 64, 65, 3000])
def test_sparse_lists_are_the_same_lists(isa, count):
    lengths, query = [3, 9, 1, 30, 2, 8], np.random.default_rng(5).standard_normal((4, 40)).astype(np.float32)
    found = []
    for sparse in (False, True):
        made = make(np.random.default_rng(4), lengths, count=count, cells=2, cuts=(1, 4), sparse=sparse)
        assert (made.segments[0].list_centroids is None) != sparse
        hits = made.engine.search(query, np.array([0, 4]), 6, Limits(1 + count // 9, 4))
        found.append((hits[0][0].tolist(), hits[0][1].tolist(), *made.engine.gather(query, Limits(1 + count // 9, 9))))
    assert found[0][:2] == found[1][:2]
    np.testing.assert_array_equal(found[0][2], found[1][2])
    assert found[0][4:] == found[1][4:] and len(found[0][2])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("array", ["offsets", "list_offsets", "list_documents", "list_centroids", "centroid_ids"])
def test_wild_numbers_in_an_array_end_no_search(isa, array, sparse):
    rng = np.random.default_rng(6)
    made = make(rng, LENGTHS, count=200, cuts=(2,), sparse=sparse)
    query = rng.standard_normal((3, 40)).astype(np.float32)
    if getattr(made.segments[0], array) is None:
        return
    for _ in range(20):
        segments = []
        for segment in made.segments:
            wild = getattr(segment, array).copy()
            low = -(1 << 60) if wild.dtype == np.int64 else 0
            high = np.iinfo(wild.dtype).max
            places = rng.integers(0, len(wild), 3)
            wild[places] = rng.choice([low, high, 0, int(rng.integers(low, high)), len(wild)], 3)
            segments.append(segment._replace(**{array: wild}))
        try:
            engine = Engine(made.codec, segments)
            rankings = engine.search(query, np.array([0, 3]), 5, Limits(20, 9))
            rankings += engine.exhaustive(query, np.array([0, 3]), 5)
        except RuntimeError as error:  # what would lead out of an array is refused, with its name
            assert re.match(rf"the index is damaged: {array}", str(error))
            continue
        for positions, _ in rankings:
            assert ((positions >= 0) & (positions < len(LENGTHS))).all()
