import base64

import httpx
import numpy as np
import pytest
from servers import Words, serving

from lateint import Index
from lateint.client import RemoteIndex

TEXTS = ["red fish swim", "blue birds fly high", "old trees stand still", "red trees burn"]


@pytest.fixture
def url(tmp_path):
    Index.build(texts=TEXTS, encoder=Words(), path=tmp_path / "it", nbits=8, progress=False, text_search=True)
    with serving({"it": Index.open(tmp_path / "it", encoder=Words())}) as url:
        yield f"{url}/v1/indexes/it"


def test_a_query_may_be_a_text(url, tmp_path):
    index = Index.open(tmp_path / "it", encoder=Words())
    for query in ("birds high", "red"):
        expected = [{"id": id, "score": score} for id, score in index.search(query, 2)]
        assert httpx.post(f"{url}/search", json={"query": query, "k": 2}).json()["hits"] == expected
    batch = httpx.post(f"{url}/search/batch", json={"queries": ["fish", "trees still"], "k": 1}).json()["results"]
    assert [hits[0]["id"] for hits in batch] == [0, 2]
    mixed = httpx.post(f"{url}/search/batch", json={"queries": ["fish", [[0.5] * 16]]})
    assert mixed.json() == {"detail": "queries must all be texts, or none of them"}
    assert httpx.post(f"{url}/rerank", json={"query": "red trees", "ids": [0, 3]}).json()["hits"][0]["id"] == 3
    assert httpx.post(f"{url}/explain", json={"query": "fly blue", "id": 1}).json()["tokens"] == [2, 0]
    assert httpx.get(url).json()["encoder"] is True


def test_explanations_name_words(url):
    message = {"query": "trees burn", "k": 1, "explain": True, "fields": ["text"]}
    answer = httpx.post(f"{url}/search", json=message).json()
    (hit,) = answer["hits"]
    assert answer["query_tokens"] == ["trees", "burn"]
    assert [hit["text"][first:last] for first, last in hit["spans"]] == ["red", "trees", "burn"]
    similarity = np.frombuffer(base64.b64decode(hit["similarity"]["base64"]), "<f4").reshape(2, 3)
    assert similarity.argmax(1).tolist() == [1, 2]


def test_documents_may_be_texts(url):
    added = httpx.post(f"{url}/documents", json={"documents": [{"text": "green moss"}, {"text": "grey stone"}]})
    assert added.json() == {"generation": 1, "documents": 6, "changed": 2}
    assert httpx.post(f"{url}/search", json={"query": "moss", "k": 1}).json()["hits"][0]["id"] == 4
    mixed = [{"text": "a"}, {"text": "b", "embedding": [[0.5] * 16]}]
    answer = httpx.post(f"{url}/documents", json={"documents": mixed})
    assert answer.json() == {"detail": "documents must all have an embedding, or none of them"}


def test_the_client_takes_texts(url, tmp_path):
    index = Index.open(tmp_path / "it", encoder=Words())
    with RemoteIndex(url) as remote:
        assert list(remote.search("red fish", 2)) == list(index.search("red fish", 2))
        assert [list(hits) for hits in remote.search(["red", "fly"], 2)] == [
            list(index.search(q, 2)) for q in ("red", "fly")
        ]
        assert list(remote.explain("red", 3)) == list(index.explain("red", 3))
        assert remote.add(texts=["green moss"], metadata=[{"n": 1}]) == 1
        assert remote.search("moss", 1).documents()[0].metadata == {"n": 1}


def test_without_an_encoder_a_text_is_refused(standing):
    answer = standing.post("/v1/indexes/passages/search", json={"query": "words"})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("query is text, and the index was opened")
    answer = standing.post("/v1/indexes/passages/documents", json={"documents": [{"text": "a"}]})
    assert answer.status_code == 422 and "needs an encoder" in answer.json()["detail"]


def test_words_are_found_alone_and_beside_a_query(url, tmp_path):
    index = Index.open(tmp_path / "it", encoder=Words())
    assert httpx.get(url).json()["text_search"] is True
    with RemoteIndex(url) as remote:
        for query, how in (
            (None, {"text": "trees"}),
            ("red fish", {"text": "trees", "alpha": 0.25}),
            ("red fish", {"text": "trees", "fusion": "rrf"}),
            ("red fish", {"text": "trees", "rerank": 1}),
        ):
            assert list(remote.search(query, 3, **how)) == list(index.search(query, 3, **how)), how
        with pytest.raises(ValueError, match="text goes with one query, got a batch"):
            remote.search(["red", "fish"], text="trees")
    for wrong in ({}, {"text": "trees", "explain": True}, {"sparse": {"a": 1}, "explain": True}):
        answer = httpx.post(f"{url}/search", json=wrong)
        assert answer.status_code == 422 and answer.json()["detail"].startswith("query must be given")


def test_sparse_vectors_are_found_alone_and_beside_a_query(url, tmp_path):
    with RemoteIndex(url) as remote:
        remote.add(texts=["moss", "fern"], sparse=[{"moss": 1.5, 7: 0.25}, None])
        remote.update([0, 1], sparse=[([7, 9], [2.0, 1.0]), {"moss": 1}])
        index = Index.open(tmp_path / "it", encoder=Words())
        assert index.search(None, 9, sparse={7: 1}).ids.tolist() == [0, 4]
        for query, how in (
            (None, {"sparse": {"7": 1, "moss": 0.5}}),
            (None, {"sparse": ([7], [1])}),
            ("red fish", {"sparse": {"moss": 1}, "alpha": 0.25}),
            ("red fish", {"sparse": {"moss": 1}, "rerank": 1}),
        ):
            assert list(remote.search(query, 3, **how)) == list(index.search(query, 3, **how)), how
        with pytest.raises(ValueError, match="text and sparse must not both be given"):
            remote.search(None, text="red", sparse={"moss": 1})
        with pytest.raises(ValueError, match="sparse must have weights from 0"):
            remote.search(None, sparse={"moss": -1})
        remote.update([1], sparse=[None])
        assert [id for id, _ in remote.search(None, sparse={"moss": 1})] == [4]
    answer = httpx.post(f"{url}/search", json={"sparse": {"moss": -1}})
    assert answer.status_code == 422 and answer.json()["detail"].startswith(
        "sparse of query 0 must have weights from 0"
    )
    assert httpx.post(f"{url}/search", json={"sparse": {}}).status_code == 422
