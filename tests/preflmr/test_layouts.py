import pytest

torch = pytest.importorskip("torch")

from preflmr.weights import layouts  # noqa: E402

ONE, TWO = torch.ones(2, 2), torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("query_text_encoder.bert_model.pooler.dense.bias", None),
        ("context_text_encoder.text_model.pooler.dense.bias", "context_text_encoder.bert_model.pooler.dense.bias"),
        ("module.query_text_encoder_linear.weight", "query_text_encoder_linear.weight"),
        ("base_model.model.query_text_encoder_linear.weight", "query_text_encoder_linear.weight"),
        ("model.model.bert.encoder.layer.0.x", "query_text_encoder.bert_model.encoder.layer.0.x"),
        ("model.model.linear.weight", "query_text_encoder_linear.weight"),
        ("bert.embeddings.x", "query_text_encoder.bert_model.embeddings.x"),
        ("linear.weight", "query_text_encoder_linear.weight"),
        ("model.vision_projection.model.2.bias", "query_vision_projection.model.2.bias"),
        ("model.doc_vision_projection.model.0.weight", "context_vision_projection.model.0.weight"),
        ("model.transformer_mapping_input_linear.weight", "transformer_mapping_input_linear.weight"),
        (
            "query_vision_encoder.vision_model.embeddings.class_embedding",
            "query_vision_encoder.vision_model.vision_model.embeddings.class_embedding",
        ),
        ("context_vision_encoder.vision_model.vision_model.pre_layrnorm.bias", None),
        ("something.else", None),
    ],
)
def test_names(name, published):
    assert list(layouts.published({name: ONE})) == [published or name]


@pytest.mark.parametrize(
    "name",
    [
        "query_text_encoder.bert_model.embeddings.position_ids",
        "query_vision_encoder.vision_model.vision_model.embeddings.position_ids",
        "query_text_encoder.cls.predictions.bias",
        "cls.seq_relationship.weight",
        "model.model.bert.embeddings.position_ids",
    ],
)
def test_what_is_no_weight_is_left_out(name):
    assert layouts.published({name: ONE}) == {}


def test_separate_query_encoder_of_ravqa():
    names = {
        "model.model.bert.pooler.x": "context_text_encoder.bert_model.pooler.x",
        "model.model.linear.weight": "context_text_encoder_linear.weight",
        "model.query_encoder.bert.pooler.x": "query_text_encoder.bert_model.pooler.x",
        "model.query_encoder.encoder.y": "query_text_encoder.bert_model.encoder.y",
        "model.query_linear.weight": "query_text_encoder_linear.weight",
    }
    assert list(layouts.published(dict.fromkeys(names, ONE))) == list(names.values())


def test_one_tensor_under_two_names():
    both = ["query_text_encoder.bert_model.x", "query_text_encoder.text_model.x"]
    assert list(layouts.published(dict.fromkeys(both, ONE))) == both[:1]
    with pytest.raises(ValueError, match="one value under all its names, got two for query_text_encoder"):
        layouts.published({both[0]: ONE, both[1]: TWO})


def test_untied():
    state = {"query_vision_projection.x": ONE, "context_vision_projection.x": ONE, "context_text_encoder.y": TWO}
    assert list(layouts.untied(state, text=False, vision=True)) == [
        "query_vision_projection.x", "context_text_encoder.y",
    ]  # fmt: skip
    assert list(layouts.untied(state, text=True, vision=True)) == ["query_vision_projection.x", "query_text_encoder.y"]
    state["context_vision_projection.x"] = TWO
    assert len(layouts.untied(state, text=False, vision=False)) == 3
    with pytest.raises(ValueError, match=r"must equal query_vision_projection.x, for the config says"):
        layouts.untied(state, text=False, vision=True)


@pytest.mark.parametrize("base", ["weight", "base_layer.weight"])
def test_lora_is_merged(base):
    weight, a, b = torch.randn(4, 5), torch.randn(16, 5), torch.randn(4, 16)
    name = "model.model.bert.base_model.model.encoder.layer.0.attention.self.query"
    state = {f"{name}.{base}": weight, f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b}
    (found,) = layouts.published(state).items()
    assert found[0] == "query_text_encoder.bert_model.encoder.layer.0.attention.self.query.weight"
    torch.testing.assert_close(found[1], weight + 2 * b @ a)
    ((_, found),) = layouts.published(state, lora_alpha=8).items()
    torch.testing.assert_close(found, weight + 0.5 * b @ a)


def test_lora_that_does_not_fit_is_refused():
    pair = {"x.lora_A.weight": torch.ones(4, 5), "x.lora_B.weight": torch.ones(4, 4)}
    with pytest.raises(ValueError, match=r"have a weight to adapt, got no such thing for x.weight"):
        layouts.published(pair)
    with pytest.raises(ValueError, match="lora_alpha must be given where the rank is not 16, got rank 4"):
        layouts.published({"x.weight": torch.ones(4, 5)} | pair)
