"""The engine of devices, on the CPU: the results of `Engine`, bit for bit."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from random_index import make

from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.engines import engine
from lateint_kernels.codes.residual import NBITS
from lateint_kernels.devices import Place

torch = pytest.importorskip("torch")

from lateint_kernels.codes.device import engine as device_engine  # noqa: E402
from lateint_kernels.codes.device import search  # noqa: E402
from lateint_kernels.codes.index_tensors import size  # noqa: E402
from lateint_kernels.codes.torch import search as codes  # noqa: E402

LENGTHS = [1, 15, 16, 17, 63, 64, 65, 300, 0, 40, 3]
QUERIES = [1, 15, 33, 320]


def on_torch(made):
    return engine(made.codec, made.segments, Place.of("torch:cpu"))


def batch(rng, lengths, dim):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.standard_normal((offsets[-1], dim)).astype(np.float32), offsets


def same(left, right):
    for (positions, scores), (others, other_scores) in zip(left, right, strict=True):
        assert positions.tolist() == others.tolist()
        assert scores.tobytes() == other_scores.tobytes()
        assert positions.dtype == others.dtype and scores.dtype == other_scores.dtype


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", [8, 40, 128, 320])
def test_scores(nbits, width):
    rng = np.random.default_rng(width)
    made = make(rng, LENGTHS, width=width, nbits=nbits, cuts=(3, 7))
    ours = on_torch(made)
    for length in QUERIES:
        query = rng.standard_normal((length, width)).astype(np.float32)
        positions = rng.integers(0, len(LENGTHS), 40)
        assert ours.score(query, positions).tobytes() == made.engine.score(query, positions).tobytes()
        np.testing.assert_array_equal(ours.score(query, np.arange(len(LENGTHS))), made.scores(query))
    for segment, (first, last) in enumerate(itertools.pairwise((0, 3, 7, len(LENGTHS)))):
        np.testing.assert_array_equal(
            ours.decode(segment, 1, 5), made.rows[sum(LENGTHS[:first]) + 1 : sum(LENGTHS[:last])][:5]
        )


def test_products_of_wide_tokens():
    """More components than float32 can add up exactly."""
    rng = np.random.default_rng(0)
    made = make(rng, [5, 9], width=2048)
    query = rng.standard_normal((3, 2048)).astype(np.float32)
    assert on_torch(made).score(query, np.arange(2)).tobytes() == made.engine.score(query, np.arange(2)).tobytes()
    largest = torch.full((1, 4096), 127, dtype=torch.int8)
    assert codes.products(largest, largest).item() == 4096 * 127 * 127


@pytest.mark.parametrize(("width", "dim"), [(8, 1), (8, 7), (40, 40), (104, 100), (320, 320)])
def test_prepare(width, dim):
    rng = np.random.default_rng(dim)
    made = make(rng, LENGTHS, width=width, dim=dim)
    queries, offsets = batch(rng, [17, 1, 5], dim)
    queries[3], queries[4:6] = 0, queries[4:6] * np.array([[1e-31], [1e18]], np.float32)
    ours = on_torch(made)
    found = ours.prepared(queries, offsets)
    for number, (first, last) in enumerate(itertools.pairwise(offsets)):
        expected = made.engine.prepare(queries[first:last])
        mine = found.bytes[first:last].numpy(), found.scales[first:last].numpy(), found.constants[number].item()
        for left, right, same in zip(mine, expected, ours.prepare(queries[first:last]), strict=True):
            np.testing.assert_array_equal(left, right)
            np.testing.assert_array_equal(same, right)


@pytest.mark.parametrize("nbits", [2, 8])
@pytest.mark.parametrize("cuts", [(), (60, 200)])
def test_search(nbits, cuts):
    """With any limits, for a batch of queries of any lengths."""
    rng = np.random.default_rng(nbits)
    lengths = rng.integers(0, 30, 400).tolist()
    made = make(rng, lengths, nbits=nbits, cuts=cuts, count=60)
    ours = on_torch(made)
    queries, offsets = batch(rng, [1, 7, 33, 2, 90], 40)
    allowed = (rng.random(400) < 0.7).astype(np.uint8)
    choices = list(itertools.product((1, 10, 100, 1000), (1, 4, 60), (50, 400), (0, 32, 96), (None, allowed)))
    for number in rng.permutation(len(choices))[:24]:
        k, nprobe, candidates, patience, mask = choices[number]
        limits = Limits(nprobe, candidates, patience, watched=int(rng.choice([0, 1, 10])), deviations=patience / 32)
        limits = limits._replace(sampled=int(rng.choice([0, 3, 20])), lists=int(rng.choice([0, 1, 3])))
        same(*(engine.search(queries, offsets, k, limits, allowed=mask) for engine in (ours, made.engine)))
    for k, mask in itertools.product((1, 10, 1000), (None, allowed)):
        same(
            ours.exhaustive(queries, offsets, k, allowed=mask),
            made.engine.exhaustive(queries, offsets, k, allowed=mask),
        )
    nothing = np.zeros(400, np.uint8)
    assert [len(p) for p, _ in ours.search(queries, offsets, 3, Limits(4, 50), allowed=nothing)] == [0] * 5
    assert [len(p) for p, _ in ours.exhaustive(queries, offsets, 3, allowed=nothing)] == [0] * 5


@pytest.mark.parametrize("memory", [None, 200_000])
def test_sparse_lists(memory):
    rng = np.random.default_rng(8)
    made = make(rng, rng.integers(1, 30, 60).tolist(), count=500, cuts=(20, 25), sparse=True)
    ours = engine(made.codec, made.segments, Place.of("torch:cpu", memory))
    assert ours.index.bytes <= (size(made.codec, made.segments) if memory is None else memory)
    queries, offsets = batch(rng, [3, 40], 40)
    same(ours.search(queries, offsets, 9, Limits(30, 20)), made.engine.search(queries, offsets, 9, Limits(30, 20)))


def test_gather():
    rng = np.random.default_rng(1)
    made = make(rng, rng.integers(1, 30, 300).tolist(), count=50, cuts=(100,))
    ours = on_torch(made)
    for length, nprobe, candidates, lists in itertools.product((1, 20), (1, 3, 50), (1, 40, 500), (0, 2)):
        query = rng.standard_normal((length, 40)).astype(np.float32)
        found = ours.gather(query, Limits(nprobe, candidates, lists=lists))
        expected = made.engine.gather(query, Limits(nprobe, candidates, lists=lists))
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)


def uneven(rng, count, cuts=()):
    """An index whose cells hold from one centroid to most of them, with centroids that are equal in several cells."""
    made = make(rng, rng.integers(0, 30, 300).tolist(), count=count, cells=9, cuts=cuts)
    sizes = np.array([1, 2, 30, 1, 3, 5, 60, 8])
    made.codec.cell_offsets[1:] = [*np.cumsum(sizes), count]
    made.codec.centroids[::4] = made.codec.centroids[0]
    made.codec.centroids[1::7] = made.codec.centroids[1]
    made.codec.cells[4] = made.codec.cells[2]
    return replace(made)


@pytest.mark.parametrize("cells", [1, 2, 3, 8, 9, 100])
def test_cells(cells):
    """Few cells hold fewer centroids than are asked for: other numbers of them for each token."""
    rng = np.random.default_rng(cells)
    made = uneven(rng, 400, cuts=(120,))
    ours = on_torch(made)
    queries, offsets = batch(rng, [1, 9, 2, 33, 17, 3, 1], 40)
    queries[12:20] = queries[12]
    queries[20] = 0
    for nprobe, patience, lists in itertools.product((1, 4, 40, 400), (0, 32), (0, 3)):
        limits = Limits(nprobe, 60, patience=patience, cells=cells, deviations=patience / 32, lists=lists)
        same(ours.search(queries, offsets, 10, limits), made.engine.search(queries, offsets, 10, limits))
        for first, last in itertools.pairwise(offsets):
            limits = Limits(nprobe, 60, cells=cells, lists=lists)
            found, expected = (engine.gather(queries[first:last], limits) for engine in (ours, made.engine))
            for left, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(left, right)


def test_cells_of_many_centroids():
    """Queries in several batches."""
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 30, 400).tolist(), count=4000, cells=63)
    queries, offsets = batch(rng, [32, 5, 70, 1, 16], 40)
    ours, limits = on_torch(made), Limits(4, 100, patience=32)
    flat = made.engine.search(queries, offsets, 10, limits)
    routed = made.engine.search(queries, offsets, 10, limits._replace(cells=12))
    assert any(left[0].tolist() != right[0].tolist() for left, right in zip(flat, routed, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        for tokens in (1 << 11, 40, 1):
            patch.setitem(device_engine.TOKENS, "cpu", tokens)
            same(ours.search(queries, offsets, 10, limits._replace(cells=12)), routed)


def test_ties():
    """Equal documents, and equal centroids: the lowest first."""
    rng = np.random.default_rng(0)
    made = make(rng, [4] * 30, nbits=8, count=1)
    for segment in made.segments:
        segment.codes[:] = segment.codes[0]
    made.codec.centroids[:] = made.codec.centroids[0]
    ours, theirs = on_torch(made), Engine(made.codec, made.segments)
    queries, offsets = batch(rng, [3], 40)
    for patience in (0, 32):
        limits = Limits(1, 30, patience=patience)
        found = ours.search(queries, offsets, 5, limits)
        assert found[0][0].tolist() == [0, 1, 2, 3, 4]
        same(found, theirs.search(queries, offsets, 5, limits))
    same(ours.exhaustive(queries, offsets, 5), theirs.exhaustive(queries, offsets, 5))


def test_more_centroids_than_16_bits_count():
    rng = np.random.default_rng(0)
    count = (1 << 16) + 40
    ids = rng.integers(count - 80, count, 300).astype(np.uint32)
    made = make(rng, [10] * 30, width=8, count=count, ids=ids)
    ours = on_torch(made)
    queries, offsets = batch(rng, [6, 2], 8)
    limits = Limits(4096, 30)
    same(ours.search(queries, offsets, 7, limits), made.engine.search(queries, offsets, 7, limits))
    same(ours.exhaustive(queries, offsets, 7), made.engine.exhaustive(queries, offsets, 7))


def test_work_is_cut_anywhere(monkeypatch):
    rng = np.random.default_rng(0)
    made = make(rng, LENGTHS * 5, cuts=(20,))
    queries, offsets = batch(rng, [5, 40, 3, 3, 3], 40)
    limits = Limits(5, 30, patience=32, deviations=1.0)
    expected = made.engine.search(queries, offsets, 4, limits), made.engine.exhaustive(queries, offsets, 4)
    monkeypatch.setattr("lateint_kernels.codes.index_tensors.STAGED", 64)
    for tokens, postings, products, numbers in [(1, 1, 1, 1), (9, 1 << 20, 50, 300)]:
        monkeypatch.setitem(device_engine.TOKENS, "cpu", tokens)
        monkeypatch.setitem(device_engine.POSTINGS, "cpu", postings)
        monkeypatch.setitem(device_engine.PRODUCTS, "cpu", products)
        monkeypatch.setitem(codes.NUMBERS, "cpu", numbers)
        ours = on_torch(made)
        same(ours.search(queries, offsets, 4, limits), expected[0])
        same(ours.exhaustive(queries, offsets, 4), expected[1])


def test_an_empty_batch():
    made = make(np.random.default_rng(0), LENGTHS)
    queries, offsets = np.empty((0, 40), np.float32), np.zeros(1, np.int64)
    assert on_torch(made).search(queries, offsets, 4, Limits(2, 3)) == []
    assert on_torch(made).exhaustive(queries, offsets, 4) == []


def test_stopping_is_the_loop():
    """Scores of many ties and documents without tokens, against the loop of csrc/codes/engine.cpp."""
    rng = np.random.default_rng(0)
    for count, k, patience, deviations in itertools.product(
        (1, 31, 32, 33, 100, 300), (1, 5, 40), (0, 32, 64, 96), (0.0, 0.5, 2.0)
    ):
        scores = rng.integers(-3, 3 + count // 8, (4, count)).astype(np.float32)
        scores *= np.linspace(1, 0.3, count, dtype=np.float32)
        scores[rng.random((4, count)) < 0.1] = -np.inf
        positions = np.stack([rng.permutation(1000)[:count] for _ in range(4)])
        sums = np.sort(rng.integers(0, 1 << 20, (4, count)), axis=1)[:, ::-1].copy()
        unit = rng.uniform(1e2, 1e5, 4)
        found = search.Gathered(*map(torch.from_numpy, (positions, sums, unit)), torch.tensor(0), torch.tensor(0))
        stopped = search.stop(found, torch.from_numpy(scores), k, Limits(1, count, patience, 0, deviations))
        for i, given in enumerate(stopped.numpy()):
            expected = stopped_by_the_loop(positions[i], sums[i], unit[i], scores[i], k, patience, deviations)
            np.testing.assert_array_equal(given, expected)


def stopped_by_the_loop(positions, sums, unit, scores, k, patience, deviations):
    best, idle, expected = [], 0, scores.copy()
    for first in range(0, len(scores), search.ROUND):
        line = deviations and len(best) == k and below(sums, unit, scores, first, -best[-1][0], deviations)
        if line or (patience and idle >= patience):
            expected[first:] = -np.inf
            break
        changed = False
        for i in range(first, min(first + search.ROUND, len(scores))):
            key = (-scores[i], positions[i])
            if np.isfinite(scores[i]) and (len(best) < k or key < best[-1]):
                best = sorted([*best, key])[:k]
                changed = True
        idle = 0 if changed else idle + min(search.ROUND, len(scores) - first)
    return expected


def below(sums, unit, scores, first, least, deviations):
    """Least squares in Python's integers, where nothing is rounded before the end."""
    there = [i for i in range(first) if np.isfinite(scores[i])]

    def scaled(score):
        return round(min(max((float(score) - float(scores[there[0]])) * unit, -(2.0**22)), 2.0**22))

    c, s = [int(sums[i]) for i in there], [scaled(scores[i]) for i in there]
    n, products = len(there), zip(c, s, strict=True)
    mean_c, mean_s = sum(c) / n, sum(s) / n
    spread = sum(one * one for one in c) / n - mean_c * mean_c
    together = sum(one * other for one, other in products) / n - mean_c * mean_s
    slope = together / spread if spread > 0 else 0.0
    rest = sum(one * one for one in s) / n - mean_s * mean_s - slope * together
    reached = mean_s + slope * (int(sums[first]) - mean_c) + deviations * max(rest, 0.0) ** 0.5
    return reached < scaled(least)


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("count", [30, (1 << 16) + 1])
def test_memory(nbits, count):
    """The formula of docs/scale.md."""
    made = make(np.random.default_rng(0), LENGTHS, nbits=nbits, count=count, cuts=(4,))
    T, n, K, C, S, width, depth = sum(LENGTHS), len(LENGTHS), count, 5, 2, 40, 64
    P = sum(len(segment.list_documents) for segment in made.segments)
    a_token = width if nbits == 8 else width * nbits // 8 + 1 + (2 if K <= 1 << 16 else 3)
    assert size(made.codec, made.segments) == on_torch(made).index.bytes
    assert on_torch(made).index.bytes == T * a_token + 4 * P + 8 * n + K * (depth + 8 * S) + C * (depth + 8) + 16 * (
        S + 1
    )
