"""The outputs of the public FLMR, array by array, and of a plain re-computation where it left no arrays."""

import json
import string
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.nn import functional  # noqa: E402

from lateint_kernels import maxsim  # noqa: E402
from preflmr import FLMRConfig, FLMRDocumentTokenizer, FLMRQueryTokenizer, PreFLMR  # noqa: E402

FOLDER = Path(__file__).parent / "parity"
CASES = ("preflmr_tiny", "flmr_roi")


class Case:
    """A model of the published layout, its inputs, and what the reference made of them."""

    def __init__(self, name):
        self.arrays = np.load(FOLDER / name / "ref.npz")
        self.settings = json.loads((FOLDER / name / "texts.json").read_text())
        vocabulary = FOLDER / name / "vocab.txt"
        query = FLMRQueryTokenizer(vocabulary, self.settings["query_maxlen"], self.settings["attend_to_mask_tokens"])
        document = FLMRDocumentTokenizer(vocabulary, self.settings["doc_maxlen"])
        self.model = PreFLMR.from_pretrained(FOLDER / name, query_tokenizer=query, document_tokenizer=document)
        self.queries = query(self.settings["queries"])
        self.documents = document(self.settings["docs"])
        self.pixels = torch.from_numpy(self.arrays["query_pixel_values"])

    def check(self, **outputs):
        for name, found in outputs.items():
            expected, found = self.arrays[name], found.detach().numpy()
            assert expected.shape == found.shape, name
            if expected.dtype.kind in "ib":
                assert np.array_equal(expected, found), name
            else:
                allowed = 2e-5 * max(1, np.abs(expected).max())
                assert np.abs(expected - found).max() <= allowed, name

    def check_query(self, prefix, **arguments):
        out = self.model.query(**self.queries, **arguments)
        rows, pooled = f"{prefix}query_late_interaction_output", f"{prefix}query_pooler_output"
        self.check(**{rows: out.late_interaction_output, pooled: out.pooler_output})
        return out

    def forward(self, **arguments):
        sides = {"query": self.queries, "context": self.documents}
        tokens = {f"{side}_{name}": tensor for side, given in sides.items() for name, tensor in given.items()}
        negatives = self.settings["num_negative_examples"]
        return self.model(**tokens, query_pixel_values=self.pixels, num_negative_examples=negatives, **arguments)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def preflmr():
    return Case("preflmr_tiny")


@pytest.fixture(scope="module")
def flmr():
    return Case("flmr_roi")


def test_tokens(case):
    case.check(
        query_input_ids=case.queries["input_ids"],
        query_attention_mask=case.queries["attention_mask"],
        context_input_ids=case.documents["input_ids"],
        context_attention_mask=case.documents["attention_mask"],
    )


def test_query(case):
    out = case.check_query("", pixel_values=case.pixels)
    case.check(
        query_token_mask=case.model.query_mask(case.queries["input_ids"]),
        query_text_last_hidden=out.text_last_hidden_state,
        vision_last_hidden=out.vision_last_hidden_state,
        vision_hidden_minus2=out.vision_penultimate_hidden_state,
        vision_prefix_tokens=out.vision_prefix_tokens,
    )


def test_document(case):
    out = case.model.doc(**case.documents)
    case.check(
        context_late_interaction_output=out.late_interaction_output,
        context_mask=out.context_mask,
        context_pooler_output=out.pooler_output,
    )


def test_scores_and_losses(case):
    out = case.forward()
    case.check(scores=out.scores, loss_in_batch=out.loss)
    assert out.in_batch_negative_loss is out.loss
    case.check(
        all_pairs_scores=maxsim(
            out.query_late_interaction_output,
            out.context_late_interaction_output,
            query_mask=out.mask,
            document_mask=out.context_mask.squeeze(2),
        )
    )
    local = case.forward(use_in_batch_negatives=False)
    case.check(scores=local.scores, loss_local=local.loss)
    assert local.in_batch_negative_loss is None


def test_gradients(case):
    case.model.zero_grad()
    case.forward().loss.backward()
    named = [name for name in case.arrays.files if name.startswith("grad::")]
    assert named
    case.check(**{name: case.model.get_parameter(name.removeprefix("grad::")).grad for name in named})
    norms = case.settings["grad_norms_in_batch"]
    found = {name: case.model.get_parameter(name).grad.norm().item() for name in norms}
    assert found == pytest.approx(norms, rel=2e-5, abs=2e-5)
    named = {id(case.model.get_parameter(name)) for name in norms}
    assert {id(p) for p in case.model.parameters() if p.requires_grad} == named


def test_vision_rows_alone(preflmr):
    preflmr.check_query("vision_only_", pixel_values=preflmr.pixels, concat_output_from_text_encoder=False)


@pytest.mark.parametrize("arguments", [{}, {"concat_output_from_vision_encoder": False}])
def test_text_rows_alone(case, arguments):
    case.check_query("text_only_", **arguments)


def test_a_flag_for_each_query(preflmr):
    preflmr.check_query(
        "listflags_",
        pixel_values=preflmr.pixels,
        concat_output_from_vision_encoder=[True, True, False],
        concat_output_from_text_encoder=[True, False, True],
    )


def test_pixels_of_five_axes(preflmr):
    preflmr.check_query("fivedim_", pixel_values=preflmr.pixels.unsqueeze(1))


def test_features_instead_of_pixels(flmr):
    flmr.check_query("feat_", image_features=torch.from_numpy(flmr.arrays["image_features"]))
    flmr.check_query("featroi_", image_features=torch.from_numpy(flmr.arrays["image_features_roi"]))


def test_tokenization():
    settings = json.loads((FOLDER / "tokenization" / "texts.json").read_text())
    arrays = np.load(FOLDER / "tokenization" / "ref.npz")
    vocabulary = FOLDER / "tokenization" / "vocab.txt"
    query = FLMRQueryTokenizer(vocabulary, settings["query_maxlen"])
    attending = FLMRQueryTokenizer(vocabulary, settings["query_maxlen"], attend_to_mask_tokens=True)
    document = FLMRDocumentTokenizer(vocabulary, settings["doc_maxlen"])
    found = {
        "query_input_ids": query(settings["queries"])["input_ids"],
        "query_attention_mask": query(settings["queries"])["attention_mask"],
        "attend_query_attention_mask": attending(settings["queries"])["attention_mask"],
        "context_input_ids": document(settings["docs"])["input_ids"],
        "context_attention_mask": document(settings["docs"])["attention_mask"],
    }
    for name, ids in found.items():
        assert np.array_equal(arrays[name], ids.numpy()), name
    assert document.punctuation_ids() == sorted(arrays["skiplist_ids"].tolist())
    assert query.convert_tokens_to_ids(":") == settings["instruction_token_id"]


# ---- the same rules once more, in plain torch and float64, for layouts of which the reference left no arrays


def plain_linear(weights, name, x):
    bias = weights.get(f"{name}.bias")
    return x @ weights[f"{name}.weight"].T + (0 if bias is None else bias)


def plain_norm(weights, name, x, eps):
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weights[name + ".weight"]
        + weights[name + ".bias"]
    )


def plain_attention(q, k, v, heads, seen=None):
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if seen is not None:
        logits = logits.masked_fill(seen[:, None, None, :] == 0, -1e30)
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def plain_bert_layer(weights, name, x, heads, eps, seen=None, other=None, other_seen=None):
    def attend(part, x, y, seen):
        qkv = [
            plain_linear(weights, f"{name}.{part}.self.{it}", of)
            for it, of in zip(("query", "key", "value"), (x, y, y), strict=True)
        ]
        mixed = plain_linear(weights, f"{name}.{part}.output.dense", plain_attention(*qkv, heads, seen))
        return plain_norm(weights, f"{name}.{part}.output.LayerNorm", mixed + x, eps)

    x = attend("attention", x, x, seen)
    if other is not None:
        x = attend("crossattention", x, other, other_seen)
    inner = functional.gelu(plain_linear(weights, f"{name}.intermediate.dense", x))
    return plain_norm(
        weights, f"{name}.output.LayerNorm", plain_linear(weights, f"{name}.output.dense", inner) + x, eps
    )


def plain_text(weights, config, side, ids, seen):
    name, text = f"{side}_text_encoder.bert_model", config.text_config
    x = weights[f"{name}.embeddings.word_embeddings.weight"][ids]
    x = x + weights[f"{name}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + weights[f"{name}.embeddings.token_type_embeddings.weight"][0]
    x = plain_norm(weights, f"{name}.embeddings.LayerNorm", x, 1e-12)
    for layer in range(text.num_hidden_layers):
        x = plain_bert_layer(weights, f"{name}.encoder.layer.{layer}", x, text.num_attention_heads, 1e-12, seen)
    return x


def plain_vision(weights, config, side, pixels):
    name, vision = f"{side}_vision_encoder.vision_model.vision_model", config.vision_config
    patches = functional.unfold(pixels, vision.patch_size, stride=vision.patch_size).transpose(1, 2)
    x = patches @ weights[f"{name}.embeddings.patch_embedding.weight"].flatten(1).T
    first = weights[f"{name}.embeddings.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + weights[f"{name}.embeddings.position_embedding.weight"]
    x = plain_norm(weights, f"{name}.pre_layrnorm", x, 1e-5)
    for number in range(vision.num_hidden_layers):
        before, layer = x, f"{name}.encoder.layers.{number}"
        y = plain_norm(weights, f"{layer}.layer_norm1", x, 1e-5)
        qkv = (plain_linear(weights, f"{layer}.self_attn.{part}_proj", y) for part in "qkv")
        mixed = plain_attention(*qkv, vision.num_attention_heads)
        x = x + plain_linear(weights, f"{layer}.self_attn.out_proj", mixed)
        y = plain_linear(weights, f"{layer}.mlp.fc1", plain_norm(weights, f"{layer}.layer_norm2", x, 1e-5))
        y = functional.gelu(y) if vision.hidden_act == "gelu" else y * torch.sigmoid(1.702 * y)
        x = x + plain_linear(weights, f"{layer}.mlp.fc2", y)
    return x[:, 0], before[:, 1:]


def plain_prefix(weights, config, side, cls, batch):
    inner = torch.tanh(plain_linear(weights, f"{side}_vision_projection.model.0", cls))
    return plain_linear(weights, f"{side}_vision_projection.model.2", inner).reshape(batch, -1, config.dim)


def plain_query(weights, model, ids, seen, pixels):
    config, batch = model.config, len(ids)
    states = plain_text(weights, config, "query", ids, seen)
    separator = model.query_tokenizer.convert_tokens_to_ids(":")
    keep = torch.ones(ids.shape, dtype=torch.bool)
    for row, one in enumerate(ids.tolist()):
        end = one.index(separator) if separator in one[2:] else 1
        for place, token in enumerate(one):
            masked = token == 0 or token in config.query_mask_input_ids_skip_list
            keep[row, place] = not masked and (place > end or place < 2)
    rows = plain_linear(weights, "query_text_encoder_linear", states) * keep.unsqueeze(2)
    pictures = pixels.shape[1]
    cls, patches = plain_vision(weights, config, "query", pixels.flatten(0, 1))
    length = config.transformer_mapping_cross_attention_length
    text, other = states[:, :length], torch.ones_like(ids[:, :length])
    for token in config.query_mask_input_ids_skip_list:
        other[ids[:, :length] == token] = 0
    x = plain_linear(weights, "transformer_mapping_input_linear", patches).unflatten(0, (batch, pictures))
    blocks = []
    for picture in x.unbind(1):
        for layer in range(config.transformer_mapping_num_hidden_layers):
            name = f"transformer_mapping_network.layer.{layer}"
            heads = config.mapping_base()["num_attention_heads"]
            picture = plain_bert_layer(weights, name, picture, heads, 1e-12, other=text, other_seen=other)
        blocks.append(plain_linear(weights, "transformer_mapping_output_linear", picture))
    rows = torch.cat([rows, plain_prefix(weights, config, "query", cls, batch), *blocks], 1)
    return rows / rows.norm(dim=2, keepdim=True).clamp(min=1e-12)


def plain_document(weights, model, text_side, vision_side, ids, seen, pixels):
    config, batch = model.config, len(ids)
    drop = [model.document_tokenizer.convert_tokens_to_ids(character) for character in string.punctuation]
    keep = (ids != 0) & ~torch.isin(ids, torch.tensor(drop))
    rows = plain_linear(weights, f"{text_side}_text_encoder_linear", plain_text(weights, config, text_side, ids, seen))
    rows = rows * keep.unsqueeze(2)
    if pixels is not None:
        cls, _ = plain_vision(weights, config, vision_side, pixels.flatten(0, 1))
        first = plain_prefix(weights, config, vision_side, cls, batch)
        rows = torch.cat([first, rows], 1)
        keep = torch.cat([torch.ones(first.shape[:2], dtype=torch.bool), keep], 1)
    return rows / rows.norm(dim=2, keepdim=True).clamp(min=1e-12), keep


FURTHER = {
    "dim 128, two mapping layers, 48 tokens, shared text": (
        {"dim": 128, "transformer_mapping_num_hidden_layers": 2}, {"query_maxlen": 48}, 1, 0,
    ),
    "document images": ({"context_concat_output_from_vision_encoder": True}, {}, 1, 1),
    "everything separate, gelu, several images": (
        {
            "context_concat_output_from_vision_encoder": True,
            "separate_query_and_context_text_encoder": True,
            "separate_query_and_context_vision_encoder": True,
        },
        {"hidden_act": "gelu"}, 3, 2,
    ),
    "a skip list, short cross-attention, [MASK] attended": (
        {"query_mask_input_ids_skip_list": [103, 112], "transformer_mapping_cross_attention_length": 9},
        {"attend_to_mask_tokens": True}, 1, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("further", FURTHER)
def test_further_layouts(further):
    fields, settings, pictures, document_pictures = FURTHER[further]
    length = settings.get("query_maxlen", 32)
    torch.manual_seed(3)
    folder = FOLDER / "preflmr_tiny"
    config = FLMRConfig.from_pretrained(folder)
    for name, value in ({"separate_query_and_context_text_encoder": False} | fields).items():
        setattr(config, name, value)
    config.vision_config.hidden_act = settings.get("hidden_act", "quick_gelu")
    query = FLMRQueryTokenizer(folder / "vocab.txt", length, settings.get("attend_to_mask_tokens", False))
    document = FLMRDocumentTokenizer(folder / "vocab.txt", 24)
    model = PreFLMR(config, query, document).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    texts = json.loads((folder / "texts.json").read_text())
    q, d = query(texts["queries"]), document(texts["docs"][:6])
    pixels = torch.randn(3, pictures, 3, 32, 32)
    document_pixels = torch.randn(6, document_pictures, 3, 32, 32) if document_pictures else None
    out = model(
        **{f"query_{name}": tensor for name, tensor in q.items()},
        **{f"context_{name}": tensor for name, tensor in d.items()},
        query_pixel_values=pixels,
        context_pixel_values=document_pixels,
    )

    weights = {name: tensor.detach().double().requires_grad_() for name, tensor in model.named_parameters()}
    expected = plain_query(weights, model, q["input_ids"], q["attention_mask"], pixels.double())
    text_side, vision_side = config.text_sides()[-1], config.vision_sides()[-1]
    doubled = None if document_pixels is None else document_pixels.double()
    rows, keep = plain_document(weights, model, text_side, vision_side, d["input_ids"], d["attention_mask"], doubled)
    torch.testing.assert_close(out.query_late_interaction_output.double(), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(out.context_late_interaction_output.double(), rows, rtol=0, atol=2e-5)
    assert torch.equal(out.context_mask, keep.unsqueeze(2))
    pairs = torch.einsum("aik,bjk->abij", expected, rows).masked_fill(~keep[None, :, None, :], -9999)
    scores = pairs.amax(3).sum(2)
    own = torch.stack([scores[i, 2 * i : 2 * i + 2] for i in range(3)])
    torch.testing.assert_close(out.scores.double(), own, rtol=2e-5, atol=2e-5)
    loss = functional.cross_entropy(scores, torch.tensor([0, 2, 4]))
    torch.testing.assert_close(out.loss.double(), loss, rtol=2e-5, atol=2e-5)

    out.loss.backward()
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = weights[name].grad
            gap = (parameter.grad.double() - gradient).abs().max()
            assert gap <= 1e-4 * max(1, gradient.abs().max()), name
