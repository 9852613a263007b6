"""Servers on loopback, on ports that are free, in a thread of the test."""

from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from lateint import Index  # noqa: E402
from lateint_server import command  # noqa: E402
from lateint_server.settings import Settings  # noqa: E402

DIM = 16


def tokens(count, seed, length=12):
    """Documents ``[length, DIM]`` of unit tokens."""
    made = np.random.default_rng(seed).standard_normal((count, length, DIM), dtype=np.float32)
    return list(made / np.linalg.norm(made, axis=2, keepdims=True))


@pytest.fixture(scope="session")
def documents():
    return tokens(60, seed=0)


@pytest.fixture
def path(documents, tmp_path):
    """An index of `documents`, ids that are positions."""
    Index.build(documents, tmp_path / "passages", progress=False)
    return tmp_path / "passages"


@contextmanager
def serving(indexes, **settings):
    """A server of ``{name: Index}``; gives its address."""
    settings = Settings(port=0, **settings)
    with command._bound(settings) as listening:
        server = command.server(indexes, settings)
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.005)
            assert server.started
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served(path):
    """``served(**settings)``: a server of the index `path`, and a client of it."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**settings):
            url = stack.enter_context(serving({"passages": Index.open(path)}, **settings))
            return stack.enter_context(httpx.Client(base_url=url, timeout=20))

        yield start


@pytest.fixture
def served_strings():
    """The address of an index in memory whose ids are strings."""
    with serving({"names": Index.build(tokens(2, seed=1), ids=["a/b ü", "7"], progress=False)}) as url:
        yield f"{url}/v1/indexes/names"
