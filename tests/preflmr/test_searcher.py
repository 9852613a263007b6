"""Collections made and asked with a tiny model."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from lateint import Index  # noqa: E402
from preflmr.data.images import Images  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402
from preflmr.searcher import Searcher, default_instruction, query_text  # noqa: E402
from preflmr.weights.fingerprint import fingerprint  # noqa: E402

WORDS = ["red rose", "blue sky", "green leaf", "black cat", "white snow", "grey stone", "pink fish", "brown bear"]


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny(query_maxlen=128)  # instructions are long, letter by letter


@pytest.fixture
def passages(tmp_path):
    rows = [{"id": f"p{i}", "text": f"{word}, number {i}"} for i, word in enumerate(WORDS)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "p.jsonl"


@pytest.fixture
def searcher(model, passages, tmp_path):
    return Searcher.build(model, passages, tmp_path / "index", nbits=8, progress=False)


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def test_finds_what_exact_scores_find(model, searcher):
    (found,) = searcher.search(["blue?"], [picture()], instructions="say:", k=8, exhaustive=True)
    (query,) = encode_queries(model, ["say:  blue? "], [picture()], progress=False)
    tokens, lengths = next(encode_documents(model, [f"{word}, number {i}" for i, word in enumerate(WORDS)]))
    scores = [(query @ rows.T).max(1).sum() for rows in np.split(tokens, np.cumsum(lengths)[:-1])]
    assert {one.id for one in found} == {f"p{i}" for i in range(8)}
    for one in found:
        number = int(one.id[1:])
        assert one.text == f"{WORDS[number]}, number {number}"
        assert one.score == pytest.approx(scores[number], rel=0.02)


def test_opens_again_with_the_same_weights_only(searcher, make_tiny, tmp_path):
    again = Searcher.open(tmp_path / "index", make_tiny(query_maxlen=128))
    assert again.search(["blue?"])[0] == searcher.search(["blue?"])[0]
    other = make_tiny(query_maxlen=128)
    other.query_text_encoder_linear.weight.data += 0.01
    with pytest.raises(ValueError, match="index was indexed with another model, PreFLMR, than PreFLMR: their weights"):
        Searcher.open(tmp_path / "index", other)


def test_a_question_without_a_picture_sees_a_blank_one(model, searcher):
    text = query_text(model, "blue?", None, False)
    (blank,) = encode_queries(model, [text], [None], progress=False)
    (hits,) = searcher.index.search([blank], 5)
    assert [one.score for one in searcher.search(["blue?"])[0]] == hits.scores.tolist()


def test_instructions():
    assert default_instruction("", True).startswith("Identify the document")
    assert default_instruction("what?", True).startswith("Using the provided image")
    assert default_instruction("what?", False) == "Retrieve the document that answers this question."


def test_texts_of_queries(model, make_tiny):
    assert query_text(model, "Why?", "Answer it", True) == "Answer it:  Why? "
    assert query_text(model, "Why?", "", True) == ":  Why? "
    assert query_text(model, "Why?", None, False) == "Retrieve the document that answers this question.:  Why? "
    bare = make_tiny(use_instructions=False, mask_instruction_token=None)
    assert query_text(bare, "Why?", None, True) == "Why?" and query_text(bare, "Why?", "Say", True) == "Say:  Why? "


def test_a_model_without_eyes(make_tiny, passages, tmp_path):
    blind = make_tiny(query_maxlen=128, use_vision_encoder=False, use_transformer_mapping_network=False)
    searcher = Searcher.build(blind, passages, tmp_path / "index", progress=False)
    assert len(searcher.search(["blue?"], k=3)[0]) == 3
    with pytest.raises(ValueError, match="images must be left out: this model reads no pictures with questions"):
        searcher.search(["blue?"], [picture()])


def test_passages_with_pictures(make_tiny, tmp_path):
    seeing = make_tiny(query_maxlen=128, context_concat_output_from_vision_encoder=True)
    picture().save(tmp_path / "a.png")
    rows = [{"id": "a", "text": "", "img_path": "a.png"}, {"id": "b", "text": "words"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    searcher = Searcher.build(seeing, tmp_path / "p.jsonl", tmp_path / "i", images=Images(tmp_path), progress=False)
    assert {one.id: one.image for one in searcher.search(["x"])[0]} == {"a": "a.png", "b": None}


def test_published_models_read_pictures_of_passages_when_they_are_given(make_tiny, tmp_path):
    model = make_tiny(query_maxlen=128)
    assert not model.config.context_concat_output_from_vision_encoder  # as in published checkpoints
    picture().save(tmp_path / "a.png")
    rows = [{"id": "a", "text": "words", "img_path": "a.png"}, {"id": "b", "text": "words"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "i", images=Images(tmp_path), progress=False)
    blind = Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "j", progress=False)
    lengths = [[len(one.index.reconstruct(n)) for n in range(2)] for one in (seen, blind)]
    assert lengths[0] == [lengths[1][0] + 4, lengths[1][1]]  # rows of the mapping
    assert seen.about["passages"]["with_picture"] == 1 and blind.about["passages"]["with_picture"] == 0


def test_what_is_there_is_not_overwritten_unasked(model, searcher, passages, tmp_path):
    with pytest.raises(FileExistsError, match=r"index exists: 8 passages of .*p.jsonl, indexed with PreFLMR; give"):
        Searcher.build(model, passages, tmp_path / "index", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="full exists and is no index of passages"):
        Searcher.build(model, passages, tmp_path / "full", overwrite=True, progress=False)
    passages.write_text(passages.read_text() + '{"id": "more", "text": "more"}\n')
    assert len(Searcher.build(model, passages, tmp_path / "index", overwrite=True, progress=False).passages) == 9


def test_a_failure_leaves_nothing(model, passages, tmp_path):
    passages.write_text(passages.read_text() + '{"id": "more", "text": ""}\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="line 9: passage 'more' is empty"):
        Searcher.build(model, passages, tmp_path / "index", progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_damage_is_refused(model, searcher, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no passages to search: it has no preflmr\.json"):
        Searcher.open(tmp_path, model)
    Index.build([np.eye(16, dtype=np.float32)], tmp_path / "index" / "index", overwrite=True, progress=False)
    with pytest.raises(ValueError, match="found 8 passages and 1 documents"):
        Searcher.open(tmp_path / "index", model)
    about = tmp_path / "index" / "preflmr.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="must be preflmr-collection 1, found preflmr-collection 2"):
        Searcher.open(tmp_path / "index", model)
    about.write_text("{")
    with pytest.raises(ValueError, match=r"preflmr\.json: not readable"):
        Searcher.open(tmp_path / "index", model)


@pytest.mark.parametrize("name", ["k", "nprobe", "candidates"])
def test_limits_are_refused_before_questions_are_encoded(searcher, monkeypatch, name):
    monkeypatch.setattr("preflmr.searcher.encode_queries", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        searcher.search(["why?"], **{name: 0})


@pytest.mark.parametrize("given", [{"images": [None] * 2}, {"instructions": ["a", "b"]}])
def test_as_many_of_each(searcher, given):
    with pytest.raises(ValueError, match="must have one item a question, got 2 for 1 questions"):
        searcher.search(["a"], **given)


def test_fingerprints_follow_weights_and_not_layout(make_tiny, tmp_path):
    model = make_tiny()
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert fingerprint(again) == fingerprint(model) == fingerprint(make_tiny())
    model.query_vision_projection.model[0].bias.data += 1e-6
    assert fingerprint(model) != fingerprint(again)


def test_a_model_is_an_encoder_of_an_index(model, make_tiny, tmp_path):
    from preflmr import Encoder

    texts = [f"{word}, number {i}" for i, word in enumerate(WORDS)]
    index = Index.build(texts=iter(texts), encoder=Encoder(model), path=tmp_path / "index", nbits=8, progress=False)
    tokens, lengths = next(encode_documents(model, texts, progress=False))
    expected = Index.build(tokens, lengths=lengths, nbits=8, progress=False)
    (query,) = encode_queries(model, [query_text(model, "blue?", None, False)], [None], progress=False)
    for hits in (index.search("blue?", k=8), index.search(["blue?", "red?"], k=8)[0]):
        assert list(hits) == list(expected.search(query, k=8))
    (seen,) = Encoder(model, instruction="say:").encode_query([("blue?", picture())])
    (query,) = encode_queries(model, ["say:  blue? "], [picture()], progress=False)
    assert np.array_equal(seen, query)
    other = make_tiny(query_maxlen=128)
    other.query_text_encoder_linear.weight.data += 0.01
    with pytest.raises(ValueError, match="encoder must have fingerprint="):
        Index.open(tmp_path / "index", encoder=Encoder(other))
