from datetime import date

import numpy as np
import pytest

from lateint import Index, Ragged, UnknownIdError
from lateint.client import RemoteIndex, ServerError
from lateint_server.keys import Keys


@pytest.fixture(params=["MessagePack", "JSON"])
def remote(request, served, monkeypatch):
    """The index `path`, through a server."""
    with RemoteIndex(f"{served().base_url}/v1/indexes/passages/") as index:
        index._packed = request.param == "MessagePack"
        yield index


def same(found, expected):
    assert found.ids.dtype == expected.ids.dtype and found.scores.dtype == np.float32
    assert list(found) == list(expected)


def test_it_finds_what_an_index_finds(remote, path, documents):
    index = Index.open(path)
    same(remote.search(documents[3], 4), index.search(documents[3], 4))
    same(remote.search(documents[3], exhaustive=True, subset=[3, 9]), index.search(documents[3], subset=[3, 9]))
    for hits, one in zip(
        remote.search(documents[3:5], 2, subset=[[3, 9], None]),
        index.search(documents[3:5], 2, subset=[[3, 9], None]),
        strict=True,
    ):
        same(hits, one)
    same(remote.search(documents[4].astype(np.float16)), index.search(documents[4].astype(np.float16)))
    for batch in (documents[:3], np.stack(documents[:3]), Ragged.pack(documents[:3])):
        for found, expected in zip(remote.search(batch, 2), index.search(batch, 2), strict=True):
            same(found, expected)
    assert remote.search([]) == []
    same(remote.rerank(documents[3], np.array([5, 3, 8]), 2), index.rerank(documents[3], [5, 3, 8], 2))
    assert list(remote.explain(documents[3], 8)) == list(index.explain(documents[3], np.int64(8)))
    np.testing.assert_array_equal(remote.similarity(documents[3], 8), index.similarity(documents[3], 8))
    assert (len(remote), remote.dim, remote.generation) == (60, 16, 0)
    assert remote.stats()["documents"] == 60


def test_it_changes_an_index(remote, path, documents):
    assert remote.add(documents[:2], ids=[100, 101]) == 1
    assert remote.add(Ragged.pack(documents[2:3])) == 2
    assert remote.add(documents[5:6], ids=[100], on_duplicate="replace") == 3
    assert remote.delete([100, np.int64(0)]) == 2
    assert remote.delete([]) == 0
    assert remote.compact(full=True) == 5
    assert Index.open(path).ids.tolist() == [*range(1, 60), 101, 102]


def test_it_raises_what_an_index_raises(remote, documents):
    with pytest.raises(UnknownIdError, match="id holds 99, which is no document of this index"):
        remote.explain(documents[0], 99)
    with pytest.raises(ValueError, match=r"query must be \[Lq, 16\], but query 0 is \(12, 15\)"):
        remote.search(documents[0][:, 1:])
    with pytest.raises(ValueError, match="ids must be new, but 3 is in the index already"):
        remote.add(documents[:1], ids=[3])
    with pytest.raises(ValueError, match="ids must be one a document, got 2 for 1 documents"):
        remote.add(documents[:1], ids=[100, 101])
    with pytest.raises(ValueError, match="on_duplicate must be raise or replace, got 'skip'"):
        remote.add(documents[:1], on_duplicate="skip")


def test_it_says_what_a_server_says(served, documents):
    client = served(keys=Keys.of([("read", "a-key-of-the-tests"), ("write", "a-key-for-writing")]), timeout=1e-6)
    url = f"{client.base_url}/v1/indexes/passages"
    with RemoteIndex(url) as index, pytest.raises(ServerError, match=r"a key must be given.* \(status 401\)") as caught:
        index.stats()
    assert caught.value.status == 401
    with RemoteIndex(url, key="a-key-of-the-tests") as index:
        with pytest.raises(ServerError, match="for reading only"):
            index.compact()
        with pytest.raises(ServerError, match="no answer in time"):
            index.search(documents[0])
    with RemoteIndex(url, key="a-key-for-writing") as index:
        assert index.delete([1]) == 1


def test_strings_as_ids(served_strings):
    with RemoteIndex(served_strings) as index:
        hits = index.search(np.eye(16, dtype=np.float32)[:1], 2)
        assert hits.ids.dtype == object and set(hits.ids) == {"a/b ü", "7"}
        index.delete(["a/b ü"])
        assert len(index) == 1


def test_texts_and_metadata(remote, path, documents):
    about = [{"day": date(2024, 1, 31), "tags": ["a", "b"], "inner": {"n": np.int64(3)}}, None]
    remote.add(documents[:2], ids=[100, 101], texts=["one", None], metadata=about)
    index = Index.open(path)
    for fields in (None, ["text", "day"], ["inner.n"]):
        assert remote.get([101, 100, 5], fields) == index.get([101, 100, 5], fields)
    remote.update([5], metadata=[{"day": date(2025, 1, 1)}])
    index.refresh()
    hits, expected = remote.search(documents[5], 3), index.search(documents[5], 3)
    assert hits.documents(["day"]) == expected.documents(["day"])
    assert remote.get([]) == []
    with pytest.raises(ValueError, match="texts must be one a document, got 1 for 2 documents"):
        remote.add(documents[:2], texts=["one"])
    with pytest.raises(ValueError, match="no document has a field 'author'"):
        remote.get([5], ["author"])


def test_filters(remote, path, documents):
    remote.update(range(10), metadata=[{"day": date(2024, 1, n + 1)} for n in range(10)])
    index, condition = Index.open(path), {"day": {"$gt": date(2024, 1, 8)}}
    same(remote.search(documents[1], 20, filter=condition), index.search(documents[1], 20, filter=condition))
    same(remote.rerank(documents[1], [3, 9], filter=condition), index.rerank(documents[1], [3, 9], filter=condition))
    assert remote.count(condition) == index.count(condition) == 2
    assert remote.delete(filter=condition) == 2
    with pytest.raises(ValueError, match="either ids must be given, or a filter"):
        remote.delete([1], filter=condition)
    assert len(remote) == 58
