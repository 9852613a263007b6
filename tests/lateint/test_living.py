"""An index that changes: whatever was done, it is the index that a build of what is there would give."""

import copy

import numpy as np
import pytest
from histories import answers, documents, expected, forgetful, numbered, step

from lateint import Index
from lateint.changing import compaction, draft

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


@pytest.mark.parametrize("seed", range(6))
def test_a_history_gives_what_a_build_gives(seed, tmp_path):
    rng = np.random.default_rng(seed)
    live, path = numbered(seed), tmp_path / "index" if seed % 2 else None
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
    live = {f"é{i}": tokens for i, tokens in numbered().items()}
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
    live = numbered()
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


def test_an_update_is_not_undone_by_compaction(living):
    """What xtr-warp-rs 2.1 gets wrong: its old tokens are found again after it."""
    old = living.reconstruct(3)
    before = living.rerank(old, [3]).scores[0]
    living.update([3], documents(np.random.default_rng(7), 1))
    after = living.rerank(old, [3]).scores[0]
    assert after < before
    living.compact(full=True)
    assert living.rerank(old, [3]).scores[0] == after
    assert len(living) == 20


def test_the_history_would_notice_that_bug(monkeypatch):
    """Compaction that forgets what was deleted."""
    monkeypatch.setattr(compaction.Joined, "__init__", forgetful)
    with pytest.raises(AssertionError):
        for seed in range(6):
            test_a_history_gives_what_a_build_gives(2 * seed, None)


def test_many_small_adds_make_few_segments(tmp_path, monkeypatch):
    live = numbered()
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


def test_a_copy_stays_as_it_is(clustered):
    documents = clustered([4] * 20)
    index = Index.build(list(documents)[:19], progress=False)
    before = copy.copy(index)
    index.add([documents[19]])
    index.delete([3])
    assert (len(before), before.generation, len(index), index.generation) == (19, 0, 19, 2)
    assert before.search(documents[3], 1).ids.tolist() == [3]
