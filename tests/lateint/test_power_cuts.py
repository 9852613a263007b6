"""A power cut after any call of a writer: what was acknowledged is there, nothing is half there."""

import errno
import shutil

import numpy as np
import pytest
from disks import FailingDisk, RecordingDisk, put
from histories import answers, built, carrying, documents, expected, step

from lateint import Index


def cut_everywhere(folder, work, seed, steps, most):
    """Opens what a power cut might leave after each call of a history; returns how many such states there were."""
    rng = np.random.default_rng(seed)
    live = dict(enumerate(carrying(rng, 12)))
    index = built(live, folder, ncentroids=4)
    known = [expected(live, index.codec)]  # of each acknowledged commit, and perhaps of the one at hand
    states = []
    disk = RecordingDisk(folder, watch=lambda disk: states.append(list(disk.states(rng, most))))
    index._disk = disk
    count = 0
    for _ in range(steps):
        states.clear()
        live = step(index, live, rng)
        known = [known[-1], expected(live, index.codec)]
        for state in (state for after in states for state in after):
            count += 1
            shutil.rmtree(work, ignore_errors=True)
            put(state, work)
            check(work, known, rng)
        final = list(disk.states(rng, most))
        for state in final:  # acknowledged: the old one will not do
            count += 1
            shutil.rmtree(work, ignore_errors=True)
            put(state, work)
            check(work, known[1:], rng)
    return count


def check(folder, known, rng):
    opened = Index.open(folder)
    found = answers(opened)
    assert found in known, "neither what was there nor what was to be"
    if rng.random() < 0.1:  # and the next writer goes on from there, and leaves nothing behind
        opened.add(documents(rng, 1))
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {*opened._snapshot.manifest.files, "index.json", "lock"}
        assert Index.verify(folder).problems == []


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_after_any_call(tmp_path, seed):
    assert cut_everywhere(tmp_path / "index", tmp_path / "cut", seed, steps=6, most=6) > 200


def test_the_recording_disk_notices_a_missing_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingDisk, "flush", lambda self, file: None)
    with pytest.raises((AssertionError, ValueError)):
        cut_everywhere(tmp_path / "index", tmp_path / "cut", 0, steps=6, most=20)


def test_the_recording_disk_notices_a_folder_that_is_not_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingDisk, "flush_folder", lambda self, path: None)
    with pytest.raises((AssertionError, ValueError)):
        cut_everywhere(tmp_path / "index", tmp_path / "cut", 0, steps=6, most=20)


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
