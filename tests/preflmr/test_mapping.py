import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr.config import MAPPING_BASE  # noqa: E402
from preflmr.model.mapping import MLPMapping, TransformerMapping  # noqa: E402

SMALL = MAPPING_BASE | {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24}


def mapping(layers=2, **changes):
    torch.manual_seed(0)
    return TransformerMapping(SMALL | changes, layers).eval()


def test_published_names():
    names = {name for name, _ in mapping(1).named_parameters()}
    blocks = [f"{kind}.{part}" for kind in ("attention", "crossattention") for part in (
        "self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")]  # fmt: skip
    blocks += ["intermediate.dense", "output.dense", "output.LayerNorm"]
    assert names == {f"layer.0.{block}.{kind}" for block in blocks for kind in ("weight", "bias")}
    assert [name for name, _ in MLPMapping(6, 2, 4).named_parameters()] == [
        "model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias",
    ]  # fmt: skip


def test_mlp():
    mlp = MLPMapping(6, 2, 4)
    x = torch.randn(3, 6)
    first, _, last = mlp.model
    assert torch.equal(mlp(x), last(torch.tanh(first(x)))) and mlp(x).shape == (3, 8)
    assert first.out_features == 4


def test_every_patch_sees_every_patch():
    network, text = mapping(), torch.randn(1, 3, 16)
    patches = torch.randn(1, 5, 16, requires_grad=True)
    for row in range(5):
        (gradient,) = torch.autograd.grad(network(patches, text)[0, row, 0], patches)
        assert (gradient[0].abs().amax(dim=1) > 0).all(), row


def test_order_of_patches_does_not_matter():
    network, text, patches = mapping(), torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(network(patches[:, order], text), network(patches, text)[:, order])


def test_masked_text_is_not_seen():
    network, text, patches = mapping(), torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[True, True, False]] * 2)
    torch.testing.assert_close(network(patches, text, mask), network(patches, text[:, :2]))


def test_against_the_decoder_layer_of_transformers():
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    names = ("hidden_size", "num_attention_heads", "intermediate_size", "layer_norm_eps")
    config = BertConfig(**{name: SMALL[name] for name in names}, is_decoder=True, add_cross_attention=True)
    config._attn_implementation = "eager"
    layer = BertLayer(config).eval()
    network = mapping(1)
    network.layer[0].load_state_dict(layer.state_dict())
    patches, text = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    expected = layer(patches, encoder_hidden_states=text)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(network(patches, text), expected)


def test_dropout_only_in_training():
    network = mapping()
    patches, text = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    assert torch.equal(network(patches, text), network(patches, text))
    assert not torch.equal(network.train()(patches, text), network(patches, text))
