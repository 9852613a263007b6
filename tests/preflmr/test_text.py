import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from preflmr import FLMRTextConfig  # noqa: E402
from preflmr.model.text import TextEncoder  # noqa: E402

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50}


def test_bert_of_any_size_with_published_names():
    encoder = TextEncoder(FLMRTextConfig(**SMALL)).eval()
    names = encoder.state_dict()
    assert len(names) == 7 + 16 * 2 and all(name.startswith("bert_model.") for name in names)
    ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    states = encoder(ids, mask)
    assert states.shape == (2, 3, 16)
    torch.testing.assert_close(encoder(ids[1:, :2]), states[1:, :2])
    assert not any(parameter.requires_grad for parameter in encoder.bert_model.pooler.parameters())


def test_another_encoder():
    base = transformers.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=24, vocab_size=50).to_dict()
    config = FLMRTextConfig(
        hidden_size=16, num_attention_heads=2, text_encoder_base_model="distilbert", base_config=base
    )
    encoder = TextEncoder(config).eval()
    assert isinstance(encoder.bert_model, transformers.DistilBertModel)
    assert encoder(torch.tensor([[3, 4]])).shape == (1, 2, 16)
