"""What the tests of a server share; without its packages, none of them is collected."""

from contextlib import ExitStack
from importlib.util import find_spec

import pytest

NEEDED = ("fastapi", "fastapi_offline", "httptools", "httpx", "msgspec", "prometheus_client", "uvicorn")
collect_ignore_glob = []
if any(find_spec(package) is None for package in NEEDED):
    collect_ignore_glob.append("test_*.py")
else:
    import httpx
    from servers import serving, tokens

    from lateint import Index


@pytest.fixture(scope="session")
def documents():
    return tokens(60, seed=0)


@pytest.fixture
def path(documents, tmp_path):
    """An index of `documents`, ids that are positions."""
    Index.build(documents, tmp_path / "passages", progress=False)
    return tmp_path / "passages"


@pytest.fixture
def served(path):
    """``served(**settings)``: a server of the index `path`, and a client of it."""
    with ExitStack() as stack:

        def start(**settings):
            url = stack.enter_context(serving({"passages": Index.open(path)}, **settings))
            return stack.enter_context(httpx.Client(base_url=url, timeout=20))

        yield start


@pytest.fixture(scope="session")
def standing(documents):
    """A client of a server that no test changes."""
    with serving({"passages": Index.build(documents, progress=False)}) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def served_strings():
    """The address of an index in memory whose ids are strings."""
    with serving({"names": Index.build(tokens(2, seed=1), ids=["a/b ü", "7"], progress=False)}) as url:
        yield f"{url}/v1/indexes/names"
