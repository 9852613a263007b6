import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import losses  # noqa: E402

INF = float("inf")


def random_scores(n_queries, n_documents, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_queries, n_documents, generator=generator, dtype=torch.float64)


def written_out(scores, positives, temperature, ids, corpora, symmetric):
    """The formula of `losses.contrastive`, one number at a time."""
    rows = (scores / temperature).tolist()
    found = []
    for i, p in enumerate(positives):
        negatives = [j for j in range(len(ids)) if ids[j] != ids[p] and corpora[j] == corpora[p]]
        loss = -math.log(math.exp(rows[i][p]) / sum(math.exp(rows[i][j]) for j in [p, *negatives]))
        if symmetric:
            others = [k for k, other in enumerate(positives) if ids[other] != ids[p] and corpora[other] == corpora[p]]
            reverse = -math.log(math.exp(rows[i][p]) / sum(math.exp(rows[k][p]) for k in [i, *others]))
            loss = (loss + reverse) / 2
        found.append(loss)
    return np.array(found)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("corpora", [None, [0, 0, 1, 1, 0, 0, 1, 2]])
@pytest.mark.parametrize("ids", [None, [7, 3, 7, 5, 4, 3, 3, 9]])
@pytest.mark.parametrize("positives", [None, [5, 1, 1, 0, 7]])
def test_contrastive_is_the_formula(positives, ids, corpora, symmetric):
    scores = random_scores(5, 8)
    tensors = [None if x is None else torch.tensor(x) for x in (positives, ids, corpora)]
    options = dict(
        temperature=0.7, document_ids=tensors[1], document_corpora=tensors[2], symmetric=symmetric, reduction="none"
    )
    actual = losses.contrastive(scores, tensors[0], **options)
    expected = written_out(
        scores, positives or list(range(5)), 0.7, ids or list(range(8)), corpora or [0] * 8, symmetric
    )
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)
    options.pop("reduction")
    assert losses.contrastive(scores, tensors[0], **options).item() == pytest.approx(expected.mean())
    assert losses.contrastive(scores, tensors[0], reduction="sum", **options).item() == pytest.approx(expected.sum())


@pytest.mark.parametrize("symmetric", [False, True])
def test_contrastive_gradients(symmetric):
    scores = random_scores(4, 6).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    ids, corpora = torch.tensor([1, 2, 1, 4, 2, 6]), torch.tensor([0, 0, 0, 1, 0, 1])

    def loss(scores, temperature):
        return losses.contrastive(
            scores, temperature=temperature, document_ids=ids, document_corpora=corpora, symmetric=symmetric
        )

    assert torch.autograd.gradcheck(loss, (scores, temperature))


def test_what_is_no_candidate_gets_no_gradient_and_changes_nothing():
    scores = random_scores(3, 5)
    temperature = torch.tensor(0.5, requires_grad=True)
    longer = torch.cat([scores, torch.full((3, 2), -INF, dtype=torch.float64)], dim=1).requires_grad_()
    loss = losses.contrastive(longer, temperature=temperature, symmetric=True)
    assert loss.item() == losses.contrastive(scores, temperature=0.5, symmetric=True).item()
    loss.backward()
    assert longer.grad.isfinite().all() and not longer.grad[:, 5:].any()
    assert temperature.grad.isfinite()


def test_a_query_without_negatives_costs_nothing():
    scores = random_scores(2, 2)
    assert losses.contrastive(scores, document_corpora=torch.tensor([0, 1]), reduction="none").tolist() == [0.0, 0.0]


def test_queries_of_one_positive():
    """Two queries of one positive are no negatives of each other, told by ids or not."""
    scores = random_scores(2, 1)
    assert losses.contrastive(scores, torch.tensor([0, 0]), symmetric=True).item() == 0.0


def test_no_queries():
    """As on a rank that got none of the last batch."""
    for loss in (losses.contrastive, losses.pairwise, lambda s, **_: losses.kl_divergence(s, s, reduction="none")):
        scores = torch.zeros(0, 3, requires_grad=True)
        found = loss(scores, reduction="none")
        assert found.shape == (0,)
        found.sum().backward()
        assert scores.grad.shape == (0, 3)


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("hardest", [False, True])
@pytest.mark.parametrize("ids", [None, [7, 3, 7, 5, 4, 3, 3, 9]])
@pytest.mark.parametrize("positives", [None, [5, 1, 1, 0, 7]])
def test_pairwise_is_the_formula(positives, ids, hardest):
    scores = random_scores(5, 8)
    scores[1, 4] = scores[2, 0] = -INF
    rows, labels, expected = scores.tolist(), ids or list(range(8)), []
    for i, p in enumerate(positives or range(5)):
        negatives = [rows[i][j] for j in range(8) if labels[j] != labels[p] and rows[i][j] != -INF]
        negatives = [max(negatives)] if hardest else negatives
        expected.append(sum(softplus((s - rows[i][p]) / 0.7) for s in negatives) / len(negatives))
    tensors = [None if x is None else torch.tensor(x) for x in (positives, ids)]
    options = dict(temperature=0.7, document_ids=tensors[1], hardest=hardest)
    actual = losses.pairwise(scores, tensors[0], reduction="none", **options)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)
    assert losses.pairwise(scores, tensors[0], **options).item() == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("ids", [None, [7, 3, 7, 5, 4, 3, 3, 9]])
@pytest.mark.parametrize("positives", [None, [5, 1, 1, 0, 7]])
def test_sigmoid_is_the_formula(positives, ids):
    scores = random_scores(5, 8)
    scores[1, 4] = -INF
    rows, labels, expected = scores.tolist(), ids or list(range(8)), np.zeros((5, 8))
    for i, p in enumerate(positives or range(5)):
        for j in range(8):
            z = 1 if labels[j] == labels[p] else -1
            expected[i, j] = 0.0 if rows[i][j] == -INF else softplus(-z * (rows[i][j] / 0.7 - 0.3))
    tensors = [None if x is None else torch.tensor(x) for x in (positives, ids)]
    options = dict(temperature=0.7, bias=-0.3, document_ids=tensors[1])
    actual = losses.sigmoid(scores, tensors[0], reduction="none", **options)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)
    assert losses.sigmoid(scores, tensors[0], **options).item() == pytest.approx(expected.sum() / 39)


@pytest.mark.parametrize("factor", [None, 0.5])
def test_filtered_negatives(factor):
    scores = random_scores(5, 8).requires_grad_()
    positives, ids = torch.tensor([5, 1, 1, 0, 7]), torch.tensor([7, 3, 7, 5, 4, 3, 3, 9])
    found = losses.filter_negatives(scores, positives, threshold=0.8, factor=factor, document_ids=ids)
    gone = 0
    for i, p in enumerate(positives.tolist()):
        for j in range(8):
            high = ids[j] != ids[p] and scores[i, j] > 0.8 * scores[i, p]
            gone += int(high)
            kept = scores[i, j] if not high else -INF if factor is None else factor * scores[i, j]
            assert found[i, j] == kept
    assert 0 < gone < 40
    losses.contrastive(found, positives, document_ids=ids).backward()
    assert scores.grad.isfinite().all()
    assert factor is not None or not scores.grad[torch.isneginf(found)].any()


@pytest.mark.parametrize(
    "loss", [losses.pairwise, lambda *a, **k: losses.pairwise(*a, hardest=False, **k), losses.sigmoid]
)
def test_gradients_of_losses_of_pairs(loss):
    scores = random_scores(4, 6)
    scores[0, 3] = -INF
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 2, 1, 4, 2, 6])
    free = torch.isfinite(scores)
    leaf = scores.where(free, 0).requires_grad_()
    run = lambda leaf, temperature: loss(  # noqa: E731
        leaf.masked_fill(~free, -INF), temperature=temperature, document_ids=ids
    )
    assert torch.autograd.gradcheck(run, (leaf, temperature))


def test_pairwise_without_negatives():
    scores = random_scores(2, 2).requires_grad_()
    found = losses.pairwise(scores, document_ids=torch.tensor([1, 1]), reduction="none")
    assert found.tolist() == [0.0, 0.0]
    found.sum().backward()
    assert not scores.grad.any()


def kl_written_out(student, teacher, temperature):
    found = []
    for s, t in zip((student / temperature).tolist(), (teacher / temperature).tolist(), strict=True):
        present = [k for k in range(len(t)) if t[k] != -INF]
        sum_s, sum_t = (sum(math.exp(x[k]) for k in present) for x in (s, t))
        p = {k: math.exp(t[k]) / sum_t for k in present}
        found.append(temperature**2 * sum(p[k] * math.log(p[k] / (math.exp(s[k]) / sum_s)) for k in present))
    return np.array(found)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("absent", [False, True])
def test_kl_divergence_is_the_formula(temperature, absent):
    student, teacher = random_scores(4, 6), random_scores(4, 6, seed=1)
    if absent:
        teacher[1, 2:] = teacher[3, 0] = student[1, 3] = -INF
    student.requires_grad_()
    expected = kl_written_out(student.detach(), teacher, temperature)
    for reduction, reduced in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        actual = losses.kl_divergence(student, teacher, temperature=temperature, reduction=reduction)
        np.testing.assert_allclose(actual.detach().numpy(), reduced, rtol=1e-12)
    actual.backward()
    assert student.grad.isfinite().all() and not student.grad[torch.isneginf(teacher)].any()


def test_kl_divergence_is_batchmean():
    student, teacher = random_scores(4, 6), random_scores(4, 6, seed=1)
    plain = torch.nn.functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.kl_divergence(student, teacher), plain)


@pytest.mark.parametrize("absent", [False, True])
def test_margin_mse_is_the_formula(absent):
    student, teacher = random_scores(4, 3), random_scores(4, 3, seed=1)
    if absent:
        teacher[2, 1] = student[2, 1] = -INF
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = np.array(
        [[0.0 if t[k] == -INF else ((s[0] - s[k]) - (t[0] - t[k])) ** 2 for k in (1, 2)] for s, t in rows]
    )
    count = 7 if absent else 8
    student.requires_grad_()
    for reduction, reduced in (("none", expected), ("mean", expected.sum() / count), ("sum", expected.sum())):
        actual = losses.margin_mse(student, teacher, reduction=reduction)
        np.testing.assert_allclose(actual.detach().numpy(), reduced, rtol=1e-12)
    actual.backward()
    assert student.grad.isfinite().all() and not student.grad[torch.isneginf(teacher)].any()


@pytest.mark.parametrize(
    "loss", [losses.margin_mse, losses.kl_divergence, lambda s, t: losses.kl_divergence(s, t, temperature=3.0)]
)
def test_distillation_gradients(loss):
    student, teacher = random_scores(4, 5).requires_grad_(), random_scores(4, 5, seed=1).requires_grad_()
    teacher.data[1, 3] = -INF
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_scores_are_computed_in_float32(dtype):
    scores = (random_scores(4, 6) * 5).to(dtype).requires_grad_()
    teacher = random_scores(4, 6, seed=1).to(dtype)
    for loss in (
        lambda s: losses.contrastive(s, temperature=0.05),
        lambda s: losses.kl_divergence(s, teacher),
        lambda s: losses.margin_mse(s, teacher),
    ):
        actual = loss(scores)
        assert actual.dtype == torch.float32
        assert actual.item() == pytest.approx(loss(scores.double()).item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(actual, scores)
        assert gradient.dtype == dtype


SCORES = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.contrastive(SCORES.long()), TypeError, "scores must be floating, got torch.int64"),
        (lambda: losses.contrastive(SCORES[0]), ValueError, r"scores must be \[Nq, Nd\] with Nd >= 1, got \(3,\)"),
        (lambda: losses.contrastive(SCORES[:, :0]), ValueError, r"scores must be .* Nd >= 1, got \(2, 0\)"),
        (lambda: losses.contrastive(SCORES[:0]), ValueError, "scores of no query have no mean"),
        (lambda: losses.kl_divergence(SCORES[:0], SCORES[:0]), ValueError, "scores of no query have no mean"),
        (lambda: losses.margin_mse(SCORES[:0], SCORES[:0]), ValueError, "scores of no query have no mean"),
        (lambda: losses.contrastive(SCORES.T), ValueError, r"a column for each query's positive, got \(3, 2\)"),
        (lambda: losses.contrastive(SCORES, SCORES[:, 0]), TypeError, "positives must be integers, got torch.float32"),
        (lambda: losses.contrastive(SCORES, torch.tensor([1])), ValueError, r"positives must be \[2\], got \(1,\)"),
        (lambda: losses.contrastive(SCORES, torch.tensor([0, 3])), ValueError, "columns from 0 to 2, got 0 to 3"),
        (lambda: losses.contrastive(SCORES, torch.tensor([-1, 0])), ValueError, "columns from 0 to 2, got -1 to 0"),
        (
            lambda: losses.contrastive(SCORES, document_ids=torch.tensor([1, 2])),
            ValueError,
            r"document_ids must be \[3\], got \(2,\)",
        ),
        (
            lambda: losses.contrastive(SCORES, document_corpora=torch.tensor([True, False, True])),
            TypeError,
            "document_corpora must be integers, got torch.bool",
        ),
        (lambda: losses.contrastive(SCORES, temperature=0.0), ValueError, "temperature must be positive, got 0.0"),
        (
            lambda: losses.contrastive(SCORES, reduction="batchmean"),
            ValueError,
            "reduction must be one of mean, sum, none, got 'batchmean'",
        ),
        (lambda: losses.kl_divergence(SCORES, SCORES[:1]), ValueError, r"one shape, got \(2, 3\) and \(1, 3\)"),
        (lambda: losses.kl_divergence(SCORES, SCORES, temperature=-1), ValueError, "temperature must be positive"),
        (lambda: losses.kl_divergence(SCORES, SCORES, reduction="x"), ValueError, "reduction must be one of"),
        (lambda: losses.margin_mse(SCORES.int(), SCORES), TypeError, "scores must be floating, got torch.int32"),
        (lambda: losses.margin_mse(SCORES[:, :1], SCORES[:, :1]), ValueError, r"with K >= 1 negatives, got \(2, 1\)"),
        (lambda: losses.margin_mse(SCORES, SCORES, reduction="x"), ValueError, "reduction must be one of"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
