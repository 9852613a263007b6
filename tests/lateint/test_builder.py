import subprocess
import sys

import numpy as np
import pytest

from lateint import Index
from lateint.indexing import builder
from lateint.indexing.documents import read
from lateint.indexing.encoding import TOLERATED_OVERFLOW, Overflow
from lateint_kernels import Ragged
from lateint_kernels.codes.building import HostOperators


def documents(lengths, dim=16):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
    return read(Ragged.from_lengths(tokens, lengths, allow_empty=True), None, allow_empty=True, spool=None)


def plan(lengths, **settings):
    return builder.plan(documents(lengths), builder.Settings(progress=False, **settings))


def test_default_centroids():
    """About one for 48 tokens, and fewer than in proportion beyond 16,384; always at least one."""
    assert [builder.default_centroids(n) for n in (1, 47, 48, 4_800, 786_432)] == [1, 1, 1, 100, 16_384]
    sizes = [builder.default_centroids(10**e) for e in range(6, 11)]
    assert sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(16_384 * (10**8 / 786_432) ** 0.55, rel=0.01)
    assert builder.default_centroids(10**15) == 1 << 24


def test_plan_without_a_bound():
    found = plan([100] * 100)
    assert (found.centroids, found.segment_tokens) == (208, 10_100)  # a document counts as a token
    assert found.sample == min(10_000, 208 * builder.SAMPLE_PER_CENTROID)
    assert plan([100] * 100, ncentroids=20_000).centroids == 10_000
    assert plan([3]).sample == 3


def test_plan_within_max_ram(monkeypatch):
    monkeypatch.setattr(builder, "CHUNK", 100)
    lengths = [100] * 500
    least = None
    for max_ram in range(100_000, 1_500_000, 50_000):
        try:
            found = plan(lengths, max_ram=max_ram)
        except ValueError as error:
            assert "max_ram must be at least" in str(error)
            continue
        least = least or max_ram
        fixed = found.centroids * 15 * 64 + 100 * (20 * 16 + 128) + 500 * builder.DOCUMENT_BYTES
        assert fixed + found.sample * (64 + 16) <= max_ram
        assert fixed + found.segment_tokens * 13 <= max_ram
        assert found.sample >= 4 * found.centroids
    assert least is not None and plan(lengths, max_ram=1 << 40) == plan(lengths)


SHORT = """
import ctypes, threading, time
import numpy as np
from lateint import Index
class Documents:
    def __iter__(self):
        for first in range(0, 150_000, 10_000):
            rng = np.random.default_rng(first)
            yield from rng.standard_normal((10_000, 1, 8), dtype=np.float32)
source, ids = {source}
Index.build(np.ones((9, 9, 8), np.float32), progress=False)  # what is loaded once
try:
    Index.build(source, "index", ids=ids, max_ram=1, progress=False, **{settings})
except ValueError as error:
    asked = int(str(error).split("at least ")[1].split(" ")[0].replace(",", ""))
def taken():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return 1024 * int(lines["RssAnon"].split()[0])
ctypes.CDLL(None).malloc_trim(0)
before, most, done = taken(), 0, False
def watch():
    global most
    while not done:
        most = max(most, taken())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
Index.build(source, "index", ids=ids, max_ram=asked, progress=False, threads=2, **{settings})
done = True
watcher.join()
print(asked, most - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/status is Linux's")
@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("np.ones((150_000, 8), np.float32), np.arange(150_000)[::-1]", "dict(lengths=np.ones(150_000, np.int64))"),
        pytest.param("Documents(), [str(i) for i in range(150_000)]", "{}", marks=pytest.mark.long),
        pytest.param("list(Documents()), None", "{}", marks=pytest.mark.long),
    ],
    ids=["flat", "stream", "list"],
)
def test_max_ram_holds_for_short_documents(tmp_path, source, settings):
    """It used to take up to nine times as much."""
    program = SHORT.replace("{source}", source).replace("{settings}", settings)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout, done.stderr
    asked, taken = map(int, done.stdout.split())
    assert taken <= 1.1 * asked


def test_max_ram_too_small_says_how_much_is_needed():
    with pytest.raises(
        ValueError, match=r"max_ram must be at least ([\d,]+) bytes for 1,000 tokens of dim 16"
    ) as raised:
        plan([10] * 100, max_ram=1)
    least = int(str(raised.value).split("at least ")[1].split(" ")[0].replace(",", ""))
    plan([10] * 100, max_ram=least)
    with pytest.raises(ValueError, match="max_ram must be at least"):
        plan([10] * 100, max_ram=least - 1)


@pytest.mark.parametrize("most", [1, 3, 10, 11, 100])
def test_segments_are_runs_of_documents(most):
    rng = np.random.default_rng(most)
    for lengths in ([5], [0, 0, 3], [10, 1, 0, 9, 12, 0], rng.integers(0, 15, 40)):
        lengths = np.array(lengths)
        cuts = builder.cut_into_segments(lengths, most)
        assert [first for first, _ in cuts] == [0, *(last for _, last in cuts)][:-1]
        assert cuts[-1][1] == len(lengths)
        for first, last in cuts:
            assert last > first
            assert (lengths[first:last] + 1).sum() <= most or last == first + 1


@pytest.mark.parametrize("lengths", [[500, 0, 0, 500, 0, 3, 2], [0, 0, 500, 1, 400, 0], [300] * 5])
def test_segments_with_long_and_with_no_tokens(monkeypatch, tmp_path, lengths):
    """A document longer than a segment may be is one of its own; a segment may hold no token at all."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((sum(lengths), 16)).astype(np.float32)
    whole = Index.build(tokens, lengths=lengths, ncentroids=3, allow_empty=True, progress=False)
    monkeypatch.setattr(
        builder, "plan", lambda *_: builder.Plan(4, 3, 3 * builder.SAMPLE_PER_CENTROID, 64, 0, 0, False)
    )
    cut = Index.build(tokens, tmp_path / "cut", lengths=lengths, allow_empty=True, progress=False)
    assert cut.stats()["segments"] == len(builder.cut_into_segments(np.array(lengths), 64)) > 1
    query = rng.standard_normal((4, 16)).astype(np.float32)
    assert list(cut.search(query, 10)) == list(whole.search(query, 10))
    assert [len(cut.reconstruct(i)) for i in range(len(lengths))] == lengths


def test_overflow_counts_tokens_beyond_the_reach(recwarn):
    scaled = np.zeros((10_000, 8), np.float32)
    scaled[[5, 4095, 4096, 9_999], 3] = [200, -400, 127, 140]
    rows = np.clip(scaled + 128, 0, 255).astype(np.uint8)
    overflow, operators = Overflow(), HostOperators()
    for part in (slice(None), slice(5)):
        overflow.add(operators.peaks(rows[part], scaled[part], 127 * TOLERATED_OVERFLOW))
    assert overflow.tokens == 2 and overflow.most == pytest.approx(400 / 127)
    with pytest.warns(UserWarning, match=r"2 of 10,005 tokens have components up to 3\.15 times what codes can hold"):
        overflow.warn(10_005)
    Overflow().warn(10)


def test_the_warning_points_at_the_caller(clustered):
    tokens = clustered([50] * 20).tokens.copy()
    tokens[3] *= 1000
    with pytest.warns(UserWarning, match="were cut") as caught:
        Index.build(tokens, lengths=[50] * 20, progress=False)
    assert caught[0].filename == __file__


def test_what_chunks_a_source_gives_changes_nothing(clustered, monkeypatch):
    """Tokens are encoded one by one: an index does not depend on how they were cut into pieces."""
    tokens = clustered([50] * 40).tokens
    one = Index.build(tokens, lengths=[50] * 40, progress=False)
    pieces = [(tokens[:50], [50]), (tokens[50:600], [50] * 11), (tokens[600:], [50] * 28)]
    other = Index.build(pieces, progress=False)
    for name in ("codes", "scales", "centroid_ids"):
        name = f"segments/000000/{name}"
        assert one._snapshot.state.arrays[name].shape == other._snapshot.state.arrays[name].shape
    scores = [index.search(tokens[:8], 40, exhaustive=True) for index in (one, other)]
    np.testing.assert_allclose(np.sort(scores[0].scores), np.sort(scores[1].scores), atol=0.1)


def test_seconds_of_every_part(clustered):
    seconds = Index.build(clustered([50] * 40), progress=False).stats()["build_seconds"]
    assert {"codec", "sample", "centroids", "input", "rotate", "assign", "encode", "write", "lists"} <= seconds.keys()
    assert all(value >= 0 for value in seconds.values())


@pytest.mark.parametrize("total", [5, builder.CHUNK, 3 * builder.CHUNK + 77])
def test_the_sample_does_not_depend_on_how_tokens_come(total):
    def picked(sizes):
        picks, ends = builder._Picks(total // 3, total, np.random.default_rng(0)), np.cumsum(sizes)
        return np.concatenate([end - size + picks.among(size) for size, end in zip(sizes, ends, strict=True)])

    pieces = np.diff(np.unique([0, total // 7, total // 2, total // 2 + 1, total]))
    whole = picked([total])
    assert len(whole) == len(set(whole.tolist())) == total // 3 and whole.min() >= 0 and whole.max() < total
    np.testing.assert_array_equal(picked(pieces.tolist()), whole)
