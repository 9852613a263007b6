"""The kernel that adds up coarse scores, against the CPU's engine: the same integers. Its PTX executed without a GPU,
and on one."""

import itertools
import warnings

import numpy as np
import pytest
from random_index import make

torch = pytest.importorskip("torch")

from ptx.cuda import LONG, ORDERS, Simulation  # noqa: E402

from lateint_kernels import backends  # noqa: E402
from lateint_kernels.codes.cuda import scoreboard  # noqa: E402
from lateint_kernels.codes.device import engine as device_engine  # noqa: E402
from lateint_kernels.codes.device.engine import DeviceEngine  # noqa: E402
from lateint_kernels.codes.engine import Engine, Limits  # noqa: E402
from lateint_kernels.codes.torch import scoreboard as sorting  # noqa: E402
from lateint_kernels.gpu import program  # noqa: E402
from lateint_kernels.gpu import support as gpu_support  # noqa: E402

pytestmark = pytest.mark.interpreted


def gpu_with(slots, multiprocessors=1):
    """Tables of so many documents, and blocks for so many multiprocessors."""
    block = scoreboard.RESERVED + scoreboard.HEADER + scoreboard.SLOT * slots
    room = scoreboard.BLOCKS_PER_MULTIPROCESSOR * block
    return program.Gpu("sm_90a", multiprocessors, shared_per_block=room, shared_per_multiprocessor=room)


def need_gpu():
    if reason := scoreboard.why_not("best_keys", "cuda"):
        pytest.skip(reason)


@pytest.fixture
def simulation(monkeypatch):
    if reason := gpu_support._missing():
        pytest.skip(reason)
    monkeypatch.setattr(scoreboard, "THREADS", 96)
    resolve = device_engine.backends.resolve
    monkeypatch.setattr(
        device_engine.backends,
        "resolve",
        lambda op, *on, **by: scoreboard.best_keys if op == "best_keys" else resolve(op, *on, **by),
    )
    return Simulation(gpu_with(100)).install(monkeypatch, scoreboard)


@pytest.fixture(
    params=[*ORDERS, pytest.param("cuda", marks=pytest.mark.gpu)], ids=lambda given: "real" if given == "cuda" else ""
)
def device(request, monkeypatch):
    """A GPU: simulated, or real."""
    monkeypatch.setattr(scoreboard, "LEAST_ROOM", 0)  # so that few documents are too many
    if request.param == "cuda":
        need_gpu()
        return "cuda"
    vars(request.getfixturevalue("simulation")).update(request.param)
    return "cpu"


def sizes(device, few, many):
    """What takes seconds where a GPU is simulated, and what a GPU, or the long form, can do."""
    return many if device == "cuda" or LONG else few


def size_tables(device, monkeypatch, slots, multiprocessors):
    """A GPU's too; the number of its blocks is what it is."""
    monkeypatch.setattr(scoreboard, "slots_of", lambda gpu: slots)
    if device == "cpu":
        monkeypatch.setattr(program, "gpu", lambda index: gpu_with(slots, multiprocessors))


def batch(rng, lengths, dim=40):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.standard_normal((offsets[-1], dim)).astype(np.float32), offsets


def same_candidates(ours, theirs, query, limits):
    found, expected = ours.gather(query, limits), theirs.gather(query, limits)
    assert found.positions.tolist() == expected.positions.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert (found.postings, found.touched) == (expected.postings, expected.touched)


def same_keys(ours, queries, offsets, limits, allowed=None):
    """Of a batch, with those that sorting finds; what comes after them is none."""
    found, expected = [], []
    for best_keys, kept in ((scoreboard.best_keys, found), (sorting.best_keys, expected)):
        ours._best_keys = lambda *given, best_keys=best_keys, kept=kept: kept.extend(best_keys(*given)) or kept
        ours.search(queries, offsets, 5, limits, allowed=allowed)
    keys, sorted_keys = found[0].cpu(), expected[0].cpu()
    count = sorted_keys.shape[1]
    assert torch.equal(keys[:, :count], sorted_keys) and (keys[:, count:] == -1).all()
    assert [int(number) for number in found[1:]] == [int(number) for number in expected[1:]]
    assert keys.dtype == torch.int64 and keys.shape[1] == min(limits.candidates, ours.index.documents)


@pytest.mark.parametrize(("slots", "multiprocessors"), [(12, 1), (40, 3), (1000, 1)])
@pytest.mark.parametrize("cuts", [(), (20, 21)])
def test_candidates_of_the_cpu(device, monkeypatch, slots, multiprocessors, cuts):
    """Ranges within a segment and across some, in one block and in several; lists that are empty in a segment."""
    size_tables(device, monkeypatch, slots, multiprocessors)
    rng = np.random.default_rng(slots)
    documents = sizes(device, 40, 300)
    made = make(rng, rng.integers(0, 9, documents).tolist(), count=documents // 6, cuts=cuts)
    ours = DeviceEngine(made.codec, made.segments, device)
    many = [(1, 1, 1), (1, 200, 40), (20, 3, 1), (20, 3, 40), (20, 50, 500), (3, 25, 250)]
    for length, nprobe, candidates in sizes(device, [(1, 200, 9), (3, 2, 7)], many):
        query = rng.standard_normal((length, 40)).astype(np.float32)
        same_candidates(ours, made.engine, query, Limits(nprobe, candidates))


def test_a_batch(device, monkeypatch):
    """Queries of many lengths, in several goes; documents that may not be found."""
    rng = np.random.default_rng(0)
    documents = sizes(device, 50, 400)
    made = make(rng, rng.integers(0, 9, documents).tolist(), count=documents // 6, cuts=(documents // 4,))
    ours = DeviceEngine(made.codec, made.segments, device)
    queries, offsets = batch(rng, sizes(device, [1, 3, 2], [1, 7, 33, 2, 9]))
    some, none = (rng.random(documents) < 0.3).astype(np.uint8), np.zeros(documents, np.uint8)
    for candidates, allowed in itertools.product(sizes(device, (7,), (7, 120, 1000)), (None, some, none)):
        same_keys(ours, queries, offsets, Limits(4, candidates), allowed)
    monkeypatch.setattr(scoreboard, "BYTES", 2 * (8 * 28 + 4 * scoreboard.BINS * scoreboard.PASSES))
    same_keys(ours, queries, offsets, Limits(4, 7), some)


def test_search(device):
    rng = np.random.default_rng(2)
    documents = sizes(device, 50, 400)
    made = make(rng, rng.integers(0, 9, documents).tolist(), count=documents // 6, cuts=(documents // 4,))
    ours = DeviceEngine(made.codec, made.segments, device)
    queries, offsets = batch(rng, sizes(device, [1, 3], [1, 7, 33]))
    allowed = (rng.random(documents) < 0.5).astype(np.uint8)
    for k, patience, mask in itertools.product(sizes(device, (5,), (1, 60)), (0, 32), (None, allowed)):
        limits = Limits(4, 70, patience, deviations=patience / 32)
        found, expected = (engine.search(queries, offsets, k, limits, allowed=mask) for engine in (ours, made.engine))
        for left, right in zip(found, expected, strict=True):
            assert left[0].tolist() == right[0].tolist() and left[1].tobytes() == right[1].tobytes()


@pytest.mark.parametrize("room", [1, 4])
def test_ties_and_gains_of_zero(device, monkeypatch, room):
    """One centroid: every document is found, gains nothing, and is told from the others by its position alone."""
    monkeypatch.setattr(scoreboard, "ROOM", room)
    rng = np.random.default_rng(0)
    documents = sizes(device, 150, 500)
    made = make(rng, [2] * documents, count=1)
    ours = DeviceEngine(made.codec, made.segments, device)
    query = rng.standard_normal((sizes(device, 1, 3), 40)).astype(np.float32)
    for candidates in (1, documents - 1, documents):
        same_candidates(ours, made.engine, query, Limits(1, candidates))
    assert ours.gather(query, Limits(1, 37)).positions.tolist() == list(range(37))


def test_equal_centroids(device, monkeypatch):
    """Documents that several lists of a token name, with equal gains and with others; many equal sums."""
    monkeypatch.setattr(scoreboard, "ROOM", 1)
    rng = np.random.default_rng(0)
    made = make(rng, [sizes(device, 9, 30)] * 90, count=40)
    made.codec.centroids[::2] = made.codec.centroids[0]
    made.codec.centroids[1::4] = made.codec.centroids[1]
    theirs, ours = Engine(made.codec, made.segments), DeviceEngine(made.codec, made.segments, device)
    many = itertools.product((1, 15, 30), (1, 20, 89))
    for nprobe, candidates in sizes(device, [(15, 20), (30, 89)], many):
        query = rng.standard_normal((sizes(device, 2, 5), 40)).astype(np.float32)
        same_candidates(ours, theirs, query, Limits(nprobe, candidates))


def test_entries_close_together(device, monkeypatch):
    """A range that its block's table has no room for is halved, again and again."""
    size_tables(device, monkeypatch, 32, 1)
    rng = np.random.default_rng(0)
    documents, close = sizes(device, (600, 100), (6000, 400))
    lengths = np.ones(documents, int)
    ids = np.full(documents, 7, np.uint32)
    ids[200 : 200 + close] = rng.integers(0, 3, close)
    made = make(rng, lengths.tolist(), count=9, ids=ids)
    made.codec.centroids[3:] = 128  # what queries like least
    ours = DeviceEngine(made.codec, made.segments, device)
    query = (made.codec.centroids[:3, :40].astype(np.float32) - 128) @ np.eye(40, dtype=np.float32)
    for nprobe in sizes(device, (3,), (1, 3)):
        same_candidates(ours, made.engine, query, Limits(nprobe, 50))


def test_no_documents(device):
    made = make(np.random.default_rng(0), [])
    ours = DeviceEngine(made.codec, made.segments, device)
    found = ours.gather(np.ones((2, 40), np.float32), Limits(2, 5))
    assert len(found.positions) == found.postings == found.touched == 0


def test_more_lists_than_the_kernel_can_number(monkeypatch):
    rng = np.random.default_rng(0)
    made = make(rng, [3] * 20)
    ours = DeviceEngine(made.codec, made.segments, "cpu")
    ours._best_keys = scoreboard.best_keys
    monkeypatch.setattr(scoreboard, "MOST_LISTS", 8)
    same_candidates(ours, made.engine, rng.standard_normal((3, 40)).astype(np.float32), Limits(4, 5))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_100", "sm_120"])
def test_tables_fit_into_shared_memory(arch):
    shared = {"sm_80": 164, "sm_90a": 228, "sm_100": 228}.get(arch, 100) * 1024
    slots = scoreboard.slots_of(program.Gpu(arch, 100, shared - 1024, shared))
    block = scoreboard.HEADER + scoreboard.SLOT * slots
    assert block <= shared - 1024 and scoreboard.BLOCKS_PER_MULTIPROCESSOR * (block + 1024) <= shared and slots > 1000


def test_which_one_runs(monkeypatch):
    chosen = backends.resolve.__wrapped__
    assert chosen("best_keys", torch.device("cpu")) is sorting.best_keys
    monkeypatch.setattr(backends, "why_not", lambda *what: None)
    assert chosen("best_keys", torch.device("cuda")) is scoreboard.best_keys
    assert chosen("best_keys", torch.device("cuda"), backend="torch") is sorting.best_keys


@pytest.mark.gpu
@pytest.mark.parametrize("candidates", [10, 4096])
def test_a_large_batch_is_as_sorted(candidates):
    """Twenty times, for threads run in another order each time."""
    need_gpu()
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 12, 100_000).tolist(), count=2000, cuts=(30_000,))
    ours = DeviceEngine(made.codec, made.segments, "cuda")
    assert ours._best_keys is scoreboard.best_keys
    queries, offsets = batch(rng, [32] * 60 + [1, 320])
    for _ in range(20):
        same_keys(ours, queries, offsets, Limits(16, candidates))


@pytest.mark.gpu
def test_a_search_waits_for_the_device_once():
    need_gpu()
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(1, 12, 5000).tolist(), count=200)
    ours = DeviceEngine(made.codec, made.segments, "cuda")
    queries, offsets = batch(rng, [32] * 8)
    prepared = ours.prepared(queries, offsets)
    limits, allowed = Limits(4, 600, patience=96, deviations=3.0), ours.mask(np.ones(5000, np.uint8))

    def search():
        found = ours.gathered(prepared, limits, allowed)
        scores = device_engine.search.score(ours.index, prepared, ours._kernels, found.positions)
        scores = device_engine.search.stop(found, scores, 10, limits)
        return device_engine.search.top_k(found.positions, scores, 10)

    search()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        ours.prepared(queries, offsets)
        search()
    finally:
        torch.cuda.set_sync_debug_mode("default")
