import contextlib
import weakref

import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import (  # noqa: E402
    gradcache,
    losses,
    maxsim,
)
from lateint_kernels.gradcache import cached_contrastive, encode_in_chunks  # noqa: E402

QUERY_LENGTH, LENGTH, FEATURES, DIM = 3, 5, 6, 4


class Encoder(torch.nn.Module):
    """Embeds token features, or a tokenizer's mapping of them and their mask, whose padding it cuts off."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Linear(FEATURES, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, DIM)
        self.layers = torch.nn.Sequential(*layers).double()

    def forward(self, inputs):
        if isinstance(inputs, torch.Tensor):
            return self.layers(inputs)
        longest = int(inputs["mask"].sum(1).max())
        return self.layers(inputs["tokens"][:, :longest]), inputs["mask"][:, :longest]


def batch(masked):
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(7, QUERY_LENGTH, FEATURES, generator=generator, dtype=torch.float64)
    documents = torch.randn(11, LENGTH, FEATURES, generator=generator, dtype=torch.float64)
    if not masked:
        return queries, documents
    lengths = torch.tensor([2, 1, 3, 3, 2, 1, 2, 5, 4, 1, 1])
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {"tokens": queries, "mask": torch.ones(7, QUERY_LENGTH).long()}, {"tokens": documents, "mask": mask}


OPTIONS = dict(
    temperature=0.5,
    positives=torch.tensor([0, 3, 3, 10, 5, 1, 7]),
    document_ids=torch.tensor([0, 1, 2, 3, 0, 5, 6, 3, 8, 9, 9]),
    document_corpora=torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0]),
)


def plain_loss(query_tokens, query_mask, document_tokens, document_mask, symmetric):
    scores = maxsim(query_tokens, document_tokens, query_mask=query_mask, document_mask=document_mask, normalize=True)
    return losses.contrastive(scores, symmetric=symmetric, **OPTIONS)


def loss_and_gradients(encoder, loss):
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()])


@pytest.mark.parametrize(
    ("masked", "chunk_size", "score_chunk_size", "symmetric"),
    [
        (False, 1, None, False),
        (False, 3, None, True),
        (False, 100, 1, False),
        (True, 1, 3, True),
        (True, 3, 1, False),
        (True, 3, None, False),
        (True, 100, 3, True),
    ],
)
def test_equals_the_loss_of_the_whole_batch(masked, chunk_size, score_chunk_size, symmetric):
    queries, documents = batch(masked)
    encoder = Encoder()
    outputs = encoder(queries), encoder(documents)
    tokens = [(x if masked else (x, None)) for x in outputs]
    loss, gradients = loss_and_gradients(encoder, plain_loss(*tokens[0], *tokens[1], symmetric))

    encoder = Encoder()
    options = dict(chunk_size=chunk_size, score_chunk_size=score_chunk_size, symmetric=symmetric, normalize=True)
    cached = cached_contrastive(encoder, queries, encoder, documents, **options, **OPTIONS)
    found, found_gradients = loss_and_gradients(encoder, cached)
    torch.testing.assert_close(found, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(found_gradients, gradients, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize("masked", [False, True])
def test_dropout_is_the_same_when_encoded_again(monkeypatch, masked, chunk_size):
    """Against the same chunks, encoded once and all kept."""
    queries, documents = batch(masked)
    results = []
    for recompute in (True, False):
        if not recompute:
            monkeypatch.setattr(gradcache, "_recomputed", lambda function, argument: function(argument))
        encoder = Encoder(dropout=0.4)
        torch.manual_seed(5)
        loss = cached_contrastive(encoder, queries, encoder, documents, chunk_size=chunk_size, **OPTIONS)
        results.append((*loss_and_gradients(encoder, loss), torch.rand(1)))
    for cached, kept in zip(*results, strict=True):
        assert torch.equal(cached, kept)  # bit for bit; and random numbers go on where they were


def test_one_chunk_at_a_time():
    """What is computed again for a chunk is used up before the next chunk is."""
    events = []
    layer = torch.nn.Linear(FEATURES, DIM)

    def encode(x):
        events.append(("encode", len(x)))
        hidden = layer(x)
        if torch.is_grad_enabled():
            hidden.register_hook(lambda gradient: events.append(("backward", len(gradient))))
        return hidden.tanh()

    tokens, _ = encode_in_chunks(encode, torch.randn(6, 2, FEATURES), chunk_size=4)
    assert events == [("encode", 4), ("encode", 2)]
    events.clear()
    tokens.sum().backward()
    assert events == [("encode", 2), ("backward", 2), ("encode", 4), ("backward", 4)]


def test_activations_of_one_chunk_are_alive():
    alive, most = [], 0

    def encode(x):
        nonlocal most
        hidden = (x * x).exp()  # saved for its own gradient
        alive.append(weakref.ref(hidden.untyped_storage()))
        most = max(most, sum(1 for storage in alive if storage() is not None))
        return hidden.tanh()

    x = torch.randn(8, 2, 3, requires_grad=True)
    tokens, _ = encode_in_chunks(encode, x, chunk_size=1)
    tokens.sum().backward()
    assert len(alive) == 16 and most <= 2


def test_lists_masks_and_lengths():
    def encode(texts):
        return torch.stack([torch.full((max(map(len, texts)), 1), float(len(text))) for text in texts])

    tokens, mask = encode_in_chunks(encode, ["a", "bcd", "ef"], chunk_size=2)
    assert tokens.squeeze(-1).tolist() == [[1, 1, 1], [3, 3, 3], [2, 2, 0]]
    assert mask.tolist() == [[True] * 3, [True] * 3, [True, True, False]]
    tokens, mask = encode_in_chunks(lambda x: (encode(x), torch.ones(len(x), 3)), ["abc", "def"], chunk_size=1)
    assert mask.dtype == torch.bool and mask.shape == (2, 3)


def test_without_gradient():
    encoder = Encoder()
    with torch.no_grad():
        loss = cached_contrastive(encoder, batch(False)[0], encoder, batch(False)[1], chunk_size=2, **OPTIONS)
    assert not loss.requires_grad


@pytest.mark.gpu
def test_dropout_on_a_gpu_with_inputs_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    encoder = Encoder(dropout=0.4).cuda()
    queries, documents = batch(False)
    gradients = []
    for context in (contextlib.nullcontext(), pytest.MonkeyPatch.context()):
        with context as patch:
            if patch is not None:
                patch.setattr(gradcache, "_recomputed", lambda function, argument: function(argument))
            torch.manual_seed(5)
            encoder.zero_grad()
            loss = cached_contrastive(
                lambda x: encoder(x.cuda()), queries, lambda x: encoder(x.cuda()), documents, chunk_size=2, **OPTIONS
            )
            gradients.append(loss_and_gradients(encoder, loss)[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_in_chunks(Encoder(), batch(False)[0], chunk_size=0), "chunk sizes must be at least 1, got 0"),
        (
            lambda: encode_in_chunks(Encoder(), {"tokens": torch.ones(2, 1), "mask": torch.ones(3)}, chunk_size=1),
            "inputs must be equally many, got {'tokens': 2, 'mask': 3}",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
