"""The page that ends the demo: pictures found by words."""

import asyncio
import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import preflmr_page  # noqa: E402  # a script's folder, not a package


@pytest.fixture(scope="module")
def made(make_tiny, tmp_path_factory):
    """A folder of the page with three pictures, and the words that ask for them."""
    folder = tmp_path_factory.mktemp("page")
    make_tiny(query_maxlen=128).save_pretrained(folder / "model")
    pictures = [
        ("flags/a", Image.new("RGB", (60, 30), "red"), "Red land", "all red"),
        ("flags/b", Image.new("RGBA", (30, 30), "blue"), "Blue land", "all blue"),
        ("c", Image.linear_gradient("L"), "Night", "from black to white"),
    ]
    preflmr_page.build(folder / "model", iter(pictures), folder / "page", None)
    return folder / "page", preflmr_page.Words(str(folder / "model"))


def test_pictures_are_documents_whose_first_tokens_are_patches(made):
    folder, words = made
    from lateint import Index

    index = Index.open(folder / "index")
    assert index.ids.tolist() == ["flags/a", "flags/b", "c"]
    model = words.model
    for name in index.ids:
        with Image.open(folder / "pictures" / f"{name}.png") as square:
            assert square.size == (252, 252) and square.mode == "RGB"
            if name == "flags/a":
                assert square.getpixel((126, 10)) == (255, 255, 255) and square.getpixel((126, 126)) == (255, 0, 0)
    document = index.get(["flags/a"])[0]
    assert document.metadata == {
        "title": "Red land",
        "caption": "all red",
        "lateint": {"image": "flags/a.png", "grid": [2, 2]},
    }
    kept = index.reconstruct("flags/a")
    with torch.no_grad():
        ids = model.query_tokenizer([preflmr_page.query_text(model, "", None, True)])
        pixels = model.image_processor([preflmr_page.on_square(Image.new("RGB", (60, 30), "red"))])
        rows = model.query(**ids, pixel_values=pixels, concat_output_from_text_encoder=False).late_interaction_output
    prefix, patches = rows[0, :4].numpy(), rows[0, 4:].numpy()
    assert kept.shape == (8, 16)
    alike = kept @ [*patches, *prefix][0]
    assert ([*patches, *prefix] * kept).sum(1).min() > 0.9 and alike[0] > 0.9


def test_words_are_passages_and_say_where_their_tokens_are(made):
    _, words = made
    text = "red, and blue"
    (tokens,), (spans,) = words.encode_query([text]), words.spans([text])
    assert len(tokens) == len(spans)
    said = [text[first:last] for first, last in spans]
    assert "".join(said) == "redandblue" and said[:2] == ["", ""]


def test_passages_are_found_by_a_picture_and_a_question(made, tmp_path):
    folder, _ = made
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from lateint import Index
    from lateint_server.application import application
    from lateint_server.settings import Settings
    from preflmr import Encoder

    passages = [("a", "title: Red land section: people content: all, red"), ("b", "title: Blue content: blue")]
    preflmr_page.build_passages(folder.parent / "model", passages, tmp_path, None)
    encoder = Encoder(**json.loads((tmp_path / "passages.json").read_text()))
    served = application({"passages": Index.open(tmp_path / "passages", encoder=encoder)}, Settings())

    async def ask():
        transport = httpx.ASGITransport(served)
        async with served.router.lifespan_context(served), httpx.AsyncClient(transport=transport) as client:
            picture = base64.b64encode((folder / "pictures" / "flags" / "a.png").read_bytes()).decode()
            message = {"query": {"text": "how many?", "picture": picture}, "explain": True, "fields": ["*"]}
            return (await client.post("http://localhost/v1/indexes/passages/search", json=message)).json()

    answer = asyncio.run(ask())
    place = answer["query_picture"]
    assert place["grid"] == [2, 2] and place["first"] + 4 == len(answer["query_tokens"])
    assert "".join(answer["query_tokens"]) == "howmany?"
    titles = {"a": "Red land: people", "b": "Blue"}
    assert {hit["id"]: hit["metadata"]["title"] for hit in answer["hits"]} == titles
    for hit in answer["hits"]:
        assert hit["similarity"]["shape"] == [len(answer["query_tokens"]), len(hit["spans"])]
        said = "".join(hit["text"][first:last] for first, last in hit["spans"])
        assert said == dict(passages)[hit["id"]].replace(" ", "").translate(str.maketrans("", "", ":,"))


def test_the_server_shows_them(made):
    folder, words = made
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from lateint import Index
    from lateint_server.application import application
    from lateint_server.settings import Settings

    index = Index.open(folder / "index", encoder=words)
    served = application({"pictures": index}, Settings(images=folder / "pictures"))

    async def ask():
        transport = httpx.ASGITransport(served)
        async with served.router.lifespan_context(served), httpx.AsyncClient(transport=transport) as page:
            message = {"query": "red, and blue", "k": 3, "fields": ["*"], "explain": True}
            answer = (await page.post("http://localhost/v1/indexes/pictures/search", json=message)).json()
            assert len(answer["hits"]) == 3 and answer["query_tokens"][2] == "r"
            for hit in answer["hits"]:
                place = hit["metadata"]["lateint"]
                assert hit["similarity"]["shape"][1] == 8 and place["grid"] == [2, 2] and "spans" not in hit
                picture = await page.get(f"http://localhost/images/{place['image']}")
                assert picture.headers["content-type"] == "image/png"

    asyncio.run(ask())


def test_passages_at_hand_are_not_encoded_again(made, tmp_path, monkeypatch):
    folder, words = made
    passages = [("a", "title: Red land content: all, red"), ("b", "title: Blue content: blue")]
    tokens = words.encode_document([text for _, text in passages])
    encoded = preflmr_page.build_passages(folder.parent / "model", passages, tmp_path / "encoded", None)
    monkeypatch.setattr(preflmr_page.Encoder, "encode_document", None)
    given = preflmr_page.build_passages(folder.parent / "model", passages, tmp_path / "given", None, tokens)
    for id, _ in passages:
        assert np.array_equal(given.reconstruct(id), encoded.reconstruct(id))
    options = [json.loads((tmp_path / name / "passages.json").read_text()) for name in ("encoded", "given")]
    assert options[0] == options[1]
