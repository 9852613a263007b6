"""An index that is larger than its device, or on several of them: the results of `Engine`, bit for bit."""

import itertools

import numpy as np
import pytest
from random_index import make

from lateint_kernels.codes.engine import Limits
from lateint_kernels.codes.engines import engine
from lateint_kernels.codes.residual import NBITS
from lateint_kernels.devices import Place

torch = pytest.importorskip("torch")

from lateint_kernels.codes.device import cache  # noqa: E402
from lateint_kernels.codes.device.engine import DeviceEngine  # noqa: E402
from lateint_kernels.codes.device.shards import split  # noqa: E402
from lateint_kernels.codes.index_tensors import size, size_of_lists  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "torch:cpu"
ALLOWED = (np.random.default_rng(3).random(400) < 0.7).astype(np.uint8)


def collection(nbits, cuts=(150,), documents=400):
    rng = np.random.default_rng(nbits)
    return make(rng, rng.integers(0, 40, documents).tolist(), nbits=nbits, cuts=cuts, count=60)


def batch(lengths, dim=40):
    rng, offsets = np.random.default_rng(0), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.standard_normal((offsets[-1], dim)).astype(np.float32), offsets


def least(made):
    """Bytes that a search needs at least: lists, and the longest document in each half."""
    with pytest.raises(
        MemoryError, match=r"device_memory must be at least [\d,]+ bytes for this index, got 1$"
    ) as found:
        engine(made.codec, made.segments, Place.of(DEVICE, 1))
    return int(str(found.value).split()[5].replace(",", ""))


def same(left, right):
    for (positions, scores), (others, other_scores) in zip(left, right, strict=True):
        assert positions.tolist() == others.tolist() and scores.tobytes() == other_scores.tobytes()


def same_searches(ours, made, every=7):
    """In one of so many combinations of limits."""
    queries, offsets = batch([1, 7, 33, 2, 90])
    some = ALLOWED[: len(made.lengths)]
    choices = itertools.product((1, 10, 1000), (1, 60), (50, 400), (0, 32), (None, some))
    for number, (k, nprobe, candidates, patience, mask) in enumerate(choices):
        if number % every == 0:
            limits = Limits(nprobe, candidates, patience, watched=number % 3, deviations=patience / 32)
            limits = limits._replace(sampled=(0, 3, 20)[number % 4 % 3], lists=(0, 2)[number % 2])
            same(*(engine.search(queries, offsets, k, limits, allowed=mask) for engine in (ours, made.engine)))
    for k, mask in itertools.product((1, 1000), (None, some)):
        expected = made.engine.exhaustive(queries, offsets, k, allowed=mask)
        same(ours.exhaustive(queries, offsets, k, allowed=mask), expected)
    nothing = np.zeros_like(some)
    assert [len(p) for p, _ in ours.search(queries, offsets, 3, Limits(4, 50), allowed=nothing)] == [0] * 5
    assert [len(p) for p, _ in ours.exhaustive(queries, offsets, 3, allowed=nothing)] == [0] * 5
    empty = np.empty((0, 40), np.float32), np.zeros(1, np.int64)
    assert ours.search(*empty, 4, Limits(2, 3)) == [] == ours.exhaustive(*empty, 4)


def same_documents(ours, made):
    query = batch([20])[0]
    positions = np.random.default_rng(1).integers(0, len(made.lengths), 300)
    assert ours.score(query, positions).tobytes() == made.engine.score(query, positions).tobytes()
    assert ours.score(query, positions[:0]).shape == (0,)
    for nprobe, candidates in itertools.product((1, 60), (1, 40, 500)):
        found = ours.gather(query, Limits(nprobe, candidates))
        for left, right in zip(found, made.engine.gather(query, Limits(nprobe, candidates)), strict=True):
            np.testing.assert_array_equal(left, right)
    for segment in range(len(made.segments)):
        np.testing.assert_array_equal(ours.decode(segment, 3, 40), made.engine.decode(segment, 3, 40))
    for left, right in zip(ours.prepare(query), made.engine.prepare(query), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("nbits", "share"), [(2, 0.0), *itertools.product(NBITS, (0.3,)), (8, 0.9)])
def test_documents_on_the_host(nbits, share, monkeypatch):
    """From the least memory that will do to nearly enough for all."""
    monkeypatch.setattr("lateint_kernels.codes.index_tensors.STAGED", 256)
    made = collection(nbits) if share else collection(nbits, (35,), 90)  # with room for two documents it takes long
    low, high = least(made), size(made.codec, made.segments)
    ours = engine(made.codec, made.segments, Place.of(DEVICE, int(low + share * (high - low))))
    assert ours._cache is not None
    same_searches(ours, made, every=7 if share else 21)
    same_documents(ours, made)


def test_what_was_used_stays():
    """Documents are copied when they are first needed, and again only when others have taken their place."""
    made = collection(4)
    low, high = least(made), size(made.codec, made.segments)
    ours = engine(made.codec, made.segments, Place.of(DEVICE, (low + high) // 2))
    held, copied = ours._cache, []
    add = held._add
    held._add = lambda missing: (copied.extend(missing.tolist()), add(missing))
    query, most = batch([3])[0], held.most
    long = np.flatnonzero(np.diff(held.index.cuts) > 20)
    ours.score(query, long[:3])
    ours.score(query, long[2:5])
    assert copied == long[:5].tolist()
    ours.score(query, np.arange(400))
    assert held._counts(np.array(copied)).sum() > 2 * most
    del copied[:]
    ours.score(query, np.arange(399, 395, -1))
    assert copied == []


def test_memory_of_a_part():
    """Never more than was allowed, and no less than all of it when documents would fill it."""
    made = collection(2)
    low, high = least(made), size(made.codec, made.segments)
    for memory in np.linspace(low, high - 1, 7).astype(int).tolist():
        held = engine(made.codec, made.segments, Place.of(DEVICE, memory))._cache
        assert memory - 2 * cache.ROWS * 20 <= held._held.bytes <= memory
        assert held.index.bytes == size_of_lists(made.codec, made.segments)
    whole = engine(made.codec, made.segments, Place.of(DEVICE, high))
    assert whole._cache is None and whole.index.bytes == high


@pytest.mark.parametrize("nbits", [2, 8])
@pytest.mark.parametrize("count", [1, 2, pytest.param(3, marks=pytest.mark.long), 7])
@pytest.mark.parametrize("cuts", [(), (150, 390)])
def test_several_devices(nbits, count, cuts):
    made = collection(nbits, cuts)
    ours = engine(made.codec, made.segments, Place.of([DEVICE] * count))
    same_searches(ours, made)
    same_documents(ours, made)


def test_several_devices_too_small_for_the_index():
    made = collection(4)
    memory = max(least(made), size(made.codec, made.segments) // 4)
    ours = engine(made.codec, made.segments, Place.of([DEVICE] * 3, memory))
    assert any(shard._cache for shard in ours.shards)
    same_searches(ours, made)


def test_ties_between_devices():
    """Equal documents on all of them: the lowest first."""
    made = make(np.random.default_rng(0), [4] * 30, nbits=8, count=1)
    for segment in made.segments:
        segment.codes[:] = segment.codes[0]
    made.codec.centroids[:] = made.codec.centroids[0]
    ours = engine(made.codec, made.segments, Place.of([DEVICE] * 4))
    queries, offsets = batch([3])
    for found in (ours.search(queries, offsets, 9, Limits(1, 12)), ours.exhaustive(queries, offsets, 9)):
        assert found[0][0].tolist() == list(range(9))


@pytest.mark.parametrize("lengths", [[5], [0, 0, 3], [100, 1, 1, 1], [1, 1, 1, 100], [2] * 9])
@pytest.mark.parametrize("count", [2, 4])
def test_split(lengths, count):
    """Documents in order, about equally many tokens, lists of their own documents alone; shards may be empty."""
    made = make(np.random.default_rng(0), lengths, cuts=(1,) if len(lengths) > 1 else ())
    shares = split(made.segments, count)
    assert len(shares) == count
    found = [np.diff(segment.offsets) for share in shares for segment in share]
    assert np.concatenate(found).tolist() == lengths
    assert max(sum(int(s.offsets[-1]) for s in share) for share in shares) < sum(lengths) / count + max(lengths)
    codes = np.concatenate([segment.codes for share in shares for segment in share])
    np.testing.assert_array_equal(codes, np.concatenate([segment.codes for segment in made.segments]))
    for segment in (segment for share in shares for segment in share):
        for centroid in range(30):
            listed = segment.list_documents[slice(*segment.list_offsets[centroid : centroid + 2])].tolist()
            ids = [segment.centroid_ids[a:b].tolist() for a, b in itertools.pairwise(segment.offsets)]
            assert listed == [document for document, of in enumerate(ids) if centroid in of]


def test_memory_is_of_devices():
    made = collection(2)
    assert isinstance(engine(made.codec, made.segments, Place.of(DEVICE, 1 << 30)), DeviceEngine)
