"""Threads that search one `Index` while others refresh and change it: each finds one state of it, whole.

Small, for ``make sanitize`` runs it with ThreadSanitizer, too.
"""

import threading

import numpy as np
import pytest
from histories import documents

from lateint import Index

QUERY = documents(np.random.default_rng(9), 1)[0]
TURNS = 12


def built(path):
    return Index.build(
        documents(np.random.default_rng(0), 40),
        path,
        texts=["fox"] * 40,
        text_search=True,
        ncentroids=8,
        progress=False,
    )


def change(index, stop):
    """Pairs come and go, so that every state has an even number of documents."""
    rng = np.random.default_rng(1)
    for turn in range(TURNS):
        index.add(documents(rng, 2), texts=["fox", "fox dog"])
        if turn % 3 == 0:
            index.delete(index.ids[:2])
        if turn % 3 == 1:
            with index.transaction():
                index.delete(index.ids[-2:])
                index.add(documents(rng, 4), texts=["fox"] * 4)
        if turn % 6 == 5:
            index.compact(full=True)
    stop.set()


def search(index, stop, refresh):
    while not stop.is_set():
        if refresh:
            index.refresh()
        for hits in (
            index.search(QUERY, 1000, exhaustive=True),
            index.search(QUERY, 1000, nprobe=8, threads=2),
            index.search(None, 1000, text="fox"),
        ):
            ids = hits.ids.tolist()
            assert len(ids) % 2 == 0 and len(set(ids)) == len(ids) > 0
            assert (np.diff(hits.scores) <= 0).all()


def together(calls):
    """Calls, each in a thread of its own; what they raise."""
    failures = []

    def run(call):
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_searches_of_an_index_that_changes(where, tmp_path):
    """The same object, by one thread that writes and by three that search."""
    index, stop = built(tmp_path / "i" if where == "disk" else None), threading.Event()
    refresh = where == "disk"
    assert not together([lambda: change(index, stop), *[lambda: search(index, stop, refresh)] * 3])
    assert index.generation == TURNS + 10 and len(index) == 40 + 2 * TURNS - 8 + 8


def test_searches_of_an_index_that_another_changes(tmp_path):
    """An object that three threads search and refresh at once, over a folder that a fourth writes to."""
    writer, stop = built(tmp_path / "i"), threading.Event()
    reader = Index.open(tmp_path / "i")
    assert not together([lambda: change(writer, stop), *[lambda: search(reader, stop, True)] * 3])
    assert reader.refresh() or reader.generation == writer.generation
    assert reader.ids.tolist() == writer.ids.tolist()
