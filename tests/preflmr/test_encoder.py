"""A PreFLMR as an encoder of an index: questions with pictures, and what their rows stand for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

from lateint import Index  # noqa: E402
from preflmr.encoder import Encoder  # noqa: E402
from preflmr.searcher import query_text  # noqa: E402

WIDE = Image.linear_gradient("L").resize((60, 30)).convert("RGB")
QUESTION = "what is red, here"


@pytest.fixture(scope="module")
def encoder(make_tiny):
    return Encoder(make_tiny(query_maxlen=128))


def test_rows_of_a_question_with_a_picture_have_places(encoder):
    (rows,), (places,) = encoder.encode_query([(QUESTION, WIDE)]), encoder.query_places([(QUESTION, WIDE)])
    assert encoder.query_pictures and len(places.words) == len(rows)
    assert "".join(places.words) == "whatisred,here"  # and nothing of the instruction
    assert places.grid == (2, 2) and places.first == len(rows) - 4 and places.box == (0.25, 0.0, 0.75, 1.0)
    model = encoder.model
    text = query_text(model, QUESTION, None, True)
    with torch.no_grad():
        query = model.query(**model.query_tokenizer([text]), pixel_values=model.image_processor([WIDE]))
    np.testing.assert_allclose(rows[-4:], query.late_interaction_output[0, -4:].numpy(), atol=1e-5)


def test_rows_of_words_alone_have_places(encoder):
    (rows,), (places,) = encoder.encode_query([QUESTION]), encoder.query_places([QUESTION])
    assert places.grid is None and len(places.words) == len(rows)
    assert "".join(places.words) == "whatisred,here"


@pytest.mark.parametrize(
    "fields",
    [
        {"use_transformer_mapping_network": False},
        {"query_concat_output_from_text_encoder": False},
        {"mask_instruction_token": None},
        {"vision_config": {"image_fit": "pad"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_places_follow_the_configuration(make_tiny, fields):
    if "vision_config" in fields:
        small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        fields = {"vision_config": {**small, "image_size": 32, "patch_size": 16, "image_fit": "pad"}}
    encoder = Encoder(make_tiny(query_maxlen=128, **fields))
    (rows,), (places,) = encoder.encode_query([(QUESTION, WIDE)]), encoder.query_places([(QUESTION, WIDE)])
    assert len(places.words) == len(rows)
    assert (places.grid is None) == ("use_transformer_mapping_network" in fields)
    if "vision_config" in fields:
        assert places.box == (0.0, -0.5, 1.0, 1.5)


def test_a_long_question_is_cut_where_the_model_cuts_it(make_tiny):
    encoder = Encoder(make_tiny(query_maxlen=24), instruction="")
    with pytest.warns(UserWarning, match="were cut"):
        (rows,) = encoder.encode_query(["red " * 30])
    (places,) = encoder.query_places(["red " * 30])
    assert len(places.words) == len(rows)


def test_an_index_is_asked_with_pictures(encoder, tmp_path):
    passages = ["a red thing", "a blue thing", "snow"]
    index = Index.build(texts=passages, encoder=encoder, path=tmp_path / "it", nbits=8, progress=False)
    (rows,) = encoder.encode_query([(QUESTION, WIDE)])
    assert list(index.search((QUESTION, WIDE), 3)) == list(index.search(rows, 3))
    batch = index.search([(QUESTION, WIDE), QUESTION], 3)
    assert batch[0].ids.tolist() == index.search(rows, 3).ids.tolist()
    assert index.similarity(("", WIDE), 1).shape[0] == len(encoder.query_places([("", WIDE)])[0].words)


def test_a_model_without_eyes_reads_no_pictures(make_tiny):
    blind = make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)
    encoder = Encoder(blind)
    assert encoder.query_pictures is False
    with pytest.raises(ValueError, match="queries must have no pictures: this model reads none"):
        encoder.query_places([(QUESTION, WIDE)])
