"""The adapter for PyLate against PyLate, where it is installed: ``python -m benchmarks.adapters.run`` sees to that."""

import importlib
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("pylate", reason="PyLate is not installed")
    from pylate import losses, rank
    from pylate import scores as theirs
    from pylate.scores import colbert as chooser

from lateint_kernels.adapters import pylate as ours  # noqa: E402


class Model(torch.nn.Module):
    """As much of pylate.models.ColBERT as its losses use; random."""

    skiplist = (3, 4)

    def __init__(self, do_query_expansion, dropout):
        super().__init__()
        torch.manual_seed(0)
        self.do_query_expansion = do_query_expansion
        self.embedding = torch.nn.Embedding(40, 16)
        self.dropout = torch.nn.Dropout(dropout)
        self.linear = torch.nn.Linear(16, 8)

    def forward(self, features):
        return {"token_embeddings": self.linear(self.dropout(self.embedding(features["input_ids"])))}


def features(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return {
        "input_ids": torch.randint(3, 40, (rows, length), generator=generator),
        "attention_mask": (torch.arange(length) < lengths).long(),
    }


def embeddings(*shape, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator) + shift, dim=-1).requires_grad_()


def mask(*shape, seed=7):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.4


LAYOUTS = {
    "scores": (theirs.colbert_scores, ours.colbert_scores, (6, 9, 16)),
    "kd": (theirs.colbert_kd_scores, ours.colbert_kd_scores, (4, 5, 9, 16)),
    "stacked": (theirs.ColBERTScores(), ours.ColBERTScores(), (4, 3, 9, 16)),
}


@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["any", "all-negative"])
@pytest.mark.parametrize("masked", ["none", "documents", "both"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_and_gradients(layout, masked, shift):
    """Where all similarities are negative, the masked tokens win with 0: PyLate multiplies."""
    their_function, our_function, shape = LAYOUTS[layout]
    masks = {}
    if masked != "none":
        masks["documents_mask"] = mask(*shape[:-1])
    if masked == "both":
        masks["queries_mask"] = mask(4, 5)
    found = []
    for function, options in ((their_function, {"backend": "torch"}), (our_function, {})):
        queries, documents = embeddings(4, 5, 16, shift=shift), embeddings(*shape, seed=1, shift=-shift)
        scores = function(queries, documents, **masks, **options)
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, queries.grad, documents.grad))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


def test_pairs_of_different_lengths():
    queries = [embeddings(length, 16, seed=length) for length in (3, 1, 5)]
    documents = [embeddings(length, 16, seed=10 + length) for length in (7, 2, 4)]
    torch.testing.assert_close(
        ours.colbert_scores_pairwise(queries, documents),
        theirs.colbert_scores_pairwise(queries, documents, backend="torch"),
    )
    numbers = [[x.detach().numpy() for x in side] for side in (queries, documents)]
    torch.testing.assert_close(ours.colbert_scores_pairwise(*numbers), ours.colbert_scores_pairwise(queries, documents))


def test_arrays_and_lists():
    queries, documents = embeddings(2, 3, 16).detach(), embeddings(4, 5, 16, seed=1).detach()
    expected = theirs.colbert_scores(queries, documents, backend="torch")
    torch.testing.assert_close(ours.colbert_scores(queries.numpy(), list(documents.numpy())), expected)


@pytest.fixture
def calls(monkeypatch):
    """How often PyLate's own einsum has been used; ours has none of this name."""
    made = []
    original = torch.einsum
    monkeypatch.setattr(torch, "einsum", lambda *a, **k: made.append(a[0]) or original(*a, **k))
    return made


LOSSES = {
    "contrastive": lambda model: losses.Contrastive(model),
    "contrastive-chunks": lambda model: losses.Contrastive(model, score_mini_batch_size=2, temperature=0.5),
    "cached": lambda model: losses.CachedContrastive(model, mini_batch_size=3, score_mini_batch_size=2),
    "distillation": lambda model: losses.Distillation(model),
}


@pytest.mark.parametrize("do_query_expansion", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_with_the_patch(calls, loss, do_query_expansion):
    """Built before the patch, or with scores bound as a default: reached all the same. Dropout is on."""
    if loss == "distillation":
        inputs = [features(5, 4, seed=1), features(5 * 3, 6, seed=2)]
        labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    else:
        inputs, labels = [features(5, 4, seed=1), features(5, 6, seed=2), features(5, 6, seed=3)], None
    found = []
    for patched in (False, True):
        model = Model(do_query_expansion, dropout=0.2)
        function = LOSSES[loss](model)
        torch.manual_seed(1)
        calls.clear()
        if patched:
            with ours.patch():
                value = function(inputs, labels)
                value.backward()
            assert calls == []
        else:
            value = function(inputs, labels)
            value.backward()
            assert calls != []
        found.append([value, *(parameter.grad for parameter in model.parameters())])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)


def test_re_ranking_and_pairs_with_the_patch(calls):
    queries = [embeddings(3, 16).detach().numpy()]
    documents = [[embeddings(length, 16, seed=length).detach().numpy() for length in (4, 2, 6)]]
    plain = rank.rerank([["a", "b", "c"]], queries, documents, device="cpu")
    pairs = theirs.colbert_scores_pairwise(torch.tensor(queries[0])[None], torch.tensor(documents[0][0])[None])
    calls.clear()
    with ours.patch():
        fused = rank.rerank([["a", "b", "c"]], queries, documents, device="cpu")
        again = theirs.colbert_scores_pairwise(torch.tensor(queries[0])[None], torch.tensor(documents[0][0])[None])
    assert calls == []
    assert [hit["id"] for hit in fused[0]] == [hit["id"] for hit in plain[0]]
    np.testing.assert_allclose([hit["score"] for hit in fused[0]], [hit["score"] for hit in plain[0]], rtol=1e-5)
    torch.testing.assert_close(again, pairs)


def test_the_patch_can_be_undone_and_their_torch_stays_theirs(calls):
    before = chooser._try_lik
    queries, documents = embeddings(2, 3, 16), embeddings(2, 4, 16, seed=1)
    switch = ours.patch()
    theirs.colbert_scores(queries, documents)
    assert calls == []
    theirs.colbert_scores(queries, documents, backend="torch")
    assert calls != []
    switch.undo()
    assert chooser._try_lik is before
    calls.clear()
    theirs.colbert_scores(queries, documents)
    assert calls != []


@pytest.mark.parametrize("kind", ["XTRScores", "XTRKDScores"])
@pytest.mark.parametrize("masked", ["none", "documents", "both"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_xtr_with_the_patch(kind, masked, k):
    """Made before the patch."""
    score = getattr(importlib.import_module("pylate.scores.xtr"), kind)(k)
    masks = {} if masked == "none" else {"documents_mask": mask(4, 3, 9)}
    if masked == "both":
        masks["queries_mask"] = mask(4, 5)
    found = []
    for patched in (False, True):
        queries, documents = embeddings(4, 5, 16), embeddings(4, 3, 9, 16, seed=1)
        switch = ours.patch() if patched else None
        scores = score(queries, documents, **masks)
        if switch:
            switch.undo()
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, queries.grad, documents.grad))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 100])
@pytest.mark.parametrize("protected", [0, 1])
def test_pooling_with_the_patch(factor, protected):
    """The same means, in another order."""
    documents = [embeddings(length, 16, seed=length).detach() for length in (1, 2, 9, 40)]
    pool = importlib.import_module("pylate.models").ColBERT.pool_embeddings_hierarchical
    plain = pool(None, documents, factor, protected)
    with ours.patch():
        fused = importlib.import_module("pylate.models").ColBERT.pool_embeddings_hierarchical(
            None, documents, factor, protected
        )
    for left, right in zip(fused, plain, strict=True):
        torch.testing.assert_close(left[left[:, 0].argsort()], right[right[:, 0].argsort()])


@pytest.mark.parametrize("kind", ["ColBERTScores", "XTRScores", "colbert_kd_scores"])
def test_documents_are_scored_by_their_codes(kind):
    """Whatever turns documents into those that codes give back."""

    def halved(documents):
        return documents / 2

    score = theirs.colbert_kd_scores if kind == "colbert_kd_scores" else getattr(theirs, kind)()
    queries, documents = embeddings(4, 5, 16), embeddings(4, 3, 9, 16, seed=1)
    with ours.patch(halved):
        found = score(queries, documents)
    with ours.patch():
        torch.testing.assert_close(found, score(queries, documents / 2))
