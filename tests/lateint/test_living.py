"""An index that changes: whatever was done, it is the index that a build of what is there would give."""

import copy
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from histories import DIM, QUERIES, answers, documents, expected, step
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import lateint
from lateint import Index, UnknownIdError
from lateint.changing import compaction, draft
from lateint.changing.rebuilding import Decoded
from lateint.disk.commits import LockedError

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


@pytest.fixture(params=["memory", "disk"])
def index(request, tmp_path):
    path = None if request.param == "memory" else tmp_path / "index"
    return Index.build(documents(np.random.default_rng(0), 20), path, text_search=True, progress=False, ncentroids=5)


def built(seed=0, count=20):
    return dict(enumerate(documents(np.random.default_rng(seed), count)))


@pytest.mark.parametrize("seed", range(6))
def test_a_history_gives_what_a_build_gives(seed, tmp_path):
    rng = np.random.default_rng(seed)
    live, path = built(seed), tmp_path / "index" if seed % 2 else None
    index = Index.build(
        list(live.values()), path, text_search=True, progress=False, ncentroids=5, nbits=[1, 2, 4, 8][seed % 4]
    )
    for _ in range(12):
        live = step(index, live, rng)
        assert answers(index) == expected(live, index.codec)
    if path is not None:
        assert answers(Index.open(path)) == answers(index)
        assert Index.verify(path).problems == []


def test_a_history_with_string_ids(tmp_path):
    rng = np.random.default_rng(3)
    live = {f"é{i}": tokens for i, tokens in built().items()}
    index = Index.build(
        list(live.values()), tmp_path / "i", ids=list(live), text_search=True, progress=False, ncentroids=5
    )
    for _ in range(10):
        live = step(index, live, rng, names=lambda number: f"ü{number}")
    assert answers(index) == expected(live, index.codec) == answers(Index.open(tmp_path / "i"))
    assert Index.verify(tmp_path / "i").problems == []


@pytest.mark.parametrize("device", [["torch:cpu"], ["torch:cpu", "torch:cpu"]])
def test_a_device_follows(device, tmp_path):
    pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    live = built()
    Index.build(list(live.values()), tmp_path / "i", text_search=True, progress=False, ncentroids=5)
    there, here = Index.open(tmp_path / "i", device=device), Index.open(tmp_path / "i")
    for _ in range(6):
        live = step(here, live, rng)
        there.refresh()
        assert there.generation == here.generation
        assert answers(there) == answers(here) == expected(live, here.codec)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_change_that_a_device_has_no_room_for_changes_nothing(on_disk, tmp_path, monkeypatch):
    """Neither in the folder nor in the index at hand, so whoever tries again adds nothing twice."""
    pytest.importorskip("torch")
    from lateint_kernels.codes.device import engine

    rng, path = np.random.default_rng(4), tmp_path / "i" if on_disk else None
    index = Index.build(documents(rng, 20), path, progress=False, ncentroids=5, device="torch:cpu")
    index.add(documents(rng, 2), ids=[30, 31])
    before, files = answers(index), on_disk and sorted(path.rglob("*"))

    def full(*_):
        raise MemoryError("the index takes 2 bytes on cuda:0, of which only 1 are free")

    monkeypatch.setattr(engine, "reload", full)
    for change in (
        lambda: index.add(documents(rng, 2), ids=[40, 41]),
        lambda: index.delete([3]),
        lambda: index.compact(full=True),
    ):
        with pytest.raises(MemoryError, match="of which only 1 are free"):
            change()
    assert answers(index) == before and index.generation == 1
    if on_disk:
        assert answers(Index.open(path)) == before and sorted(path.rglob("*")) == files
    monkeypatch.undo()
    index.add(documents(rng, 2), ids=[40, 41])
    assert index.ids.tolist()[-4:] == [30, 31, 40, 41] and index.generation == 2
    if on_disk:
        assert answers(Index.open(path)) == answers(index)


def test_an_update_is_not_undone_by_compaction(index):
    """What xtr-warp-rs 2.1 gets wrong: its old tokens are found again after it."""
    old = index.reconstruct(3)
    before = index.rerank(old, [3]).scores[0]
    index.update([3], documents(np.random.default_rng(7), 1))
    after = index.rerank(old, [3]).scores[0]
    assert after < before
    index.compact(full=True)
    assert index.rerank(old, [3]).scores[0] == after
    assert len(index) == 20


def test_the_history_would_notice_that_bug(monkeypatch):
    """Compaction that forgets what was deleted."""
    monkeypatch.setattr(compaction.Joined, "__init__", forgetful)
    with pytest.raises(AssertionError):
        for seed in range(6):
            test_a_history_gives_what_a_build_gives(2 * seed, None)


def forgetful(self, parts, pieces=None, init=compaction.Joined.__init__):
    from dataclasses import replace

    init(self, [replace(part, live=None) for part in parts], pieces)


def test_many_small_adds_make_few_segments(tmp_path, monkeypatch):
    live = built()
    index = Index.build(list(live.values()), tmp_path / "i", text_search=True, progress=False, ncentroids=5)
    rng = np.random.default_rng(1)
    for i in range(100, 160):
        live[i] = documents(rng, 1)[0]
        index.add([live[i]], ids=[i])
    assert index.stats()["segments"] <= 2 * compaction.FACTOR
    assert answers(index) == expected(live, index.codec)


def test_work_within_an_add_is_bounded(monkeypatch):
    monkeypatch.setattr(draft, "LEAST_WORK", 0)
    monkeypatch.setattr(compaction, "TIER", 8)
    written = []
    join = draft.Draft._join
    monkeypatch.setattr(
        draft.Draft,
        "_join",
        lambda self, a, b: (written.append(sum(p.tokens for p in self.state.parts[a:b])), join(self, a, b)),
    )
    rng = np.random.default_rng(0)
    index = Index.build(documents(rng, 20), text_search=True, progress=False, ncentroids=5)
    for _ in range(40):
        written.clear()
        new = documents(rng, 3)
        index.add(new)
        assert sum(written) <= draft.WORK * sum(map(len, new))
    before = index.stats()["segments"]
    index.compact()
    assert index.stats()["segments"] < before


def test_full_compaction_takes_the_room_of_a_build(tmp_path):
    rng = np.random.default_rng(0)
    live = dict(enumerate(documents(rng, 600)))
    index = Index.build(list(live.values())[:300], tmp_path / "i", text_search=True, progress=False, ncentroids=20)
    for i in range(300, 600, 50):
        index.add([live[j] for j in range(i, i + 50)])
    index.delete(range(0, 600, 3))
    index.compact(full=True)
    rest = {i: tokens for i, tokens in live.items() if i % 3}
    fresh = Index.build(
        list(rest.values()), tmp_path / "f", ids=list(rest), codec=index.codec, text_search=True, progress=False
    )
    assert index.stats()["segments"] == 1
    assert index.stats()["bytes"] <= 1.02 * fresh.stats()["bytes"]


# ------------------------------------------------------------------------- what is refused


def unchanged(index, call, kind, match):
    before, generation = answers(index), index.generation
    with pytest.raises(kind, match=match):
        call()
    assert answers(index) == before and index.generation == generation


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda i, d: i.add(d, ids=[3, 100]), ValueError, "ids must be new, but 3 is in the index already"),
        (lambda i, d: i.add(d, ids=[100, 100]), ValueError, "ids must differ, but 100 occurs more than once"),
        (lambda i, d: i.add(d, ids=["a", "b"]), TypeError, "ids must be int64 as those of this index are, got strings"),
        (lambda i, d: i.add(d, ids=[100]), ValueError, "got 1 ids for 2 documents"),
        (lambda i, d: i.add(d, on_duplicate="no"), ValueError, "on_duplicate must be one of raise, replace, skip"),
        (lambda i, d: i.add([x[:, :4] for x in d]), ValueError, "doc_embs must have dim 8 as the index has, got 4"),
        (lambda i, d: i.add([x * np.nan for x in d]), ValueError, "must be finite"),
        (lambda i, d: i.add([]), ValueError, "at least one token"),
        (lambda i, d: i.update([3, 99], d), UnknownIdError, "ids holds 99, which is no document of this index"),
        (lambda i, d: i.update([3], d), ValueError, "got 1 ids for 2 documents"),
        (lambda i, d: i.delete([3, 99]), UnknownIdError, "ids holds 99"),
        (lambda i, d: i.delete(["a"]), UnknownIdError, "ids holds 'a'"),
        (lambda i, d: i.delete(3), TypeError, "ids must be a list of ids, got int 3"),
    ],
)
def test_bad_input_changes_nothing(index, call, kind, match):
    unchanged(index, lambda: call(index, documents(np.random.default_rng(1), 2)), kind, match)


def test_a_transaction_is_all_or_nothing(index):
    def call():
        with index.transaction():
            index.delete([1])
            index.add(documents(np.random.default_rng(1), 2))
            assert len(index) == 20  # searches find what is committed
            index.delete([1])

    unchanged(index, call, UnknownIdError, "ids holds 1,")
    with index.transaction():
        index.delete([1])
        index.add(documents(np.random.default_rng(1), 2), ids=[1, 77])
    assert index.generation == 1 and len(index) == 21 and index.ids[-2:].tolist() == [1, 77]


def test_a_transaction_in_which_nothing_happens_is_no_commit(index):
    with index.transaction():
        pass
    index.compact()
    assert index.delete([]) == 0
    assert index.generation == 0


def test_duplicates(index):
    new = documents(np.random.default_rng(1), 3)
    index.add(new, ids=[3, 50, 4], on_duplicate="skip")
    assert index.ids.tolist() == [*range(20), 50]
    index.add(new, ids=[3, 51, 4], on_duplicate="replace")
    assert index.ids.tolist() == [0, 1, 2, *range(5, 20), 50, 3, 51, 4]
    index.add(new[:1], ids=[3], on_duplicate="skip")
    assert index.generation == 2


def test_ids_that_nobody_gave_follow_the_largest_there_ever_was(index):
    index.add(documents(np.random.default_rng(1), 2))
    index.delete([21])
    index.compact(full=True)
    index.add(documents(np.random.default_rng(1), 1))
    assert index.ids[-2:].tolist() == [20, 22]


def test_strings_must_be_given():
    index = Index.build(documents(np.random.default_rng(0), 3), ids=["a", "b", "c"], text_search=True, progress=False)
    with pytest.raises(ValueError, match="ids must be given, for those of this index are strings"):
        index.add(documents(np.random.default_rng(0), 1))
    with pytest.raises(TypeError, match="ids must be strings as those of this index are, got int64"):
        index.add(documents(np.random.default_rng(0), 1), ids=[1])


def test_all_deleted_and_then_some_added(index):
    index.delete(index.ids)
    assert len(index) == 0 and all(len(hits) == 0 for hits in index.search(QUERIES, 3))
    index.compact()
    assert index.stats()["segments"] == 0 and len(index.search(QUERIES[0], 3, exhaustive=True)) == 0
    live = {7: documents(np.random.default_rng(1), 1)[0]}
    index.add(list(live.values()), ids=list(live))
    assert answers(index) == expected(live, index.codec)


# ------------------------------------------------------------------------- several writers and readers


def test_the_second_writer_is_told_who_the_first_is(tmp_path):
    index = Index.build(documents(np.random.default_rng(0), 5), tmp_path / "i", text_search=True, progress=False)
    other = Index.open(tmp_path / "i")
    with index.transaction():
        index.delete([1])
        with pytest.raises(LockedError, match=rf"another writer holds this index: process {os.getpid()} on .+, since"):
            other.delete([2])
    other.delete([2])
    assert other.ids.tolist() == [0, 3, 4] and other.generation == 2  # it took up what the other had done
    assert index.refresh() and index.ids.tolist() == [0, 3, 4] and not index.refresh()


def test_a_writer_may_wait(tmp_path):
    index = Index.build(documents(np.random.default_rng(0), 5), tmp_path / "i", text_search=True, progress=False)
    entered, done = threading.Event(), threading.Event()

    def hold():
        with Index.open(tmp_path / "i").transaction():
            entered.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    threading.Timer(0.1, done.set).start()
    with index.transaction(timeout=10):
        index.delete([1])
    thread.join()
    assert len(index) == 4


def test_a_reader_keeps_what_it_opened(tmp_path):
    index = Index.build(
        documents(np.random.default_rng(0), 20), tmp_path / "i", text_search=True, progress=False, ncentroids=5
    )
    index.add(documents(np.random.default_rng(1), 5))
    reader = Index.open(tmp_path / "i")
    before = answers(reader)
    index.delete(range(10))
    index.compact(full=True)
    assert len(list((tmp_path / "i" / "segments").iterdir())) == 1
    assert answers(reader) == before
    assert reader.refresh() and answers(reader) == answers(index)


def test_searches_while_others_write(tmp_path):
    index = Index.build(
        documents(np.random.default_rng(0), 20), tmp_path / "i", text_search=True, progress=False, ncentroids=5
    )
    failures, stop = [], threading.Event()

    def read():
        reader = Index.open(tmp_path / "i")
        while not stop.is_set():
            try:
                reader.refresh()
                hits = reader.search(QUERIES[0], 50, exhaustive=True)
                assert len(hits) == len(set(hits.ids.tolist()))
                Index.open(tmp_path / "i")
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    live, rng = built(), np.random.default_rng(2)
    for _ in range(30):
        live = step(index, live, rng)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert answers(index) == expected(live, index.codec)


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    index = Index.build(documents(np.random.default_rng(0), 5), tmp_path / "i", text_search=True, progress=False)
    (tmp_path / "i" / "index.json.new").write_text("half")
    (tmp_path / "i" / "segments" / "000001.seg").write_text("half")
    (tmp_path / "i" / "notes.txt").write_text("a user's")
    Index.open(tmp_path / "i")
    index.delete([1])
    names = {path.name for path in (tmp_path / "i").rglob("*") if path.is_file()}
    assert not names & {"index.json.new", "000001.seg"} and "notes.txt" in names


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only(tmp_path):
    index = Index.build(documents(np.random.default_rng(0), 5), tmp_path / "i", text_search=True, progress=False)
    (tmp_path / "i").chmod(0o555)
    with pytest.raises(OSError, match="cannot write the index: Permission denied; nothing has changed"):
        index.delete([1])


def test_a_snapshot_is_an_index_of_its_own(tmp_path):
    index = Index.build(
        documents(np.random.default_rng(0), 20), tmp_path / "i", text_search=True, progress=False, ncentroids=5
    )
    index.delete([1])
    index.snapshot(tmp_path / "s")
    with pytest.raises(FileExistsError):
        index.snapshot(tmp_path / "s")
    assert os.stat(tmp_path / "s" / "centroids.npy").st_nlink == 2
    copy = Index.open(tmp_path / "s")
    before = answers(index)
    assert answers(copy) == before
    copy.delete(range(2, 15))
    copy.compact(full=True)
    assert answers(index) == before == answers(Index.open(tmp_path / "i"))
    assert Index.verify(tmp_path / "i").problems == Index.verify(tmp_path / "s").problems == []


def test_version_1_becomes_version_2_with_its_first_change(tmp_path):
    import shutil
    from pathlib import Path

    golden = Path(__file__).parents[1] / "golden" / "index-v1"
    shutil.copytree(golden, tmp_path / "i")
    before = {path.name: path.read_bytes() for path in (tmp_path / "i").rglob("*.npy")}
    index = Index.open(tmp_path / "i")
    count, first = len(index), index.ids[0]
    index.delete([first])
    manifest = json.loads((tmp_path / "i" / "index.json").read_text())
    assert (manifest["version"], manifest["generation"]) == (2, 1) and index.generation == 1
    assert len(Index.open(tmp_path / "i")) == count - 1
    assert before.items() <= {path.name: path.read_bytes() for path in (tmp_path / "i").rglob("*.npy")}.items()
    assert Index.verify(tmp_path / "i").problems == []


def test_drift():
    rng = np.random.default_rng(0)
    index = Index.build(documents(rng, 200), text_search=True, progress=False, ncentroids=20)
    assert index.drift().residual_ratio == pytest.approx(1, abs=0.1)
    assert "nothing is to be done" in index.drift().advice
    far = [5 * tokens for tokens in documents(rng, 200)]
    with pytest.warns(UserWarning, match="too small"):
        index.add(far)
    drift = index.drift()
    assert drift.residual_ratio > 1.5 and "rebuild" in drift.advice and drift.growth == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("from_codes", [True, False])
def test_rebuild(index, from_codes):
    live = built()
    index.delete([3, 5])
    index.add(documents(np.random.default_rng(1), 40))
    decoded = Decoded(index._snapshot.state, index.codec)  # all at once, as a rebuild does it: the same last bits
    tokens = np.concatenate([*decoded.chunks(1 << 15)])
    live = dict(zip(index.ids.tolist(), np.split(tokens, np.cumsum(decoded.lengths)[:-1]), strict=True))
    before = index.codec
    report = index.rebuild(None if from_codes else list(live.values()), ncentroids=9)
    assert index.ids.tolist() == list(live) and index.codec.crc32 != before.crc32
    assert report.from_codes == from_codes and report.centroids == (5, 9) and 0 < report.error < 0.2
    expect = Index.build(list(live.values()), ids=list(live), ncentroids=9, text_search=True, progress=False)
    assert answers(index) == answers(expect)
    index.delete([7])
    if index.path is not None:
        assert answers(Index.open(index.path)) == answers(index)
        assert Index.verify(index.path).problems == []
        assert not (index.path / "mean.npy").exists()


def test_rebuild_of_other_documents(index):
    with pytest.raises(ValueError, match="source must hold the 20 documents of the index, got 3"):
        index.rebuild(documents(np.random.default_rng(0), 3))


# ------------------------------------------------------------------------- anything in any order


class Living(RuleBasedStateMachine):
    """Against a dictionary: every search finds what a build of it finds. A crash is a copy that was never told."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/index"

    @initialize(seed=st.integers(0, 99), nbits=st.sampled_from([1, 4, 8]))
    def build(self, seed, nbits):
        self.rng = np.random.default_rng(seed)
        self.live = dict(enumerate(documents(self.rng, 6)))
        self.index = Index.build(
            list(self.live.values()), self.path, text_search=True, progress=False, ncentroids=3, nbits=nbits
        )

    @rule()
    def change(self):
        self.live = step(self.index, self.live, self.rng)

    @rule(count=st.integers(1, 3), name=st.integers(0, 12))
    def add(self, count, name):
        names = list(range(name, name + count))
        new = documents(self.rng, count)
        self.index.add(new, ids=names, on_duplicate="replace")
        for one in names:
            self.live.pop(one, None)
        self.live |= dict(zip(names, new, strict=True))

    @precondition(lambda self: len(self.live) > 1)
    @rule(data=st.data())
    def delete(self, data):
        some = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, unique=True))
        self.index.delete(some)
        for name in some:
            del self.live[name]

    @rule(full=st.booleans())
    def compact(self, full):
        self.index.compact(full=full)

    @rule(at=st.integers(1, 25))
    def crash(self, at):
        """Killed at a call, in the middle of an update: it happened, or it did not."""
        from disks import FailingDisk

        self.index._disk = FailingDisk(at)
        new = dict(zip([0, 1], documents(self.rng, 2), strict=True))
        try:
            self.index.add(list(new.values()), ids=[0, 1], on_duplicate="replace")
            happened = True
        except OSError as error:
            happened = "the change is there" in str(error)
        if happened:
            for name in new:
                self.live.pop(name, None)
            self.live |= new
        self.index = Index.open(self.path)

    @rule()
    def reopen(self):
        self.index = Index.open(self.path)

    @invariant()
    def is_what_a_build_gives(self):
        if hasattr(self, "index"):
            assert answers(self.index) == expected(self.live, self.index.codec)

    def teardown(self):
        self.folder.cleanup()


Living.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking would take minutes, for each step writes to a disk
)
TestLiving = Living.TestCase


def test_the_machine_would_notice_that_compaction_forgets(monkeypatch):
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr(compaction.Joined, "__init__", forgetful)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Living, settings=settings(Living.TestCase.settings, phases=[Phase.generate]))


def test_exported():
    assert lateint.LockedError is LockedError and DIM == 8 and subprocess and sys


def test_a_copy_stays_as_it_is(clustered):
    documents = clustered([4] * 20)
    index = Index.build(list(documents)[:19], progress=False)
    before = copy.copy(index)
    index.add([documents[19]])
    index.delete([3])
    assert (len(before), before.generation, len(index), index.generation) == (19, 0, 19, 2)
    assert before.search(documents[3], 1).ids.tolist() == [3]
