import numpy as np
import pytest

from lateint import Index, UnknownIdError
from lateint.disk.store import MemoryStore
from lateint.ids import Ids, SegmentIds, check, put


def test_positions_by_default(index):
    assert index.ids.dtype == np.int64
    np.testing.assert_array_equal(index.ids, np.arange(158))


@pytest.mark.parametrize(
    "names",
    [
        [5, 3, 9],
        np.array([5, 3, 9]),
        np.array([5, 3, 9], np.uint8),
        [np.int32(5), np.int64(3), 9],
        pytest.param(iter([5, 3, 9]), id="iterator"),
        [-(2**63), 2**63 - 1, 0],
        (7, -7, 70),
    ],
    ids=str,
)
def test_integers(clustered, tmp_path, names):
    given = list(names) if not hasattr(names, "__next__") else [5, 3, 9]
    documents = clustered([4, 5, 6])
    index = Index.build(documents, tmp_path / "index", ids=names, progress=False)
    for same in (index, Index.open(tmp_path / "index")):
        assert same.ids.tolist() == [int(name) for name in given] and same.ids.dtype == np.int64
        for i, name in enumerate(given):
            assert same.search(documents[i], 1).ids.tolist() == [int(name)]
            np.testing.assert_allclose(same.reconstruct(name), documents[i], atol=0.2)
            assert same.rerank(documents[i], [name]).ids.tolist() == [int(name)]
        assert same.search(documents[0], subset=given[1:]).ids.tolist() != []
        with pytest.raises(UnknownIdError, match="id holds 1, which is no document"):
            same.reconstruct(1)


@pytest.mark.parametrize(
    "names", [["a", "b", "c"], np.array(["x", "yy", "zzz"]), ["", "ü", "文書\U0001f600"], ["1", "2", "a\0b"]], ids=str
)
def test_strings(clustered, tmp_path, names):
    given = [str(name) for name in names]
    documents = clustered([4, 5, 6])
    index = Index.build(documents, tmp_path / "index", ids=names, progress=False)
    for same in (index, Index.open(tmp_path / "index")):
        assert same.ids.tolist() == given and same.ids.dtype == object
        hits = same.search(documents[1], 3)
        assert hits.ids[0] == given[1] and sorted(hits.ids) == sorted(given)
        assert [type(name) for name, _ in hits] == [str] * 3
        assert same.rerank(documents[2], np.array(given[::-1])).ids[0] == given[2]
        assert same.search(documents[0], subset=[given[1]]).ids.tolist() == [given[1]]
        assert len(same.explain(documents[0], given[0])) == 4
        for unknown in ("nothing", 0, None, [1]):
            with pytest.raises(UnknownIdError, match=r"id holds .*, which is no document of this index"):
                same.reconstruct(unknown)


def test_one_empty_string(tmp_path, clustered):
    Index.build(clustered([3]), tmp_path / "index", ids=[""], progress=False)
    assert Index.open(tmp_path / "index", verify=True).ids.tolist() == [""]


def test_torch_integers(clustered):
    torch = pytest.importorskip("torch")
    index = Index.build(clustered([4, 5]), ids=torch.tensor([30, 20]), progress=False)
    assert index.ids.tolist() == [30, 20]
    assert index.rerank(clustered([4, 5])[0], torch.tensor([20])).ids.tolist() == [20]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([1, 2], ValueError, "ids must name each document once, got 2 ids for 3 documents"),
        ([], ValueError, "got 0 ids for 3 documents"),
        ([1, 2, 1], ValueError, "ids must differ, but 1 occurs more than once"),
        (["a", "b", "a"], ValueError, "ids must differ, but 'a' occurs more than once"),
        ([1, "a", 2], TypeError, "ids must be all int64 or all strings, got int, str"),
        ([1.0, 2.0, 3.0], TypeError, "ids must be all int64 or all strings, got float"),
        ([True, False, 2], TypeError, "ids must be all int64 or all strings, got bool, int"),
        ([None] * 3, TypeError, "ids must be all int64 or all strings, got NoneType"),
        ([[1], [2], [3]], TypeError, "ids must be all int64 or all strings, got list"),
        (np.zeros((3, 2), int), TypeError, "ids must be all int64 or all strings, got list"),
        ([1, 2, 2**63], ValueError, "ids must fit into int64"),
        (np.array([1, 2, 2**64 - 1], np.uint64), ValueError, "ids must fit into int64"),
        ("abc", TypeError, "ids must be a list of ids, got str 'abc'"),
        (3, TypeError, "ids must be a list of ids, got int 3"),
        (np.array("abc"), TypeError, "ids must be a list of ids, got ndarray"),
        (np.array(3), TypeError, "ids must be a list of ids, got ndarray"),
        (["a", "b", "\ud800"], ValueError, "ids must be text that utf-8 can write"),
    ],
)
def test_bad_ids(names, error, message):
    with pytest.raises(error, match=message):
        check(names, 3)


@pytest.mark.parametrize("strings", [False, True])
def test_ids_over_segments(strings):
    """Positions count on over segments, as ids at positions do."""
    names = np.random.default_rng(0).permutation(1000)[:60].tolist()
    if strings:
        names = [f"name {name}" for name in names]
    names = check(names, 60)
    store, parts, first = MemoryStore(), [], 0
    for segment, last in (("a", 1), ("b", 40), ("c", 60)):
        put(store, segment, names[first:last])
        of = {name.split("/")[1]: array for name, array in store.arrays.items() if name.startswith(segment)}
        table = (of["id_hash"], of["id_row"]) if "id_hash" in of and segment != "c" else None
        parts.append(SegmentIds((of["id_bytes"], of["id_offsets"]) if strings else of["ids"], table))
        first = last
    ids = Ids(parts, strings, [None] * 3)
    assert len(ids) == 60
    assert ids.at(np.arange(60)).tolist() == list(names)
    shuffled = np.random.default_rng(1).integers(0, 60, 30)
    assert ids.at(shuffled).tolist() == [names[i] for i in shuffled]
    assert ids.positions([names[i] for i in shuffled], "ids").tolist() == shuffled.tolist()
    live = np.ones(60, np.uint8)
    live[[0, 5, 59]] = 0
    ids = Ids(parts, strings, np.split(live, [1, 40]))
    assert ids.positions([names[i] for i in np.flatnonzero(live)], "ids").tolist() == np.flatnonzero(live).tolist()
    with pytest.raises(UnknownIdError):
        ids.positions([names[5]], "ids")
