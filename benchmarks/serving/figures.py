"""The measurements of `python -m benchmarks.serving`: each takes an empty folder and gives plain numbers."""

import asyncio
import base64
import os
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import server_kills

from benchmarks.serving import frameworks as two
from benchmarks.serving import load
from lateint import Index
from lateint.client import RemoteIndex
from lateint_server.application import application
from lateint_server.explaining import Found
from lateint_server.settings import Settings

DIM, DOCUMENTS, TOKENS, QUERY, K = 128, 5000, 60, 32, 10
SEARCH = "/v1/indexes/it/search"


def collection(rng, documents, length, noise=0.7):
    """Documents ``[length, DIM]`` of unit tokens around 300 centres."""
    centres = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
    tokens = centres[rng.integers(0, 300, documents * length)]
    tokens += noise * rng.standard_normal(tokens.shape, dtype=np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return list(tokens.reshape(documents, length, DIM))


@contextmanager
def served(folder, *options):
    """A server of an index, in a process of its own: the index, the address, and queries."""
    path = folder / "index"
    if not path.exists():
        Index.build(collection(np.random.default_rng(1), DOCUMENTS, TOKENS), path, progress=False)
    server = server_kills.Server(path, *options)
    try:
        port = int(server.address.rsplit(":", 1)[1])
        queries = collection(np.random.default_rng(2), 256, QUERY)
        yield Index.open(path), ("127.0.0.1", port), queries, server.url, server.process.pid
    finally:
        server.end()


def binary(query):
    return {"query": {"data": query.tobytes(), "dtype": "float32", "shape": query.shape}, "k": K}


def in_base64(query):
    data = base64.b64encode(query.tobytes()).decode()
    return {"query": {"base64": data, "dtype": "float32", "shape": query.shape}, "k": K}


def latency(folder, count):
    """Milliseconds of one search at a time, in the process and over HTTP, each query in all ways before the next."""
    with served(folder) as (index, address, queries, url, process):
        connection, remote = load.Connection(address), RemoteIndex(url)
        ways = {
            "in the process": [lambda query=query: index.search(query, K) for query in queries],
            "MessagePack": _asking(connection, [load.request(address, SEARCH, binary(query)) for query in queries]),
            "base64": _asking(
                connection, [load.request(address, SEARCH, in_base64(query), binary=False) for query in queries]
            ),
            "JSON lists": _asking(
                connection,
                [load.request(address, SEARCH, {"query": query.tolist(), "k": K}, binary=False) for query in queries],
            ),
            "lateint.client": [lambda query=query: remote.search(query, K) for query in queries],
            "no search": _asking(connection, [b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"] * len(queries)),
        }
        times = {name: [] for name in ways}
        for number in range(count or 2000):
            for name, calls in ways.items():
                start = time.perf_counter()
                calls[number % len(calls)]()
                times[name].append(1e3 * (time.perf_counter() - start))
        cpu = {name: _cpu(ways[name], process) for name in ("MessagePack", "base64", "JSON lists")}
        cpu["in the process"] = _cpu(ways["in the process"], os.getpid())
        remote.close()
        connection.close()
    p50 = {name: float(np.median(of)) for name, of in times.items()}
    p25 = {name: float(np.quantile(of, 0.25)) for name, of in times.items()}
    return {
        "p50 ms": p50,
        "p25 ms": p25,
        "p50 over the process, ms": {name: p50[name] - p50["in the process"] for name in p50 if name != "no search"},
        "p25 over the process, ms": {name: p25[name] - p25["in the process"] for name in p25 if name != "no search"},
        "CPU of the server over that of the process, ms a search": {
            name: of - cpu["in the process"] for name, of in cpu.items() if name != "in the process"
        },
        "documents": DOCUMENTS,
        "searches": count or 2000,
    }


def _cpu(calls, process):
    """Milliseconds of CPU that a process takes for a call, which other processes disturb less than they do a clock."""
    before = _ticks(process)
    for call in calls:
        call()
    return 1e3 * (_ticks(process) - before) / os.sysconf("SC_CLK_TCK") / len(calls)


def _ticks(process):
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _asking(connection, requests):
    def ask(sent):
        status, _ = connection.ask(sent)
        assert status == 200

    return [lambda sent=sent: ask(sent) for sent in requests]


def throughput(folder, count):
    """16 clients beside the library's batches, in turn: queries a second, and CPU, which other processes disturb less.

    The clients are one thread that sends what was made beforehand. Of the server, the event loop is its first thread.
    """
    with served(folder) as (index, address, queries, _, process):
        requests = [load.request(address, SEARCH, binary(query)) for query in queries]
        load.closed(address, requests, 16, 1)
        rows = [_round(index, address, queries, requests, process) for _ in range(count or 5)]
        apart = _application(index, queries)
    found = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    per_query = {name.removeprefix("CPU "): of for name, of in found.items() if name.startswith("CPU ")}
    per_query["of the event loop: the application, measured apart"] = apart
    return {
        "16 clients, queries a second": found["clients"],
        "library, batches of 64": found["library"],
        "ratio": float(np.median([row["clients"] / row["library"] for row in rows])),
        "ratios": [row["clients"] / row["library"] for row in rows],
        "2 clients with batches of 64, queries a second": found["batches"],
        "ratio of these": float(np.median([row["batches"] / row["library"] for row in rows])),
        "searched together": found["together"],
        "CPU, microseconds a query": per_query,
        "CPU of the library over that of the server": {
            name: found["CPU library, batches of 64"] / found[f"CPU {name}"]
            for name in ("server", "server, batches of 64")
        },
        "documents": DOCUMENTS,
    }


def _round(index, address, queries, requests, process):
    row = {}
    for size in (64, 16, 1):
        start, before, done = time.perf_counter(), time.process_time(), 0
        while time.process_time() - before < 1:
            index.search(queries[done % 256 : done % 256 + size], K)
            done += size
        row[f"CPU library, batches of {size}"] = 1e6 * (time.process_time() - before) / done
        row.setdefault("library", done / (time.perf_counter() - start))
    mine, loop, all_threads, together = time.process_time(), *_threads(process), _together(address)
    answers, seconds = load.closed(address, requests, 16, 3)
    assert all(status == 200 for status, _ in answers)
    row["clients"] = len(answers) / seconds
    row["CPU clients"] = 1e6 * (time.process_time() - mine) / len(answers)
    for name, after, before in zip(("event loop", "server"), _threads(process), (loop, all_threads), strict=True):
        row[f"CPU {name}"] = 1e6 * (after - before) / len(answers)
    row["CPU searches"] = row["CPU server"] - row["CPU event loop"]
    calls, found = (after - before for after, before in zip(_together(address), together, strict=True))
    row["together"] = found / calls
    many = {"queries": [binary(query)["query"] for query in queries[:64]], "k": K}
    _, before = _threads(process)
    answers, seconds = load.closed(address, [load.request(address, SEARCH + "/batch", many)], 2, 3)
    row["batches"] = 64 * len(answers) / seconds
    row["CPU server, batches of 64"] = 1e6 * (_threads(process)[1] - before) / (64 * len(answers))
    return row


def _threads(process):
    """Seconds of CPU that the first thread of a process has taken, and all of them."""
    took = {
        int(task.name): int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{process}/task").iterdir()
    }
    return took[process], sum(took.values())


def _together(address):
    """How many searches the server has made, and for how many queries."""
    connection = load.Connection(address)
    _, body = connection.ask(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    connection.close()
    lines = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line and not line.startswith("#"))
    return tuple(float(lines[f"lateint_search_together_{name}"]) for name in ("count", "sum"))


def _application(index, queries):
    """Microseconds of CPU that the application takes for a request, without HTTP and without a search."""
    body, found = msgspec.msgpack.encode(binary(queries[0])), Found([index.search(queries[0], K)], 1)
    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/msgpack"),
        (b"content-length", b"%d" % len(body)),
    ]
    scope = {"type": "http", "method": "POST", "path": SEARCH, "query_string": b"", "root_path": "", "headers": headers}

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        assert message.get("status", 200) == 200

    async def at_once(*_):
        return found

    async def measured():
        app = application({"it": index}, Settings())
        async with app.router.lifespan_context(app):
            app.state.indexes["it"].search = at_once
            times = []
            for _ in range(2000):
                before = time.process_time()
                await app({**scope, "headers": headers[:]}, receive, send)
                times.append(time.process_time() - before)
        return 1e6 * float(np.median(times))

    return asyncio.run(measured())


def overload(folder, count):
    """What becomes of answers when three times as much is asked as the server can do."""
    seconds = count or 6
    with served(folder) as (_, address, queries, _, _):
        requests = [load.request(address, SEARCH, binary(query)) for query in queries]
        load.closed(address, requests, 16, 1)
        answers, took = load.closed(address, requests, 16, seconds)
        capacity = len(answers) / took
        rows = {"16 clients": _answers(answers, took)}
        for times in (1, 3):
            rows[f"{times} x capacity"] = _answers(*load.paced(address, requests, 256, seconds, times * capacity))
    return {
        "capacity, queries a second": capacity,
        **rows,
        "p99 of 3 x over 1 x": rows["3 x capacity"]["p99 ms"] / rows["1 x capacity"]["p99 ms"],
        "p99 of 3 x over 16 clients": rows["3 x capacity"]["p99 ms"] / rows["16 clients"]["p99 ms"],
    }


def queues(folder, count):
    """Servers with different room for what waits, in turn: 64 clients that each ask again at once, and overload."""
    seconds, rows = count or 3, {}
    for room in (8, 16, 32, 64, 128, 256):
        with served(folder, "--queue", str(room)) as (_, address, queries, _, _):
            requests = [load.request(address, SEARCH, binary(query)) for query in queries]
            load.closed(address, requests, min(room, 16), 1)
            answers, took = load.closed(address, requests, min(room, 16), seconds)
            rate = 3 * len(answers) / took
            rows[room] = {
                "64 clients": _answers(*load.closed(address, requests, 64, seconds)),
                "3 x capacity": _answers(*load.paced(address, requests, 512, seconds, rate)),
            }
    return {"by queue": rows}


def _answers(answers, took):
    taken = [1e3 * seconds for status, seconds in answers if status == 200]
    refused = [1e3 * seconds for status, seconds in answers if status == 429]
    assert len(taken) + len(refused) == len(answers)
    return {
        "asked a second": len(answers) / took,
        "answered a second": len(taken) / took,
        "refused with 429": len(refused),
        "share refused": len(refused) / len(answers),
        "p50 ms": float(np.median(taken)),
        "p99 ms": float(np.quantile(taken, 0.99)),
        "p99 of refusals ms": float(np.quantile(refused, 0.99)) if refused else None,
    }


def kills(folder, count):
    """Mixed requests with ``kill -9`` of the server among them."""
    requests = count or 10_000
    return server_kills.run(folder / "index", requests=requests, kills=max(2, requests // 250))


def openapi(folder, count):
    """Random requests against the OpenAPI document; an error if an answer is a 5xx or not documented."""
    import schemathesis
    from openapi_checks import check
    from servers import serving, tokens

    Index.build(tokens(30, seed=0), folder / "index", progress=False)
    with serving({"it": Index.open(folder / "index")}) as url:
        return check(schemathesis, url, "it", count or 100)


def frameworks(folder, count):
    """The same route in FastAPI and in Litestar."""
    return two.compare(count or 2000)
