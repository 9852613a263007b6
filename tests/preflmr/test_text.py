import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from preflmr import FLMRTextConfig  # noqa: E402
from preflmr.model import flmr, text  # noqa: E402
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


@pytest.mark.parametrize("tokens", [1, 16, 1024])
def test_states_by_length_are_those_of_the_whole_batch(tokens, monkeypatch):
    """And the gradients: of texts of one token to twelve, one without any, and one whose padding has a meaning."""
    monkeypatch.setattr(text, "TOKENS", tokens)
    torch.manual_seed(0)
    encoder = TextEncoder(FLMRTextConfig(**SMALL)).eval()
    lengths = torch.tensor([3, 12, 1, 7, 0, 12, 5, 4])
    mask = (torch.arange(12) < lengths[:, None]).long()
    ids = torch.randint(1, 50, (8, 12)) * mask
    ids[6, 5:10] = 9  # not looked at, and yet its states are needed
    needed = (mask != 0) | (ids != 0)
    batches, found = [], []
    encoder.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape)))
    words = encoder.bert_model.embeddings.word_embeddings.weight
    for encode in (encoder, lambda *given: text.states_by_length(encoder, *given, 0)):
        states = encode(ids, mask)
        weights = torch.linspace(-1, 1, states.numel()).view_as(states)
        (gradient,) = torch.autograd.grad((states * weights)[needed].square().sum(), words)
        found.append((states[needed], gradient))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert batches[0] == (8, 12) and sum(count for count, _ in batches[1:]) == 8
    if tokens == 16:
        assert batches[1:] == [(1, 12), (1, 12), (1, 10), (2, 7), (3, 3)]


def test_texts_of_one_length_are_encoded_at_once():
    encoder = TextEncoder(FLMRTextConfig(**SMALL)).eval()
    batches = []
    encoder.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape)))
    ids, mask = torch.full((5, 4), 9), torch.tensor([[1, 1, 0, 0]] * 5)  # questions, filled up with [MASK]
    assert torch.equal(text.states_by_length(encoder, ids, mask, 0), encoder(ids, mask))
    assert batches == [(5, 4), (5, 4)]


def test_documents_alone_are_encoded_by_length_and_in_training_alone(make_tiny, monkeypatch):
    model = make_tiny().requires_grad_()
    encoded, by_length = [], text.states_by_length
    monkeypatch.setattr(flmr, "states_by_length", lambda *given: encoded.append(given[1]) or by_length(*given))
    queries, documents = model.query_tokenizer(["a : b"]), model.document_tokenizer(["a", "b c d e"])
    for training in (False, True):
        model.train(training)
        model.query(**queries, concat_output_from_vision_encoder=False)
        model.doc(**documents)
    assert len(encoded) == 1 and encoded[0].tolist() == documents["input_ids"].tolist()
