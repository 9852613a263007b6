"""Queries with a picture: from the page or a client to the encoder, and back to the patches that matched."""

import asyncio
import base64
import io
import struct
import zlib

import httpx
import msgspec
import numpy as np
import pytest
from servers import Late, Painted, Words, serving

from lateint import Index
from lateint.client import RemoteIndex, ServerError

images = pytest.importorskip("PIL.Image")
TEXTS = ["red fish swim", "blue birds fly high", "old green trees", "white snow"]
PACKED = {"content-type": "application/msgpack"}


def painted(*colours):
    """A picture of four quarters."""
    picture = images.new("RGB", (20, 20))
    for number, colour in enumerate(colours):
        picture.paste(Painted.colours[colour], (10 * (number % 2), 10 * (number // 2), *_end(number)))
    return picture


def _end(number):
    return 10 * (number % 2) + 10, 10 * (number // 2) + 10


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def coded(data):
    return base64.b64encode(data).decode()


FLAG = painted("red", "white", "white", "red")
SNOW = painted("white", "white", "white", "white")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    Index.build(texts=TEXTS, encoder=Painted(), path=folder / "it", nbits=8, progress=False, text_search=True)
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return Index.open(folder / "it", encoder=Painted())


@pytest.fixture(scope="module")
def url(folder):
    opened = Index.open(folder / "it", encoder=Painted())
    with serving({"it": opened}, max_picture=2000, max_pixels=1000) as url:
        yield f"{url}/v1/indexes/it"


def test_an_index_takes_a_text_with_a_picture(index):
    query = ("swim", FLAG)
    rows = Painted().encode_query([query])[0]
    assert len(rows) == 5
    assert list(index.search(query, 3)) == list(index.search(rows, 3))
    batch = index.search([query, "snow", ("", SNOW)], 2)
    assert [hits.ids[0] for hits in batch] == [0, 3, 3]
    assert list(index.explain(query, 0)) == list(index.explain(rows, 0))
    beside = index.search(query, 3, text=True)
    assert list(beside) == list(index.search(rows, 3, text="swim"))
    with pytest.raises(TypeError, match="Q must hold strings only, but query 1 is tuple"):
        index.search(["red", ("red", "flag.png")])


def test_an_encoder_of_words_alone_refuses_a_picture(tmp_path):
    index = Index.build(texts=TEXTS, encoder=Words(), progress=False)
    with pytest.raises(ValueError, match="Q must be texts alone, for the encoder 'words' reads no pictures with them"):
        index.search(("red", FLAG))
    with serving({"it": index}) as url:
        assert httpx.get(f"{url}/v1/indexes/it").json()["query_pictures"] is False
        message = {"query": {"text": "red", "picture": coded(png(FLAG))}}
        answer = httpx.post(f"{url}/v1/indexes/it/search", json=message)
        assert answer.status_code == 422 and answer.json()["detail"].startswith("query must be texts alone")


def test_a_request_may_have_a_picture(url, index):
    assert httpx.get(url).json()["query_pictures"] is True
    expected = [{"id": id, "score": score} for id, score in index.search(("swim", FLAG), 2)]
    for message, headers in (
        ({"query": {"text": "swim", "picture": coded(png(FLAG))}, "k": 2}, None),
        ({"query": {"text": "swim", "picture": png(FLAG)}, "k": 2}, PACKED),
    ):
        body = msgspec.json.encode(message) if headers is None else msgspec.msgpack.encode(message)
        kind = headers or {"content-type": "application/json"}
        answer = httpx.post(f"{url}/search", content=body, headers={**kind, "accept": "application/json"})
        assert answer.json()["hits"] == expected
    alone = httpx.post(f"{url}/search", json={"query": {"picture": coded(png(SNOW))}, "k": 1}).json()
    assert alone["hits"][0]["id"] == 3
    mixed = {"queries": ["snow", {"picture": coded(png(SNOW))}], "k": 1}
    found = httpx.post(f"{url}/search/batch", json=mixed).json()["results"]
    assert [hits[0]["id"] for hits in found] == [3, 3]
    ranked = httpx.post(f"{url}/rerank", json={"query": {"picture": coded(png(FLAG))}, "ids": [0, 1]}).json()
    assert [hit["id"] for hit in ranked["hits"]] == [0, 1]


def test_an_answer_says_which_tokens_are_patches(url, index):
    query = {"text": "swim", "picture": coded(png(FLAG))}
    answer = httpx.post(f"{url}/search", json={"query": query, "k": 1, "explain": True, "fields": ["text"]}).json()
    place = {"grid": [2, 2], "first": 1, "box": [0.0, -0.5, 1.0, 1.5]}
    assert answer["query_tokens"] == ["swim", "", "", "", ""] and answer["query_picture"] == place
    (hit,) = answer["hits"]
    similarity = np.frombuffer(base64.b64decode(hit["similarity"]["base64"]), "<f4").reshape(5, 3)
    assert hit["text"] == TEXTS[0] and similarity.argmax(1)[[0, 1, 4]].tolist() == [2, 0, 0]
    assert similarity[[1, 4], 0].min() > 0.9 > 0.6 > similarity[[2, 3]].max()
    explanation = httpx.post(f"{url}/explain", json={"query": query, "id": 0}).json()
    assert explanation["query_picture"] == place and explanation["query_tokens"] == answer["query_tokens"]
    assert explanation["similarity"] == hit["similarity"]
    words = httpx.post(f"{url}/search", json={"query": "swim", "explain": True, "k": 1}).json()
    assert words["query_tokens"] == ["swim"] and "query_picture" not in words


def test_the_client_sends_pictures(url, index, monkeypatch):
    expected = list(index.search(("swim", FLAG), 3))
    with RemoteIndex(url) as remote:
        for packed in (True, False):
            monkeypatch.setattr(remote, "_packed", packed)
            assert list(remote.search(("swim", FLAG), 3)) == expected
            assert list(remote.search(("swim", png(FLAG)), 3)) == expected
            (hits, others) = remote.search([("swim", FLAG), "snow"], 3)
            assert list(hits) == expected and others.ids[0] == 3
        assert list(remote.explain(("swim", FLAG), 0)) == list(index.explain(("swim", FLAG), 0))
        np.testing.assert_array_equal(remote.similarity(("", FLAG), 1), index.similarity(("", FLAG), 1))
        with pytest.raises(ServerError, match="a picture must have at most 2,000 bytes, got 5,000") as caught:
            remote.search(("", bytes(5000)))
        assert caught.value.status == 413


def test_turned_pictures_are_turned_back(url, index):
    turned = FLAG.transpose(images.Transpose.ROTATE_90)
    file, exif = io.BytesIO(), images.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    turned.save(file, "WEBP", lossless=True, exif=exif.tobytes())
    message = {"query": {"text": "swim", "picture": coded(file.getvalue())}, "k": 3}
    found = [(hit["id"], hit["score"]) for hit in httpx.post(f"{url}/search", json=message).json()["hits"]]
    assert found == list(index.search(("swim", FLAG), 3))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge(width, height):
    """A PNG that says to be large, and is not."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def gif():
    file = io.BytesIO()
    FLAG.save(file, "GIF")
    return file.getvalue()


NONE = "query must have a picture in one of the formats JPEG, PNG, WEBP, and what came is none"


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ({"picture": coded(bytes(2001))}, 413, "a picture must have at most 2,000 bytes, got 2,001"),
        ({"picture": coded(huge(40, 30))}, 422, "query must have a picture of at most 1,000 pixels, got 40 x 30"),
        ({"picture": coded(huge(60000, 60000))}, 422, "query must have a picture of at most 1,000 pixels"),
        ({"picture": coded(huge(10, 10))}, 422, f"{NONE}: it is damaged"),
        ({"picture": coded(png(FLAG)[:60])}, 422, f"{NONE}: it is damaged"),
        ({"picture": coded(gif())}, 422, NONE),
        ({"picture": coded(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, 422, NONE),
        ({"picture": "no base64!"}, 422, "query: picture must be a string in base64"),
        ({"picture": ""}, 422, "query: picture must be the bytes of a file"),
        ({"picture": None}, 422, "query: picture must be the bytes of a file"),
        ({"text": 1, "picture": "AAAA"}, 422, "query: text must be a string, got int"),
        ({"text": "a"}, 422, "query: must be an object with picture and text, got ['text']"),
        ({"text": "a", "picture": "AAAA", "more": 1}, 422, "query: must be an object with picture and text, got"),
    ],
)
def test_what_is_no_picture_is_refused(url, query, status, detail):
    for path, message in (
        ("search", {"query": query}),
        ("search/batch", {"queries": ["red", query]}),
        ("rerank", {"query": query, "ids": [0]}),
        ("explain", {"query": query, "id": 0}),
    ):
        answer = httpx.post(f"{url}/{path}", json=message)
        assert answer.status_code == status, answer.text
        said = answer.json()["detail"].replace("queries.1", "query")
        assert said.startswith(detail), path


def test_a_wrong_picture_leaves_the_others_alone(folder):
    """All three wait together, for the first holds the thread up."""

    async def ask():
        async with httpx.AsyncClient() as client:

            async def post(query):
                return await client.post(f"{url}/v1/indexes/it/search", json={"query": query, "k": 1})

            first = asyncio.create_task(post("snow"))
            await asyncio.sleep(0.03)
            wrong = {"picture": coded(gif())}
            return await asyncio.gather(first, post({"picture": coded(png(SNOW))}), post(wrong), post("swim"))

    with serving({"it": Index.open(folder / "it", encoder=Late())}) as url:
        answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200]
    assert [answer.json()["hits"][0]["id"] for answer in (answers[0], answers[1], answers[3])] == [3, 3, 0]
