"""One route in FastAPI and in Litestar, which answer in turn: ``python -m benchmarks.serving.frameworks NAME``.

Both check a message with an embedding and give ten hits, in JSON and in MessagePack.
"""

import base64
import importlib.metadata
import socket
import subprocess
import sys
import time
from typing import Annotated, Literal

import msgspec
import numpy as np

from benchmarks.serving import load

HITS = {"hits": [{"id": str(number), "score": 1.0 * number} for number in range(10)], "generation": 1}
BINARY = "application/msgpack"


def fastapi():
    from fastapi import Depends, FastAPI, Request, Response
    from pydantic import BaseModel

    class Array(BaseModel):
        data: bytes
        dtype: Literal["float32", "float16"]
        shape: tuple[int, int]

    class Search(BaseModel):
        query: Array | list[list[float]]
        k: int = 10

    app = FastAPI()

    async def read(request: Request):
        decode = (msgspec.msgpack if request.headers["content-type"] == BINARY else msgspec.json).decode
        return Search.model_validate(decode(await request.body()))

    @app.post("/search")
    async def search(request: Request, data: Annotated[Search, Depends(read)]):
        return Response(*_encoded(request.headers["content-type"]))

    return app


def litestar():
    from litestar import Litestar, Request, Response, post

    class Array(msgspec.Struct):
        data: bytes
        dtype: Literal["float32", "float16"]
        shape: tuple[int, int]

    class Search(msgspec.Struct):
        query: Array | list[list[float]]
        k: int = 10

    class Packed(Request):
        async def json(self):
            return await (self.msgpack() if self.headers["content-type"] == BINARY else super().json())

    async def search(data: Search, request: Request) -> Response:
        content, status, headers = _encoded(request.headers["content-type"])
        return Response(content, status_code=status, media_type=headers["content-type"])

    search.__annotations__ = {"data": Search, "request": Request, "return": Response}
    return Litestar([post("/search", status_code=200)(search)], request_class=Packed)


def _encoded(kind):
    encode = (msgspec.msgpack if kind == BINARY else msgspec.json).encode
    return encode(HITS), 200, {"content-type": kind}


def compare(count):
    """Milliseconds of requests to both, in turn."""
    query = np.random.default_rng(0).standard_normal((32, 128)).astype(np.float32)
    packed = {"dtype": "float32", "shape": query.shape}
    ports = {name: _free() for name in ("fastapi", "litestar")}
    command = [sys.executable, "-m", "benchmarks.serving.frameworks"]
    servers = [subprocess.Popen([*command, name, str(port)]) for name, port in ports.items()]
    try:
        connections = {name: _patiently(("127.0.0.1", port)) for name, port in ports.items()}
        address, found = ("127.0.0.1", 0), {}
        for form, sent in {
            "MessagePack": load.request(address, "/search", {"query": {**packed, "data": query.tobytes()}}),
            "base64": load.request(
                address,
                "/search",
                {"query": {**packed, "data": base64.b64encode(query.tobytes()).decode()}},
                binary=False,
            ),
            "JSON lists": load.request(address, "/search", {"query": query.tolist()}, binary=False),
        }.items():
            times = {name: [] for name in connections}
            for _ in range(count):
                for name, connection in connections.items():
                    start = time.perf_counter()
                    status, body = connection.ask(sent)
                    times[name].append(1e3 * (time.perf_counter() - start))
                    assert status == 200, body
            found[form] = {name: float(np.median(of)) for name, of in times.items()}
    finally:
        for server in servers:
            server.kill()
            server.wait()
    versions = {name: importlib.metadata.version(name) for name in ports}
    return {"p50 ms": found, "versions": versions}


def _free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _patiently(address):
    for _ in range(600):
        try:
            return load.Connection(address)
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing answers at {address}")


if __name__ == "__main__":
    import uvicorn

    uvicorn.run({"fastapi": fastapi, "litestar": litestar}[sys.argv[1]](), port=int(sys.argv[2]), access_log=False)
