import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lateint import Index
from lateint_server import serving as serving_module

AT = "/v1/indexes/passages"


@pytest.fixture
def held(monkeypatch):
    """Searches wait until the event is set."""
    event = threading.Event()
    search = Index.search

    def slowly(self, *args, **kwargs):
        assert event.wait(20)
        return search(self, *args, **kwargs)

    monkeypatch.setattr(Index, "search", slowly)
    yield event
    event.set()


def test_what_waits_is_searched_together_and_what_is_too_much_is_refused(served, documents, held, path):
    client, found = served(queue=8), []
    with ThreadPoolExecutor(24) as pool:

        def ask(number):
            return client.post(f"{AT}/search", json={"query": documents[number].tolist(), "k": 1})

        first = pool.submit(ask, 0)
        while "lateint_search_together_count 1.0" not in client.get("/metrics").text:
            time.sleep(0.002)  # until it is taken: the queue is empty again
        rest = [pool.submit(ask, number) for number in range(1, 20)]
        while sum(one.done() for one in rest) < 11:
            time.sleep(0.002)
        assert client.get("/healthz").status_code == 200
        held.set()
        found = [one.result() for one in (first, *rest)]
    refused = [answer for answer in found if answer.status_code == 429]
    assert len(refused) == 11
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    for number, answer in enumerate(found):
        assert answer.status_code == 429 or answer.json()["hits"][0]["id"] == number
    assert 'lateint_search_together_bucket{le="8.0"} 2.0' in client.get("/metrics").text
    assert "lateint_search_together_sum 9.0" in client.get("/metrics").text


def test_one_that_is_wrong_does_not_spoil_the_others(served, documents, held):
    client = served()
    with ThreadPoolExecutor(4) as pool:

        def ask(query):
            return client.post(f"{AT}/search", json={"query": query, "k": 1})

        first = pool.submit(ask, documents[0].tolist())
        while "lateint_search_together_count 1.0" not in client.get("/metrics").text:
            time.sleep(0.002)
        wrong, right = pool.submit(ask, [[0.5] * 3]), pool.submit(ask, documents[7].tolist())
        while 'lateint_searches_waiting{index="passages"} 2.0' not in client.get("/metrics").text:
            time.sleep(0.002)
        held.set()
    assert (first.result().status_code, wrong.result().status_code) == (200, 422)
    assert right.result().json()["hits"][0]["id"] == 7


def test_a_search_that_takes_too_long(served, documents, held):
    client = served(timeout=0.2)
    message = {"query": documents[0].tolist()}
    for timeout in ({}, {"timeout_ms": 20}):
        answer = client.post(f"{AT}/search", json={**message, **timeout})
        assert answer.status_code == 504
        assert answer.json() == {"detail": "there was no answer in time; a write may still happen"}
    held.set()
    assert client.post(f"{AT}/search", json=message).status_code == 200


def test_writes_that_wait_share_a_commit(served, documents, path, monkeypatch):
    client, begun, go_on = served(), threading.Event(), threading.Event()
    add = Index.add

    def slowly(self, *args, **kwargs):
        begun.set()
        assert go_on.wait(20)
        return add(self, *args, **kwargs)

    monkeypatch.setattr(Index, "add", slowly)

    def write(id):
        return client.post(f"{AT}/documents", json={"documents": [{"id": id, "embedding": documents[0].tolist()}]})

    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(write, 100)
        assert begun.wait(20)
        rest = [pool.submit(write, id) for id in (*range(101, 108), 7)]  # 7 is there
        while 'lateint_writes_waiting{index="passages"} 8.0' not in client.get("/metrics").text:
            time.sleep(0.002)
        go_on.set()
    assert first.result().json() == {"generation": 1, "documents": 61, "changed": 1}
    answers = [one.result() for one in rest]
    assert [answer.status_code for answer in answers] == [200] * 7 + [422]
    assert {answer.json()["generation"] for answer in answers[:7]} == {2}
    assert Index.open(path).generation == 2 and len(Index.open(path)) == 68


def test_too_many_writes_are_refused(served, documents, monkeypatch):
    client, begun, go_on = served(queue=1), threading.Event(), threading.Event()
    monkeypatch.setattr(Index, "compact", lambda self, full: begun.set() or go_on.wait(20))
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(client.post, f"{AT}/compact", json={})]
        assert begun.wait(20)
        answers += [pool.submit(client.post, f"{AT}/compact", json={}) for _ in range(5)]
        while sum(one.done() for one in answers) < 4:
            time.sleep(0.002)
        go_on.set()
    assert sorted(one.result().status_code for one in answers) == [200, 200, 429, 429, 429, 429]


def test_another_process_writes(served, documents, path, monkeypatch):
    monkeypatch.setattr(serving_module, "LOCK_TIMEOUT", 0.05)
    client = served()
    with Index.open(path).transaction():
        answer = client.post(f"{AT}/compact", json={})
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert client.post(f"{AT}/compact", json={}).status_code == 200


def test_a_write_that_the_disk_refuses(served, documents, monkeypatch, path):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    client = served()
    monkeypatch.setattr(Index, "add", full)
    answer = client.post(f"{AT}/documents", json={"documents": [{"embedding": documents[0].tolist()}]})
    assert (answer.status_code, answer.json()["detail"]) == (503, "the disk fails: No space left on device")


def test_more_than_a_request_may_ask_for(served, documents):
    client = served(max_documents=2, max_queries=2, max_k=5)
    query = documents[0].tolist()
    for method, path, message, detail in (
        ("POST", "/search", {"query": query, "k": 6}, "k must be at most 5, got 6"),
        ("POST", "/search", {"query": query, "k": 1, "subset": [1, 2, 3]}, "subset must be at most 2, got 3"),
        ("POST", "/search/batch", {"queries": [query] * 3, "k": 1}, "queries must be at most 2, got 3"),
        ("POST", "/rerank", {"query": query, "ids": [1, 2, 3]}, "ids must be at most 2, got 3"),
        ("POST", "/documents", {"documents": [{"embedding": query}] * 3}, "documents must be at most 2, got 3"),
        ("DELETE", "/documents", {"ids": [1, 2, 3]}, "ids must be at most 2, got 3"),
    ):
        answer = client.request(method, AT + path, json=message)
        assert (answer.status_code, answer.json()) == (422, {"detail": detail})


def test_a_large_body_is_refused_before_it_is_read(served):
    client = served(max_body=10_000)
    address = (client.base_url.host, client.base_url.port)
    for framing, chunk in (
        (b"content-length: 1000000000\r\n", b" " * 65536),
        (b"transfer-encoding: chunked\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    ):
        with socket.create_connection(address, timeout=20) as one:
            one.sendall(f"POST {AT}/search HTTP/1.1\r\nhost: localhost\r\n".encode() + framing)
            one.sendall(b"content-type: application/json\r\n\r\n")
            sent = 0
            try:
                while sent < 1_000_000_000:
                    sent += one.send(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 50_000_000  # the connection was closed
    with socket.create_connection(address, timeout=20) as one:
        one.sendall(f"POST {AT}/search HTTP/1.1\r\nhost: localhost\r\n".encode())
        one.sendall(b"content-length: 1000000000\r\ncontent-type: application/json\r\n\r\n ")
        head, _, body = b"".join(iter(lambda: one.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ") and b"connection: close" in head.lower()
    assert json.loads(body) == {"detail": "the body must be at most 10,000 bytes, got 1,000,000,000"}


@pytest.mark.parametrize(
    "sent", [b"", b"GET /heal", b"POST /v1/indexes/passages/search HTTP/1.1\r\nhost: localhost\r\n"]
)
def test_a_client_that_is_slow_is_let_go(served, sent):
    client = served(client_timeout=0.3)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as one:
        one.sendall(sent)
        for byte in b"content-length: 10\r\ncontent-type: application/json\r\n\r\n[" if len(sent) > 20 else b"":
            one.send(bytes([byte]))
        assert one.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert one.recv(1000) == b""


def test_a_client_that_does_not_read_is_let_go(served, documents, path):
    client, patience = served(client_timeout=1, max_k=60), time.monotonic() + 60
    query = {"query": [documents[0][0].tolist()] * 3000, "k": 60, "explain": True}
    body = json.dumps(query).encode()
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(20)
        one.connect((client.base_url.host, client.base_url.port))
        head = f"POST {AT}/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        one.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        while 'route="/v1/indexes/{name}/search",status="200"' not in client.get("/metrics").text:
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(1.5)
        received = 0
        try:
            while got := one.recv(1 << 20):
                received += len(got)
        except ConnectionResetError:
            pass
    whole = len(client.post(f"{AT}/search", json=query).content)
    assert received < whole


def test_slow_requests_are_logged(served, documents, caplog):
    with caplog.at_level(logging.INFO, "lateint_server"):
        client = served(slow=1e-9)
        client.get("/healthz")
        while not caplog.records:
            time.sleep(0.002)
    (record,) = [one for one in caplog.records if one.getMessage() == "slow"]
    assert (record.path, record.status, record.method) == ("/healthz", 200, "GET")
    assert isinstance(client, httpx.Client)
