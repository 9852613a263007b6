"""A power cut after any call of a writer: what was acknowledged is there, nothing is half there."""

import errno
import shutil

import numpy as np
import pytest
from disks import FailingDisk, RecordingDisk, put
from histories import answers, built, carrying, documents, expected, step

from lateint import Index

STEPS = 4  # of `cut_everywhere`; ``python -m benchmarks.living cuts`` is the longest form


def cut_everywhere(folder, work, seed, steps, most):
    """Opens what a power cut might leave after each call of a history; returns how many such states there were.

    Many of them are the same bytes: each is opened once, and what it answered is compared with what must be there.
    """
    rng = np.random.default_rng(seed)
    live = dict(enumerate(carrying(rng, 12)))
    index = built(live, folder, ncentroids=4)
    known = [expected(live, index.codec)]  # of each acknowledged commit, and perhaps of the one at hand
    states, found = [], {}
    disk = RecordingDisk(folder, watch=lambda disk: states.append(list(disk.states(rng, most))))
    index._disk = disk
    count = 0

    def check(state, possible):
        key = frozenset(state.items())
        if key not in found:
            shutil.rmtree(work, ignore_errors=True)
            put(state, work)
            found[key] = opened(work, rng)
        assert found[key] in possible, "neither what was there nor what was to be"

    for _ in range(steps):
        states.clear()
        live = step(index, live, rng)
        known = [known[-1], expected(live, index.codec)]
        for state in (state for after in states for state in after):
            count += 1
            check(state, known)
        for state in disk.states(rng, most):  # acknowledged: the old one will not do
            count += 1
            check(state, known[1:])
    return count


def opened(folder, rng):
    """What the index there answers; now and then the next writer goes on from there, and leaves nothing behind."""
    index = Index.open(folder)
    found = answers(index)
    if rng.random() < 0.1:
        index.add(documents(rng, 1))
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {*index._snapshot.manifest.files, "index.json", "lock"}
        assert Index.verify(folder).problems == []
    return found


LONG = [pytest.param(seed, 4, marks=pytest.mark.long) for seed in range(2)]


@pytest.mark.parametrize(("seed", "most"), [(1, 3), *LONG])
def test_a_power_cut_after_any_call(tmp_path, seed, most):
    assert cut_everywhere(tmp_path / "index", tmp_path / "cut", seed, STEPS, most) > 200


def test_the_recording_disk_notices_a_missing_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingDisk, "flush", lambda self, file: None)
    with pytest.raises((AssertionError, ValueError)):
        cut_everywhere(tmp_path / "index", tmp_path / "cut", 1, STEPS, most=4)


def test_the_recording_disk_notices_a_folder_that_is_not_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingDisk, "flush_folder", lambda self, path: None)
    with pytest.raises((AssertionError, ValueError)):
        cut_everywhere(tmp_path / "index", tmp_path / "cut", 1, STEPS, most=4)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_call(tmp_path, error):
    rng = np.random.default_rng(5)
    live = dict(enumerate(documents(rng, 6)))
    Index.build(list(live.values()), tmp_path / "index", text_search=True, progress=False, ncentroids=2)
    at, failed = 1, True
    while failed:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
        index = Index.open(tmp_path / "copy")
        index._disk = FailingDisk(at, error)
        before = answers(index)
        failed = False
        try:
            index.update([1, 2], documents(np.random.default_rng(1), 2))
        except OSError as raised:
            failed = True
            assert raised.errno == error
            assert ("the disk is full" in str(raised)) == (error == errno.ENOSPC)
            happened = "the change is there" in str(raised)
            assert happened or "nothing has changed" in str(raised)
            assert (answers(index) != before) == happened
        assert answers(Index.open(tmp_path / "copy")) == answers(index)
        index._disk = FailingDisk()
        index.delete([0])
        assert Index.verify(tmp_path / "copy").problems == []
        failed = failed or index_failed_silently(at)
        at += 1
    assert at > 15


def index_failed_silently(at):
    return at < 15  # clearing leftovers is best effort: an error there is no error of the call


def test_a_disk_that_writes_less_than_it_was_told(tmp_path):
    rng = np.random.default_rng(5)
    index = Index.build(documents(rng, 6), tmp_path / "index", text_search=True, progress=False, ncentroids=2)
    for at in range(1, 30):
        index._disk = FailingDisk(at, short=True)
        index.add(documents(rng, 1))
    assert Index.verify(tmp_path / "index").problems == []
    assert len(Index.open(tmp_path / "index")) == 35
