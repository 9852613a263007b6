import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from lateint import Index
from lateint_server.application import application
from lateint_server.keys import Keys
from lateint_server.settings import Settings

AT = "/v1/indexes/passages"
READ, WRITE = "read-key-of-the-tests", "write-key-of-the-tests"
KEYS = Keys.of([("read", READ), ("write", WRITE)])


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_reading_and_writing_need_their_keys(served, documents):
    client = served(keys=KEYS)
    query = {"query": documents[0].tolist()}
    new = {"documents": [{"embedding": documents[0].tolist()}]}
    for headers, read, write in (
        ({}, 401, 401),
        (bearer("a-key-that-is-not-known"), 401, 401),
        (bearer("x"), 401, 401),
        (bearer("schlüssel".encode("latin-1").decode("latin-1")), 401, 401),
        ({"authorization": f"Basic {READ}"}, 401, 401),
        (bearer(READ), 200, 403),
        (bearer(WRITE), 200, 200),
    ):
        headers = {name: value.encode("latin-1") for name, value in headers.items()}
        assert client.post(f"{AT}/search", json=query, headers=headers).status_code == read
        assert client.get("/metrics", headers=headers).status_code == read
        assert client.post(f"{AT}/documents", json=new, headers=headers).status_code == write
        assert client.post(f"{AT}/compact", json={}, headers=headers).status_code == write
    answer = client.get("/v1/indexes")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {"detail": "a key must be given: Authorization: Bearer KEY"}


def test_inside_another_application_keys_count_too(path, documents):
    inner = application({"passages": Index.open(path)}, Settings(keys=KEYS))
    outer = httpx.ASGITransport(Starlette(routes=[Mount("/behind", inner)]))

    async def ask():
        async with inner.router.lifespan_context(inner), httpx.AsyncClient(transport=outer) as client:
            for headers, status in (({}, 401), (bearer(READ), 200)):
                for what, message in (("search", {"query": documents[0].tolist()}), ("documents/get", {"ids": [0]})):
                    url = f"http://localhost/behind{AT}/{what}"
                    assert (await client.post(url, json=message, headers=headers)).status_code == status

    asyncio.run(ask())


def test_a_key_in_the_address_counts_for_nothing(served):
    assert served(keys=KEYS).get(f"/v1/indexes?key={READ}&access_token={READ}").status_code == 401


def test_health_and_page_need_no_key(served):
    client = served(keys=KEYS)
    for path in ("/healthz", "/readyz", "/", "/page.js", "/openapi.json"):
        assert client.get(path).status_code == 200, path


def test_keys_of_a_file_and_of_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# of the search page\nread abcdefghijklmnop\n\nwrite ABCDEFGHIJKLMNOP\n")
    keys = Keys.read(file, {"LATEINT_READ_KEY": "0123456789abcdef", "LATEINT_WRITE_KEY": ""})
    roles = [keys.role(key) for key in ("abcdefghijklmnop", "ABCDEFGHIJKLMNOP", "0123456789abcdef", "")]
    assert roles == ["read", "write", "read", None]
    assert "abcdefgh" not in repr(keys)
    assert not Keys.read(None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("read short", "keys must be at least 16 printable ASCII characters; a read key is not"),
        ("admin abcdefghijklmnop", "keys must have the role read or write, got 'admin'"),
        ("abcdefghijklmnop", "line 1 must be a role and a key"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match=message):
        Keys.read(tmp_path / "keys", {})


def test_an_address_for_others_needs_keys():
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(ValueError, match="host must be an address of this machine alone"):
            Settings(host=host)
        Settings(host=host, keys=KEYS)
        Settings(host=host, open=True)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        Settings(host=host)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, "port must be from 0 to 65535, got 70000"),
        ({"queue": 0}, "queue must be above 0, got 0"),
        ({"timeout": -1.0}, r"timeout must be above 0, got -1\.0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_without_keys_a_name_that_leads_here_is_refused(served):
    client = served()
    assert client.get("/v1/indexes", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/v1/indexes", headers={"host": "localhost"}).status_code == 200


def test_answers_tell_browsers_to_be_strict(served):
    answer = served().get("/v1/indexes")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers and isinstance(answer, httpx.Response)
