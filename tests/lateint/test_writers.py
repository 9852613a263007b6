"""Several writers and readers of one index; what one that was killed left; copies; indexes of the first version."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from histories import QUERIES, answers, documents, expected, numbered, step

import lateint
from lateint import Index
from lateint.disk.commits import LockedError

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


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
    live, rng = numbered(), np.random.default_rng(2)
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


def test_the_error_of_a_second_writer_is_public():
    assert lateint.LockedError is LockedError
