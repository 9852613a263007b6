import base64

import httpx
import msgspec
import numpy as np
import pytest

from lateint import Index

AT = "/v1/indexes/passages"


def packed(array, dtype="float32"):
    data = np.ascontiguousarray(array, dtype).tobytes()
    return {"base64": base64.b64encode(data).decode(), "dtype": dtype, "shape": list(array.shape)}


def matrix(message):
    return np.frombuffer(base64.b64decode(message["base64"]), "<f4").reshape(message["shape"])


def test_a_search_finds_what_the_index_finds(standing, path, documents):
    client, index = standing, Index.open(path)
    for query in documents[:8]:
        expected = [{"id": id, "score": score} for id, score in index.search(query, 7)]
        for form in (query.tolist(), packed(query)):
            answer = client.post(f"{AT}/search", json={"query": form, "k": 7})
            assert answer.status_code == 200
            assert answer.json() == {"hits": expected, "generation": 0}


def test_a_search_in_messagepack(standing, path, documents):
    client, query = standing, documents[3]
    array = {"data": query.tobytes(), "dtype": "float32", "shape": query.shape}
    headers = {"content-type": "application/msgpack"}
    answer = client.post(f"{AT}/search", content=msgspec.msgpack.encode({"query": array, "k": 4}), headers=headers)
    assert answer.headers["content-type"] == "application/msgpack"
    expected = [{"id": id, "score": score} for id, score in Index.open(path).search(query, 4)]
    assert msgspec.msgpack.decode(answer.content) == {"hits": expected, "generation": 0}
    answer = client.post(
        f"{AT}/explain",
        content=msgspec.msgpack.encode({"query": query.tolist(), "id": 3}),
        headers={**headers, "accept": "application/json"},
    )
    assert answer.json()["tokens"] == list(range(12))


def test_half_precision_is_searched_as_such(standing, path, documents):
    query = documents[5].astype(np.float16)
    answer = standing.post(f"{AT}/search", json={"query": packed(query, "float16"), "k": 3})
    assert answer.json()["hits"] == [{"id": id, "score": score} for id, score in Index.open(path).search(query, 3)]


def test_settings_of_a_search(standing, path, documents):
    client, index, query = standing, Index.open(path), documents[9]
    for how in ({"nprobe": 1}, {"candidates": 3}, {"exhaustive": True}, {"subset": [4, 9, 30]}):
        answer = client.post(f"{AT}/search", json={"query": query.tolist(), "k": 5, **how})
        assert answer.json()["hits"] == [{"id": id, "score": s} for id, s in index.search(query, 5, **how)], how


def test_a_recall_stands_for_settings(served, path, documents):
    index = Index.open(path)
    index.calibrate([tokens[:4] for tokens in documents], k=7)
    client, query = served(), documents[9][:3]
    answer = client.post(f"{AT}/search", json={"query": query.tolist(), "k": 5, "recall": 0.95})
    assert answer.json()["hits"] == [{"id": id, "score": s} for id, s in index.search(query, 5, recall=0.95)]
    answer = client.post(f"{AT}/search", json={"query": query.tolist(), "k": 8, "recall": 0.95})
    assert answer.json()["detail"] == "recall is known for k up to 7, got k 8: calibrate(k=...) with a larger one"


def test_a_batch_and_its_explanations(standing, path, documents):
    index = Index.open(path)
    answer = standing.post(
        f"{AT}/search/batch", json={"queries": [packed(query) for query in documents[:3]], "k": 2, "explain": True}
    )
    for query, hits in zip(documents, answer.json()["results"], strict=False):
        assert [(hit["id"], hit["score"]) for hit in hits] == list(index.search(query, 2))
        for hit in hits:
            np.testing.assert_array_equal(matrix(hit["similarity"]), index.similarity(query, hit["id"]))


def test_rerank_and_explain(standing, path, documents):
    client, index, query = standing, Index.open(path), documents[2]
    answer = client.post(f"{AT}/rerank", json={"query": query.tolist(), "ids": [7, 2, 5], "k": 2}).json()
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == list(index.rerank(query, [7, 2, 5], 2))
    answer, explanation = (
        client.post(f"{AT}/explain", json={"query": query.tolist(), "id": 5}).json(),
        index.explain(query, 5),
    )
    assert answer["tokens"] == explanation.tokens.tolist()
    assert answer["scores"] == explanation.scores.tolist()
    np.testing.assert_array_equal(matrix(answer["similarity"]), index.similarity(query, 5))


def test_documents_come_and_go(served, path, documents):
    client = served()
    new = {
        "documents": [
            {"id": 100, "embedding": documents[0][:5].tolist()},
            {"id": 101, "embedding": packed(documents[1])},
        ]
    }
    assert client.post(f"{AT}/documents", json=new).json() == {"generation": 1, "documents": 62, "changed": 2}
    found = client.get(f"{AT}/documents/100").json()
    assert found == {"id": 100, "text": None, "metadata": {}, "tokens": 5, "generation": 1}
    again = client.post(f"{AT}/documents", json=new)
    assert again.status_code == 422 and "100 is in the index already" in again.json()["detail"]
    assert client.put(f"{AT}/documents", json=new).json() == {"generation": 2, "documents": 62, "changed": 2}
    gone = client.request("DELETE", f"{AT}/documents", json={"ids": [100, 3]})
    assert gone.json() == {"generation": 3, "documents": 60, "changed": 2}
    assert client.get(f"{AT}/documents/100").status_code == 404
    assert client.request("DELETE", f"{AT}/documents", json={"ids": [100]}).status_code == 404
    assert client.post(f"{AT}/compact", json={"full": True}).json()["generation"] == 4
    index = Index.open(path)
    assert (index.generation, len(index), index.stats()["segments"]) == (4, 60, 1)


def test_documents_without_ids_are_numbered(served, documents):
    client = served()
    client.post(f"{AT}/documents", json={"documents": [{"embedding": documents[0].tolist()}]})
    assert client.get(f"{AT}/documents/60").json()["tokens"] == 12


def test_what_a_server_says_of_its_indexes(standing):
    client = standing
    (about,) = client.get("/v1/indexes").json()["indexes"]
    assert about.pop("encoder") is about.pop("text_search") is about.pop("query_pictures") is False
    assert about == {"name": "passages", "generation": 0, "documents": 60, "tokens": 720, "dim": 16, "nbits": 4}
    stats = client.get(AT).json()
    assert stats["segments"] == 1 and stats["advice"] == "The codec fits; nothing is to be done."


def test_commits_of_others_are_taken_up(served, path, documents):
    client = served(refresh=0.02)
    Index.open(path).add(documents[:3])
    for _ in range(500):
        if client.get(AT).json()["generation"] == 1:
            break
    assert client.get(AT).json()["documents"] == 63


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ({}, "query must be given, or text or sparse"),
        ({"query": 3}, "query: must be a list of lists of numbers, or an object"),
        ({"query": [[1, 2], [3]]}, "query: must be a list of token embeddings of one length"),
        ({"query": [["1", "2"]]}, "each a list of numbers"),
        ({"query": [[1.0] * 5]}, r"query must be [Lq, 16], but query 0 is (1, 5)"),
        ({"query": {"base64": "AAAA", "dtype": "float32", "shape": [1, 16]}}, "takes 64 bytes, got 3"),
        ({"query": {"base64": "?", "dtype": "float32", "shape": [1, 16]}}, "base64 must be a string in base64"),
        ({"query": {"base64": "", "dtype": "int8", "shape": [1, 16]}}, "dtype must be one of float32, float16"),
        ({"query": {"base64": "", "dtype": "float32", "shape": [0, 16]}}, "shape must be two integers from 1"),
        ({"query": {"shape": 1}}, "must be an object with base64 (or data), dtype and shape, got ['shape']"),
        ({"query": [[0.0] * 16], "k": 0}, "k: input should be greater than or equal to 1"),
        ({"query": [[0.0] * 16], "k": 2000}, "k must be at most 1,000, got 2,000"),
        ({"query": [[1e300] * 16]}, "query must hold numbers up to 1e+18"),
        ({"query": [[0.0] * 16], "recall": 1.0}, "recall: input should be less than 1"),
        ({"query": [[0.0] * 16], "recall": 0.9}, "recall needs a calibrated index, and this one is not"),
        ({"query": [[0.0] * 16], "limit": 3}, "limit: extra inputs are not permitted"),
    ],
)
def test_a_wrong_search_is_refused_in_a_sentence(standing, message, detail):
    answer = standing.post(f"{AT}/search", json=message)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


def test_what_is_not_there(standing, documents):
    client = standing
    assert client.get("/v1/indexes/other").json() == {"detail": "there is no index 'other'"}
    query = documents[0].tolist()
    for answer in (
        client.post(f"{AT}/rerank", json={"query": query, "ids": [99]}),
        client.post(f"{AT}/explain", json={"query": query, "id": 99}),
        client.post(f"{AT}/search", json={"query": query, "subset": [99]}),
        client.get(f"{AT}/documents/99"),
        client.get(f"{AT}/documents/a/b"),
    ):
        assert answer.status_code == 404 and "which is no document of this index" in answer.json()["detail"]


def test_bodies_that_are_neither_json_nor_messagepack(standing):
    client = standing
    for content, kind in ((b"{", "json"), (b"\xc1", "msgpack"), (b"[" * 100_000, "json")):
        answer = client.post(f"{AT}/search", content=content, headers={"content-type": f"application/{kind}"})
        assert answer.status_code == 422, content[:5]
    assert client.post(f"{AT}/search", content=b"{}", headers={"content-type": "text/plain"}).status_code == 422


def test_figures_for_prometheus(served, documents):
    client = served()
    client.post(f"{AT}/search", json={"query": documents[0].tolist()})
    text = client.get("/metrics").text
    assert 'lateint_requests_total{method="POST",route="/v1/indexes/{name}/search",status="200"} 1.0' in text
    assert 'lateint_documents{index="passages"} 60.0' in text
    assert 'lateint_search_together_bucket{le="1.0"} 1.0' in text


def test_the_page_of_the_routes_needs_nothing_from_elsewhere(served):
    client = served()
    page = client.get("/docs")
    assert page.status_code == 200 and "http" not in page.text.replace("http-equiv", "")
    for path in ("/swagger/swagger-ui.css", "/swagger/swagger-ui-bundle.js", "/docs.js"):
        assert client.get(path).status_code == 200
    assert served(docs=False).get("/docs").headers["location"] == "openapi.json"


def test_ids_that_are_strings(served_strings):
    assert httpx.get(f"{served_strings}/documents/7").json()["id"] == "7"
    assert httpx.get(f"{served_strings}/documents/a%2Fb%20%C3%BC").json()["id"] == "a/b ü"
    assert httpx.get(f"{served_strings}/documents/8").status_code == 404


def test_texts_and_metadata_come_with_hits_that_ask_for_them(served, documents):
    client, tokens = served(), documents[0].tolist()
    about = {"title": "A", "year": 2024, "day": {"$date": "2024-01-31"}, "lateint": {"spans": [[0, 3], [4, 8]]}}
    new = [{"id": 100, "embedding": tokens, "text": "red fish", "metadata": about}, {"id": 101, "embedding": tokens}]
    assert client.post(f"{AT}/documents", json={"documents": new}).status_code == 200
    found = client.get(f"{AT}/documents/100").json()
    assert found == {"id": 100, "text": "red fish", "metadata": about, "tokens": 12, "generation": 1}
    query = {"query": tokens, "k": 2, "subset": [100, 101]}
    hits = client.post(f"{AT}/search", json={**query, "fields": ["*"]}).json()["hits"]
    assert [(hit["id"], hit["text"], hit["metadata"]) for hit in hits] == [(100, "red fish", about), (101, None, {})]
    hits = client.post(f"{AT}/search", json={**query, "fields": ["year"]}).json()["hits"]
    assert [(hit["text"], hit["metadata"]) for hit in hits] == [(None, {"year": 2024}), (None, {})]
    assert set(client.post(f"{AT}/search", json=query).json()["hits"][0]) == {"id", "score"}
    wrong = client.post(f"{AT}/search", json={**query, "fields": ["author"]})
    assert wrong.status_code == 422 and "no document has a field 'author'" in wrong.json()["detail"]


def test_texts_and_metadata_change_alone(served, documents):
    client = served()
    change = [{"id": 3, "text": "three", "metadata": {"n": 3}}, {"id": 5, "text": None, "metadata": {"n": 5}}]
    answer = client.patch(f"{AT}/documents", json={"documents": change})
    assert answer.json() == {"generation": 1, "documents": 60, "changed": 2}
    assert client.patch(f"{AT}/documents", json={"documents": [{"id": 3, "metadata": None}]}).status_code == 200
    found = client.get(f"{AT}/documents/3").json()
    assert (found["text"], found["metadata"], found["tokens"]) == ("three", {}, 12)
    for wrong in ([{"id": 3}], [{"id": 3, "text": "a"}, {"id": 4, "metadata": {}}]):
        answer = client.patch(f"{AT}/documents", json={"documents": wrong})
        assert answer.json() == {
            "detail": "documents must all have the same of text, metadata and sparse, and one of them at least"
        }
    wrong = {"documents": [{"id": 3, "metadata": {"$or": 1}}]}
    assert (
        "keys that are not empty and do not begin with $"
        in client.patch(f"{AT}/documents", json=wrong).json()["detail"]
    )


def test_several_documents_at_once(served, documents):
    client = served()
    client.patch(f"{AT}/documents", json={"documents": [{"id": 3, "text": "three", "metadata": {"n": 3, "m": 1}}]})
    answer = client.post(f"{AT}/documents/get", json={"ids": [4, 3], "fields": ["n"]}).json()
    expected = [{"id": 4, "text": None, "metadata": {}}, {"id": 3, "text": None, "metadata": {"n": 3}}]
    assert answer == {"documents": expected, "generation": 1}
    answer = client.post(f"{AT}/documents/get", json={"ids": [3]}).json()
    assert answer["documents"] == [{"id": 3, "text": "three", "metadata": {"n": 3, "m": 1}}]
    assert client.post(f"{AT}/documents/get", json={"ids": [99]}).status_code == 404


def test_filters(served, documents):
    pytest.importorskip("sqlglot")
    client = served()
    about = [{"id": n, "metadata": {"n": n, "day": {"$date": f"2024-01-{n + 1:02}"}}} for n in range(30)]
    client.patch(f"{AT}/documents", json={"documents": about})
    query = {"query": documents[0].tolist(), "k": 60}
    for condition, expected in (
        ({"filter": {"n": {"$lt": 4}}}, {0, 1, 2, 3}),
        ({"filter": "n < :most AND n <> 2", "params": {"most": 4}}, {0, 1, 3}),
        ({"filter": {"day": {"$gte": {"$date": "2024-01-29"}}}}, {28, 29}),
    ):
        hits = client.post(f"{AT}/search", json={**query, **condition}).json()["hits"]
        assert {hit["id"] for hit in hits} == expected
        assert client.post(f"{AT}/count", json=condition).json() == {"documents": len(expected), "generation": 1}
        ranked = {"query": query["query"], "ids": list(range(60)), **condition}
        assert {hit["id"] for hit in client.post(f"{AT}/rerank", json=ranked).json()["hits"]} == expected
    for wrong, detail in (
        ({"filter": "n <"}, ""),
        ({"filter": {"author": 3}}, "author"),
        ({"filter": 3}, "filter: must be a string or an object, got int"),
        ({"filter": "1=0 UNION SELECT 1"}, ""),
    ):
        answer = client.post(f"{AT}/search", json={**query, **wrong})
        assert answer.status_code == 422 and detail in answer.json()["detail"], wrong
    gone = client.request("DELETE", f"{AT}/documents", json={"filter": {"n": {"$lt": 4}}})
    assert gone.json() == {"generation": 2, "documents": 56, "changed": 4}
    neither = client.request("DELETE", f"{AT}/documents", json={})
    assert neither.json() == {"detail": "either ids must be given, or a filter"}
