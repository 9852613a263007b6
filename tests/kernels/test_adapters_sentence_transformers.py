"""The adapter for sentence-transformers against it, where it is installed (``python -m benchmarks.adapters.run``)."""

import importlib
import warnings

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers.multi_vector_encoder", reason="sentence-transformers 6 is not installed")
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder import losses, scoring
    from sentence_transformers.util import similarity as theirs

from lateint_kernels.adapters import sentence_transformers as ours  # noqa: E402


class Model(torch.nn.Module):
    """As much of a multi-vector model as its losses use; random."""

    def __init__(self, dropout):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(40, 16)
        self.dropout = torch.nn.Dropout(dropout)
        self.linear = torch.nn.Linear(16, 8)

    def forward(self, features, task=None):
        tokens = self.linear(self.dropout(self.embedding(features["input_ids"])))
        return {**features, "token_embeddings": torch.nn.functional.normalize(tokens, dim=-1)}


def features(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return {
        "input_ids": torch.randint(0, 40, (rows, length), generator=generator),
        "attention_mask": (torch.arange(length) < lengths).long(),
    }


def embeddings(*shape, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator) + shift, dim=-1).requires_grad_()


def mask(*shape, seed=7):
    found = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.4
    found[..., 0] = True
    return found


@pytest.fixture
def calls(monkeypatch):
    """How often an einsum of theirs has been used."""
    made = []
    original = torch.einsum
    monkeypatch.setattr(torch, "einsum", lambda *a, **k: made.append(a[0]) or original(*a, **k))
    return made


FUNCTIONS = {
    "maxsim": (theirs.maxsim, ours.maxsim, (6, 9, 16)),
    "pairwise": (theirs.maxsim_pairwise, ours.maxsim_pairwise, (4, 9, 16)),
    "scores": (scoring.colbert_scores, ours.colbert_scores, (4, 3, 9, 16)),
    "kd": (scoring.colbert_kd_scores, ours.colbert_kd_scores, (4, 3, 9, 16)),
    "scores-pairwise": (scoring.colbert_scores_pairwise, ours.colbert_scores_pairwise, (4, 9, 16)),
}


@pytest.mark.parametrize("length_normalize", [False, True])
@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["any", "all-negative"])
@pytest.mark.parametrize("masked", ["none", "documents", "both"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_and_gradients(calls, name, masked, shift, length_normalize):
    their_function, our_function, shape = FUNCTIONS[name]
    masks = [mask(4, 5) if masked == "both" else None, None if masked == "none" else mask(*shape[:-1])]
    found = []
    for function in (their_function, our_function):
        queries, documents = embeddings(4, 5, 16, shift=shift), embeddings(*shape, seed=1, shift=-shift)
        calls.clear()
        scores = function(queries, documents, *masks, length_normalize=length_normalize)
        assert (calls == []) == (function is our_function)
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, queries.grad, documents.grad))
    for plain, fused in zip(*found, strict=True):
        assert fused.dtype == plain.dtype
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


def test_weights_lists_arrays_and_chunks():
    queries = [embeddings(length, 16, seed=length).detach() for length in (3, 1, 5)]
    documents = [embeddings(length, 16, seed=10 + length).detach() for length in (7, 2, 4)]
    weights = torch.tensor([[1.0, 0.5, 0.0, 0, 0], [2.0, 0, 0, 0, 0], [1.0, 1, 1, 0.25, 1]])
    for options in ({}, {"a_mask": weights}, {"chunk_elements": 100}, {"length_normalize": True}):
        for one, other in ((theirs.maxsim, ours.maxsim), (theirs.maxsim_pairwise, ours.maxsim_pairwise)):
            torch.testing.assert_close(other(queries, documents, **options), one(queries, documents, **options))
    numbers = [[x.numpy() for x in side] for side in (queries, documents)]
    torch.testing.assert_close(ours.maxsim(*numbers), theirs.maxsim(*numbers))
    assert ours.maxsim([], documents).shape == (0, 3)


def test_documents_without_tokens():
    queries, documents = embeddings(2, 3, 16), embeddings(4, 5, 16, seed=1)
    present = mask(4, 5)
    present[2] = False
    plain, fused = (f(queries, documents, b_mask=present) for f in (theirs.maxsim, ours.maxsim))
    torch.testing.assert_close(fused, plain)
    assert fused[:, 2].tolist() == [-1e9, -1e9]
    (gradient,) = torch.autograd.grad(fused.sum(), documents)
    assert gradient.isfinite().all() and not gradient[2].any()
    none = [torch.zeros(0, 16), torch.zeros(0, 16)]
    torch.testing.assert_close(ours.maxsim(queries, none), theirs.maxsim(queries, none))
    torch.testing.assert_close(ours.maxsim_pairwise(queries, none), theirs.maxsim_pairwise(queries, none))


def test_half_precision_scores_are_not_worse():
    queries, documents = embeddings(4, 5, 16).detach(), embeddings(6, 9, 16, seed=1).detach()
    exact = theirs.maxsim(queries.bfloat16().double(), documents.bfloat16().double()).double()
    plain, fused = (f(queries.bfloat16(), documents.bfloat16()) for f in (theirs.maxsim, ours.maxsim))
    assert (fused - exact).abs().max() <= (plain - exact).abs().max() + 1e-6


LOSSES = {
    "ranking": lambda model: losses.MultiVectorMultipleNegativesRankingLoss(model),
    "ranking-mean": lambda model: losses.MultiVectorMultipleNegativesRankingLoss(
        model, scale=5.0, similarity_fct=scoring.mean_colbert_scores, score_mini_batch_size=2
    ),
    "cached": lambda model: losses.CachedMultiVectorMultipleNegativesRankingLoss(
        model, mini_batch_size=3, score_mini_batch_size=2
    ),
    "distillation": lambda model: losses.MultiVectorDistillKLDivLoss(model),
    "margins": lambda model: losses.MultiVectorMarginMSELoss(model),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_with_the_patch(calls, loss):
    labels = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    found = []
    for patched in (False, True):
        model = Model(dropout=0.2)
        function = LOSSES[loss](model)
        inputs = [features(5, 4, seed=1), features(5, 6, seed=2), features(5, 7, seed=3)]
        torch.manual_seed(1)
        calls.clear()
        switch = ours.patch() if patched else None
        value = function(inputs, labels)
        value.backward()
        if switch:
            switch.undo()
        assert (calls == []) == patched
        found.append([value, *(parameter.grad for parameter in model.parameters())])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_similarity_of_a_model_with_the_patch(calls, similarity):
    """A model that chose its similarity before the patch."""
    model = MultiVectorEncoder(modules=[Model(0.0)], device="cpu", similarity_fn_name=similarity)
    queries, documents = embeddings(3, 4, 16).detach(), embeddings(3, 6, 16, seed=1).detach()
    plain = model.similarity(queries, documents), model.similarity_pairwise(queries, documents)
    calls.clear()
    with ours.patch():
        fused = model.similarity(queries, documents), model.similarity_pairwise(queries, documents)
    assert calls == []
    torch.testing.assert_close(fused, plain)
    model.similarity(queries, documents)
    assert calls != []


@pytest.mark.parametrize("kind", ["XTRScores", "XTRKDScores"])
@pytest.mark.parametrize("masked", ["none", "documents", "both"])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_xtr_with_the_patch(kind, masked, k):
    """Made before the patch; rows of zeros are padding where there is no mask."""
    score = getattr(scoring, kind)(k)
    masks = {} if masked == "none" else {"documents_mask": mask(4, 3, 9)}
    if masked == "both":
        masks["queries_mask"] = mask(4, 5)
    found = []
    for patched in (False, True):
        leaves = embeddings(4, 5, 16), embeddings(4, 3, 9, 16, seed=1)
        queries, documents = leaves
        if not masks:
            queries, documents = (x * mask(*x.shape[:-1], seed=3)[..., None] for x in leaves)
        switch = ours.patch() if patched else None
        scores = score(queries, documents, **masks)
        if switch:
            switch.undo()
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, *(leaf.grad for leaf in leaves)))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


def test_xtr_of_a_document_without_tokens():
    queries, documents, present = embeddings(2, 3, 16), embeddings(2, 2, 5, 16, seed=1), mask(2, 2, 5)
    present[1, 0] = False
    plain, fused = (f(queries, documents, None, present, 6) for f in (scoring.xtr_scores, ours.xtr_scores))
    torch.testing.assert_close(fused, plain)
    assert fused[:, 2].tolist() == [-1e9, -1e9]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("factor", [1.5, 3, 100])
def test_pooling_with_the_patch(factor, normalize):
    """The same means and gradients, in another order of clusters."""
    module = importlib.import_module("sentence_transformers.multi_vector_encoder.modules.token_pooling")
    pooling = module.HierarchicalTokenPooling(factor, num_protected_tokens=1, normalize_embeddings=normalize)
    for length in (1, 2, 9, 40):
        found = []
        for patched in (False, True):
            tokens = embeddings(length, 16, seed=length)
            switch = ours.patch() if patched else None
            pooled = pooling.pool_one(tokens)
            if switch:
                switch.undo()
            pooled = pooled[pooled[:, 0].argsort()]
            (pooled * torch.arange(pooled.numel()).view_as(pooled)).sum().backward()
            found.append((pooled, tokens.grad))
        for plain, fused in zip(*found, strict=True):
            torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["maxsim", "pairwise", "kd"])
def test_documents_are_scored_by_their_codes(name):
    """Whatever turns documents into those that codes give back."""

    def halved(documents):
        return documents / 2

    score, _, shape = FUNCTIONS[name]
    queries, documents = embeddings(4, 5, 16), embeddings(*shape, seed=1)
    with ours.patch(halved):
        found = score(queries, documents)
    with ours.patch():
        torch.testing.assert_close(found, score(queries, documents / 2))
