"""The command, as a process: what ends it, and what is left then."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import server_kills

from lateint import Index, cli
from lateint_server import command

DIM = 16


@pytest.mark.parametrize(("requests", "kills"), [(120, 2), pytest.param(240, 3, marks=pytest.mark.long)])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, requests, kills):
    found = server_kills.run(tmp_path / "index", requests=requests, kills=kills)
    assert found["requests"] >= requests and found["acknowledged documents"] > requests // 12
    assert (found["lost"], found["deleted and back"]) == (0, 0)


def test_sigterm_lets_requests_end(path, documents):
    server = server_kills.Server(path)
    with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(8) as pool:

        def write(number):
            message = {"documents": [{"id": number, "embedding": documents[0].tolist()}] * 1}
            return client.post("/documents", json=message)

        write(999)
        answers = [pool.submit(write, number) for number in range(1000, 1100)]
        while not any(one.done() for one in answers):
            pass
        server.process.send_signal(signal.SIGTERM)
        acknowledged = 0
        for one in answers:
            try:
                acknowledged += one.result().status_code == 200
            except httpx.TransportError:  # those that came too late
                continue
    assert server.status() == 0
    assert len(Index.open(path)) >= 61 + acknowledged > 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}", "--host", "0.0.0.0"], "host must be an address of this machine alone, such as 127.0.0.1"),
        (["{}", "--queue", "0"], "queue must be above 0, got 0"),
        (["{}", "{}"], "two indexes are called 'passages'; give NAME=PATH"),
        (["a b={}"], "an index needs a name of letters, digits"),
        (["{}/none"], "none"),
        (["{}", "--keys", "{}/none"], "No such file"),
        (["{}", "--encoder", "it=a:B"], "--encoder must name one of the indexes passages, got 'it'"),
        (["{}", "--encoder", "a:B", "--encoder", "c:D"], "--encoder is given twice for all indexes"),
        (["{}", "--encoder", "passages"], "--encoder must be MODULE:CLASS, got 'passages'"),
    ],
)
def test_options_that_are_wrong(path, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lateint", "serve", *(one.format(path) for one in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert str(ended.value).startswith("lateint: error: ") and message in str(ended.value)


def test_an_address_in_use(path):
    server = server_kills.Server(path)
    port = server.address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "lateint_server", str(path), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert server.end() == 0
    assert done.returncode == 1
    assert f"lateint: error: 127.0.0.1:{port} cannot be listened on: Address already in use" in done.stderr


def test_each_index_may_have_an_encoder_of_its_own():
    found = command.encoders(["servers:Words", "c=servers:Late", "d=servers:Late"], ['d={"seconds": 2}'], "abcd")
    assert found["a"] is found["b"] and found["a"].name == "words"
    assert found["c"] is not found["d"] and (found["c"].seconds, found["d"].seconds) == (0.1, 2)
    assert command.encoders([], [], ["a"]) == {"a": None}
