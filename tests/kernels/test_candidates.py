"""Which documents a search looks at: the centroids of query tokens, and coarse scores."""

import itertools

import numpy as np
import pytest
from random_index import RANGE, TURN, make, one, whole

from lateint_kernels import reference
from lateint_kernels.codes.engine import Limits


@pytest.mark.parametrize("cells", [0, 2, 5])
@pytest.mark.parametrize(
    ("nprobe", "lists"), [(1, 0), (3, 1), (3, 2), (12, 4), (29, 0), (30, 0), (30, 7), (31, 0), (1000, 0), (1000, 2)]
)
def test_candidates(isa, nprobe, lists, cells):
    """The coarse scores, and that a search returns the best of the documents that they let through."""
    rng = np.random.default_rng(nprobe)
    made = make(rng, rng.integers(0, 9, 60).tolist(), cuts=(20, 21))
    query = rng.standard_normal((5, 40)).astype(np.float32)
    integers, scales, _ = made.engine.prepare(query)
    products = integers.astype(np.int64) @ (made.codec.centroids.astype(np.int64) - 128).T
    documents = [made.centroids_of(position) for position in range(60)]
    if cells == 0:
        coarse = np.array(reference.coarse_scores(products, scales, documents, nprobe, lists), np.float64)
        found = made.engine.gather(query, Limits(nprobe, 60, lists=lists))
        assert sorted(found.positions.tolist()) == np.flatnonzero(~np.isnan(coarse)).tolist()
        assert found.touched == len(found.positions)
        order = coarse[found.positions]
        # The gain of each token is rounded down to a unit, of which the best gains together have 2^20.
        falling = -np.sort(-products, axis=1)
        unit = (scales * (falling[:, 0] - falling[:, min(2 * nprobe, 30) - 1])).sum() / 2**20
        assert (np.diff(order) < len(query) * unit).all()
        # The same numbers but for a constant and a factor.
        np.testing.assert_allclose(
            (found.scores - found.scores.min()) / np.ptp(found.scores),
            (order - order.min()) / np.ptp(order),
            atol=2e-6 * len(query),
        )
    for candidates in (1, 7, 60):
        some = made.engine.gather(query, Limits(nprobe, candidates, cells=cells, lists=lists))
        assert len(some.positions) <= candidates
        allowed = np.zeros(60, np.uint8)
        allowed[some.positions] = 1
        for threads in (1, 2, 3):
            limits = Limits(nprobe, candidates, cells=cells, lists=lists)
            rankings = made.engine.search(query, whole(query), 5, limits, threads=threads)
            assert one(rankings) == made.best(query, 5, allowed)


def test_candidates_of_more_documents_than_the_scoreboard_holds(isa):
    """Each has one token, so those of a centroid are equal, and the first of them are the best."""
    rng = np.random.default_rng(0)
    n = 2 * RANGE + 300
    ids = rng.choice(30, n, p=np.arange(1, 31) / 465).astype(np.uint32)
    made = make(rng, [1] * n, width=8, ids=ids)
    query = rng.standard_normal((6, 8)).astype(np.float32)
    integers, scales, _ = made.engine.prepare(query)
    products = integers.astype(np.int64) @ (made.codec.centroids.astype(np.int64) - 128).T
    coarse = np.array(reference.coarse_scores(products, scales, [[c] for c in range(30)], 3), np.float64)
    order = np.lexsort((np.arange(n), -coarse[ids]))  # those in no list, of NaN, last
    listed = int((~np.isnan(coarse[ids])).sum())
    for candidates in (50, listed - 7, n):
        found = made.engine.gather(query, Limits(3, candidates))
        assert found.touched == listed
        np.testing.assert_array_equal(found.positions, order[: min(candidates, listed)])
    assert {position // RANGE for position in order[: listed - 7]} == {0, 1, 2}
    for threads in (1, 3):
        positions, _ = one(made.engine.search(query, whole(query), 20, Limits(3, 4000), threads=threads))
        allowed = np.zeros(n, np.uint8)
        allowed[order[:4000]] = 1
        assert positions == one(made.engine.exhaustive(query, whole(query), 20, allowed=allowed))[0]


def test_candidates_of_more_query_tokens_than_the_scoreboard_tells_apart(isa):
    """Token 2,046 has the tag of the first, and so may be the next to find what that one found."""
    rng = np.random.default_rng(0)
    made = make(rng, [1] * 12, width=8, count=4, ids=np.arange(12, dtype=np.uint32) % 3)
    drawn = rng.standard_normal((100, 8)).astype(np.float32)
    integers, _, _ = made.engine.prepare(drawn)
    nearest = (integers.astype(np.int64) @ (made.codec.centroids.astype(np.int64) - 128).T).argmax(axis=1)
    of = [drawn[np.flatnonzero(nearest == c)[0]] for c in range(2)]
    query = np.stack([of[0], *[of[1]] * (TURN - 1), of[0], *[of[1]] * (TURN - 1), of[0], of[1]])
    integers, scales, _ = made.engine.prepare(query)
    products = integers.astype(np.int64) @ (made.codec.centroids.astype(np.int64) - 128).T
    coarse = np.array(reference.coarse_scores(products, scales, [[c] for c in range(3)], 1), np.float64)
    least = (scales * np.sort(products, axis=1)[:, -2]).sum()
    assert not np.isnan(coarse[:2]).any() and np.isnan(coarse[2])
    found = made.engine.gather(query, Limits(1, 12))
    assert sorted(found.positions.tolist()) == [0, 1, 3, 4, 6, 7, 9, 10] and found.touched == 8
    gains = dict(zip(found.positions.tolist(), found.scores.tolist(), strict=True))
    assert gains[0] / gains[1] == pytest.approx((coarse[0] - least) / (coarse[1] - least), rel=0.02)


@pytest.mark.parametrize("documents", [30, 900, 40000])
@pytest.mark.parametrize("cuts", [(), (3, 4)])
def test_candidates_do_not_depend_on_threads(isa, documents, cuts):
    """Threads share out the query's tokens where documents are few, and documents where they are many."""
    rng = np.random.default_rng(documents)
    lengths = rng.integers(1, 12, documents) if documents < 1000 else np.ones(documents, np.int64)
    made = make(rng, lengths.tolist(), width=8, cuts=[cut for cut in cuts if cut < documents])
    length = max(10, 30000 // documents)
    query = rng.standard_normal((length, 8)).astype(np.float32)
    # Two tokens, which are not of one thread: the last centroid that each looks at adds 0 to its documents.
    twice = np.repeat(rng.standard_normal((2, 8)).astype(np.float32), length // 2, axis=0)
    cases = [(query, Limits(7, 20)), (query, Limits(30, documents)), (query, Limits(9, 100, lists=2))]
    cases += [(query, Limits(1, 5000, cells=2)), (twice, Limits(30, documents, cells=1))]
    for query, limits in cases:
        expected = made.engine.gather(query, limits)
        for threads in (2, 3, 7):
            found = made.engine.gather(query, limits, threads=threads)
            for left, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(left, right)
        hits = one(made.engine.search(query, whole(query), 5, limits, threads=1))
        assert one(made.engine.search(query, whole(query), 5, limits, threads=3)) == hits


def test_all_cells_are_all_centroids(isa):
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 9, 40).tolist(), count=50, cells=6)
    query = rng.standard_normal((20, 40)).astype(np.float32)
    flat = made.engine.gather(query, Limits(7, 30))
    for cells in (6, 100):
        routed = made.engine.gather(query, Limits(7, 30, cells=cells))
        assert routed.positions.tolist() == flat.positions.tolist()
        assert routed.scores.tolist() == flat.scores.tolist()


@pytest.mark.parametrize("count", [1, 7, 50, 60])
def test_probes(isa, count):
    """The largest products, the lowest id among equals, in the best cells of each token."""
    rng = np.random.default_rng(0)
    made = make(rng, [4], count=50, cells=6)
    made.codec.centroids[::3] = made.codec.centroids[0]
    made.codec.cells[3] = made.codec.cells[1]
    offsets = np.cumsum([0, 5, 17, 3, 40])
    queries = rng.standard_normal((offsets[-1], 40)).astype(np.float32)
    integers = np.concatenate([made.engine.prepare(queries[a:b])[0] for a, b in itertools.pairwise(offsets)])
    every = integers.astype(np.int64) @ (made.codec.centroids.astype(np.int64) - 128).T
    centres = integers.astype(np.int64) @ (made.codec.cells.astype(np.int64) - 128).T
    of_cell = np.repeat(np.arange(6), np.diff(made.codec.cell_offsets))
    for cells, threads in itertools.product((0, 1, 2, 5, 6, 100), (1, 3)):
        products, ids, known = made.engine.probe(queries, offsets, count, cells=cells, threads=threads)
        assert products.shape == ids.shape == (len(queries), count) and products.dtype == ids.dtype == np.int32
        wanted = np.zeros(centres.shape, bool)
        np.put_along_axis(wanted, np.argsort(-centres, axis=1, kind="stable")[:, : cells or None], True, axis=1)
        for i in range(len(queries)):
            looked_at = np.flatnonzero(wanted[i, of_cell])
            order = looked_at[np.argsort(-every[i, looked_at], kind="stable")[:count]]
            assert known[i] == len(order) == min(count, len(looked_at))
            assert ids[i].tolist() == order.tolist() + [0] * (count - len(order))
            assert products[i].tolist() == every[i, order].tolist() + [0] * (count - len(order))
