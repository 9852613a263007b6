"""The adapter for colpali-engine against it, where it is installed: see ``python -m benchmarks.adapters.run``."""

import importlib
import warnings

import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("colpali_engine", reason="colpali-engine is not installed")
    from colpali_engine import loss as losses
    from colpali_engine.utils import maxsim as theirs
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

from lateint_kernels.adapters import colpali as ours  # noqa: E402


def embeddings(*shape, seed=0, shift=0.0, padding=0):
    """Normalised tokens with zeros after them; the leaf, and what is made of it."""
    generator = torch.Generator().manual_seed(seed)
    leaf = (torch.randn(*shape, generator=generator) + shift).requires_grad_()
    tokens = torch.nn.functional.normalize(leaf, dim=-1)
    present = torch.ones(shape[-2])
    present[shape[-2] - padding :] = 0
    return leaf, tokens * present[:, None]


@pytest.fixture
def calls(monkeypatch):
    """Which einsums were used: theirs for a matrix of scores have four letters in the result."""
    made = []
    original = torch.einsum
    monkeypatch.setattr(torch, "einsum", lambda *a, **k: made.append(a[0].split("->")[1]) or original(*a, **k))
    return made


@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["any", "all-negative"])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize(
    ("plain", "fused", "shape"),
    [(theirs._torch_maxsim, ours.maxsim_inbatch, (6, 9, 16)), (theirs._torch_maxsim_kd, ours.maxsim_kd, (4, 5, 9, 16))],
    ids=["inbatch", "kd"],
)
def test_scores_and_gradients(plain, fused, shape, padding, shift):
    """Padding is zero and wins where all similarities are negative, there as here."""
    found = []
    for function in (plain, fused):
        query_leaf, queries = embeddings(4, 5, 16, shift=shift, padding=min(padding, 2))
        document_leaf, documents = embeddings(*shape, seed=1, shift=-shift, padding=padding)
        scores = function(queries, documents)
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, query_leaf.grad, document_leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("batch_size", [2, 128])
def test_score_multi_vector(calls, batch_size):
    lists = [
        [embeddings(length, 16, seed=length, shift=shift)[1].detach() for length in lengths]
        for lengths, shift in (((3, 1, 5), 1.0), ((7, 2, 4, 9, 1), -1.0))
    ]
    plain = BaseVisualRetrieverProcessor.score_multi_vector(*lists, batch_size=batch_size, device="cpu")
    assert calls != []
    calls.clear()
    fused = ours.score_multi_vector(*lists, batch_size=batch_size, device="cpu")
    assert calls == [] and fused.dtype == torch.float32
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    padded = torch.stack([lists[0][0]] * 2)
    torch.testing.assert_close(
        ours.score_multi_vector(padded, padded, device="cpu"),
        BaseVisualRetrieverProcessor.score_multi_vector(padded, padded, device="cpu"),
    )
    with pytest.raises(ValueError, match="No queries provided"):
        ours.score_multi_vector([], lists[1])


LOSSES = {
    "ColbertLoss": lambda: losses.ColbertLoss(),
    "ColbertLoss-filtered": lambda: losses.ColbertLoss(pos_aware_negative_filtering=True),
    "ColbertPairwiseCELoss": lambda: losses.ColbertPairwiseCELoss(),
    "ColbertSigmoidLoss": lambda: losses.ColbertSigmoidLoss(),
    "ColbertLoss-smooth": lambda: losses.ColbertLoss(use_smooth_max=True, tau=0.2),
    "ColbertPairwiseCELoss-smooth": lambda: losses.ColbertPairwiseCELoss(use_smooth_max=True, normalize_scores=False),
    "ColbertSigmoidLoss-smooth": lambda: losses.ColbertSigmoidLoss(use_smooth_max=True),
    "ColbertNegativeCELoss": lambda: losses.ColbertNegativeCELoss(),
    "ColbertPairwiseNegativeCELoss": lambda: losses.ColbertPairwiseNegativeCELoss(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_with_the_patch(calls, loss):
    found = []
    for patched in (False, True):
        function = LOSSES[loss]()
        leaves, inputs = zip(
            embeddings(4, 5, 16, shift=0.5, padding=2),
            embeddings(4, 9, 16, seed=1, shift=0.5, padding=1),
            embeddings(4, 2, 7, 16, seed=2, shift=0.5),
            strict=True,
        )
        if "Negative" not in loss:
            leaves, inputs = leaves[:2], inputs[:2]
        calls.clear()
        if patched:
            with ours.patch():
                value = function(*inputs)
        else:
            value = function(*inputs)
        assert any(len(result) == 4 for result in calls) != patched
        value.backward()
        found.append([value, *(leaf.grad for leaf in leaves)])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_the_patch_can_be_undone_and_their_torch_stays_theirs(calls, monkeypatch):
    queries, documents = embeddings(2, 3, 16)[1], embeddings(2, 4, 16, seed=1)[1]
    switch = ours.patch()
    theirs.maxsim_inbatch(queries, documents)
    assert calls == []
    monkeypatch.setenv("COLPALI_SCORES_BACKEND", "torch")
    theirs.maxsim_inbatch(queries, documents)
    assert calls != []
    monkeypatch.delenv("COLPALI_SCORES_BACKEND")
    switch.undo()
    calls.clear()
    theirs.maxsim_inbatch(queries, documents)
    assert calls != []


@pytest.mark.parametrize("factor", [1, 2, 3, 100])
def test_pooling_with_the_patch(factor):
    """The same clusters and means, in another order."""
    pooler = importlib.import_module("colpali_engine.compression.token_pooling").HierarchicalTokenPooler()
    pages = [embeddings(length, 16, seed=length)[1].detach() for length in (2, 9, 40)]
    plain = pooler.pool_embeddings(pages, pool_factor=factor, return_dict=True)
    with ours.patch():
        fused = pooler.pool_embeddings(pages, pool_factor=factor, return_dict=True)
    for left, right in zip(fused.pooled_embeddings, plain.pooled_embeddings, strict=True):
        torch.testing.assert_close(left[left[:, 0].argsort()], right[right[:, 0].argsort()])
    for left, right in zip(fused.cluster_id_to_indices, plain.cluster_id_to_indices, strict=True):
        assert {tuple(x[0].tolist()) for x in left.values()} == {tuple(x[0].tolist()) for x in right.values()}


@pytest.mark.parametrize("smooth", [False, True])
def test_documents_are_scored_by_their_codes(smooth):
    """Whatever turns documents into those that codes give back."""

    def halved(documents):
        return documents / 2

    queries, documents = embeddings(4, 5, 16)[1], embeddings(4, 7, 16, seed=1)[1]
    loss = losses.ColbertLoss(use_smooth_max=smooth)
    with ours.patch(halved):
        found = loss._inbatch_scores(queries, documents)
    with ours.patch():
        torch.testing.assert_close(found, loss._inbatch_scores(queries, documents / 2))
