"""What takes the place of an index asks its writer first."""

import os
import threading

import numpy as np
import pytest
from histories import documents

from lateint import Index
from lateint.disk import store
from lateint.disk.commits import LockedError

HOLDER = rf"another writer holds this index: process {os.getpid()} on .+, since"


def built(path, count=5, seed=0, **settings):
    return Index.build(documents(np.random.default_rng(seed), count), path, progress=False, ncentroids=5, **settings)


def write(way, path, other):
    """Each way to write an index where one is."""
    if way == "build":
        built(path, seed=1, overwrite=True)
    elif way == "build with resume":
        built(path, seed=1, overwrite=True, resume=True)
    elif way == "merge":
        Index.merge([other], path, overwrite=True)
    elif way == "snapshot":
        other.snapshot(path, overwrite=True)
    else:
        other.save(path, overwrite=True)


@pytest.mark.parametrize("way", ["build", "build with resume", "merge", "snapshot", "save"])
def test_an_index_that_is_written_is_not_replaced(way, tmp_path, monkeypatch):
    index, other = built(tmp_path / "i"), built(tmp_path / "other", 3)
    monkeypatch.setattr(store.FolderStore, "commit", lambda *_: pytest.fail("it has done the work already"))
    with index.transaction():
        index.delete([1])
        with pytest.raises(LockedError, match=HOLDER):
            write(way, tmp_path / "i", other)
    assert Index.open(tmp_path / "i").ids.tolist() == [0, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "other"]
    monkeypatch.undo()
    write(way, tmp_path / "i", other)
    assert len(Index.open(tmp_path / "i")) == (5 if "build" in way else 3)


@pytest.mark.parametrize("resume", [True, False])
def test_nor_is_one_to_which_somebody_writes_when_the_build_is_done(resume, tmp_path, monkeypatch):
    index, held = built(tmp_path / "i"), []
    monkeypatch.setattr(store, "WRITER_PATIENCE", 0.05)

    commit = store.FolderStore.commit

    def commit_and_begin(*given):
        commit(*given)
        held.append(index.transaction())
        held[0].__enter__()
        index.delete([1])

    monkeypatch.setattr(store.FolderStore, "commit", commit_and_begin)
    with pytest.raises(LockedError, match=HOLDER):
        built(tmp_path / "i", 8, overwrite=True, resume=resume)
    held[0].__exit__(None, None, None)
    assert Index.open(tmp_path / "i").ids.tolist() == [0, 2, 3, 4]


def test_what_is_done_waits_for_a_writer_that_ends(tmp_path):
    index, entered = built(tmp_path / "i"), threading.Event()

    def hold():
        with Index.open(tmp_path / "i").transaction():
            entered.set()
            let_go.wait(5)

    let_go, holder = threading.Event(), threading.Thread(target=hold)

    def passing():
        yield from documents(np.random.default_rng(1), 8)
        holder.start()
        entered.wait(5)
        threading.Timer(0.1, let_go.set).start()

    Index.build(passing(), tmp_path / "i", codec=index.codec, overwrite=True, progress=False)
    holder.join()
    assert len(Index.open(tmp_path / "i")) == 8


def test_a_writer_finds_the_index_that_took_the_place(tmp_path):
    index = built(tmp_path / "i")
    built(tmp_path / "i", 7, seed=1, overwrite=True)
    index.delete([6])
    assert Index.open(tmp_path / "i").ids.tolist() == index.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_folder_that_cannot_be_written_is_replaced_as_before(tmp_path, monkeypatch):
    """Whoever may not write its lock may not be the only one who cannot; but nobody of the same rights writes."""
    built(tmp_path / "i")
    (tmp_path / "i" / "lock").unlink(missing_ok=True)
    real = os.open

    def refuse(path, flags, *rest, **named):
        if str(path).endswith("lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    built(tmp_path / "i", 7, seed=1, overwrite=True)
    monkeypatch.undo()
    assert len(Index.open(tmp_path / "i")) == 7
