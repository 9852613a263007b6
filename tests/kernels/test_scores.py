"""XTR and the smooth maximum: against their definitions, and their gradients against torch's own."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import RaggedTensor, maxsim, reference, scores  # noqa: E402
from lateint_kernels.backends import BackendError  # noqa: E402
from lateint_kernels.dense import torch as plain  # noqa: E402

LENGTHS = (1, 7, 4, 12, 3), (5, 1, 9)  # of documents and of queries


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def tokens(rng, lengths, dim=24, dtype=torch.float32):
    return [torch.from_numpy(rng.standard_normal((length, dim)).astype(np.float32)).to(dtype) for length in lengths]


def padded(matrices):
    """Tokens ``[n, L, dim]``, NaN where there is none, and their mask."""
    whole = torch.nn.utils.rnn.pad_sequence(matrices, batch_first=True, padding_value=float("nan"))
    lengths = torch.tensor([len(matrix) for matrix in matrices])
    return whole, torch.arange(whole.shape[1]) < lengths[:, None]


def arrays(matrices):
    return [matrix.double().numpy() for matrix in matrices]


SCORES = {
    "xtr": (lambda q, d, **given: scores.xtr(q, d, 6, **given), lambda q, d: reference.xtr(q, d, 6)),
    "imputed": (
        lambda q, d, **given: scores.xtr(q, d, 6, impute=True, **given),
        lambda q, d: reference.xtr(q, d, 6, impute=True),
    ),
    "smooth": (
        lambda q, d, **given: scores.smooth_maxsim(q, d, 0.5, **given),
        lambda q, d: reference.smooth_maxsim(q, d, 0.5),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_the_definition(rng, device, name, dtype):
    """Packed and padded tokens alike, whatever padding holds."""
    documents, queries = (tokens(rng, lengths, dtype=dtype) for lengths in LENGTHS)
    score, definition = SCORES[name]
    expected = definition(arrays(queries), arrays(documents))
    (q, query_mask), (d, document_mask) = padded(queries), padded(documents)
    on = [x.to(device) for x in (q, d, query_mask, document_mask)]
    for found in (
        score([x.to(device) for x in queries], RaggedTensor.pack([x.to(device) for x in documents])),
        score(on[0], on[1], query_mask=on[2], document_mask=on[3]),
    ):
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-5, atol=1e-5)
    one = score(queries[2].to(device), [x.to(device) for x in documents])
    assert one.shape == (len(documents),)


@pytest.mark.parametrize("k", [1, 2, 5, 26, 27, 1000])
@pytest.mark.parametrize("impute", [False, True])
def test_xtr_finds_k_tokens(rng, k, impute):
    documents, queries = (tokens(rng, lengths) for lengths in LENGTHS)
    found = scores.xtr(queries, documents, k, impute=impute)
    expected = reference.xtr(arrays(queries), arrays(documents), k, impute=impute)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_xtr_of_all_tokens_is_the_mean_of_maxima(backend, rng, device):
    documents, queries = ([x.to(device) for x in tokens(rng, lengths)] for lengths in LENGTHS)
    lengths = torch.tensor(LENGTHS[1], device=device)
    found = scores.xtr(queries, documents, sum(LENGTHS[0]), backend=backend)
    torch.testing.assert_close(found, maxsim(queries, documents, backend=backend) / lengths[:, None])


@pytest.mark.parametrize("name", SCORES)
def test_the_size_of_blocks_changes_nothing(rng, name, monkeypatch):
    documents, queries = tokens(rng, [40] * 30), tokens(rng, [8] * 20)
    score, _ = SCORES[name]

    def run():
        leaves = [torch.stack(side).requires_grad_() for side in (queries, documents)]
        found = score(*leaves)
        return [found, *torch.autograd.grad(found.square().sum(), leaves)]

    expected = run()
    monkeypatch.setitem(plain.BUDGET, "cpu", 1000)
    for left, right in zip(run(), expected, strict=True):
        assert (left - right).abs().max() <= 1e-5 * right.abs().max()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", ["xtr", "smooth"])  # what is imputed has no gradient
def test_gradients_by_finite_differences(rng, name, normalize):
    leaves = [torch.cat(tokens(rng, lengths, 6, torch.float64)).requires_grad_() for lengths in LENGTHS[::-1]]
    mask = torch.arange(27) % 5 != 2
    mask[0] = True

    def run(left, right):
        sides = RaggedTensor.from_lengths(left, LENGTHS[1]), RaggedTensor.from_lengths(right, LENGTHS[0])
        return SCORES[name][0](*sides, document_mask=mask, normalize=normalize)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_weights_of_the_smooth_maximum(rng):
    documents, queries = (torch.stack(tokens(rng, [5] * 4, 8, torch.float64)) for _ in range(2))
    weights = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5).masked_fill(torch.eye(4, 5) == 1, 0)
    free = weights != 0

    def run(weights):
        return scores.smooth_maxsim(queries, documents, 0.3, query_weights=weights.where(free, 0))

    exact = 0.3 * torch.einsum("ash,bth->abst", queries, documents).div(0.3).logsumexp(3)
    torch.testing.assert_close(run(weights), (exact * weights[:, None]).sum(2))
    assert torch.autograd.gradcheck(run, weights.requires_grad_(), fast_mode=True)


def test_the_smooth_maximum_is_between_bounds(rng):
    documents, queries = (torch.stack(tokens(rng, [9] * 4)) for _ in range(2))
    hard = maxsim(queries, documents)
    for temperature in (1.0, 0.1, 1e-3):
        above = scores.smooth_maxsim(queries, documents, temperature) - hard
        assert (above > -1e-3).all() and (above <= 9 * temperature * np.log(9) + 1e-3).all()


def test_numbers_too_large_for_exp():
    queries, documents = torch.tensor([[[300.0], [-300.0]]]), torch.tensor([[[300.0], [299.0]]])
    leaves = [x.requires_grad_() for x in (queries, documents)]
    found = scores.smooth_maxsim(*leaves, temperature=0.1)
    torch.testing.assert_close(found, maxsim(*leaves))
    assert all(x.isfinite().all() for x in torch.autograd.grad(found.sum(), leaves))


@pytest.mark.parametrize("name", SCORES)
def test_a_document_without_tokens(rng, name):
    documents, queries = (torch.stack(tokens(rng, [5] * 4)) for _ in range(2))
    mask = torch.ones(4, 5)
    mask[1] = 0
    leaves = [x.requires_grad_() for x in (queries, documents)]
    with pytest.raises(ValueError, match="document_mask must leave every document a token, but document 1 has none"):
        SCORES[name][0](*leaves, document_mask=mask)
    found = SCORES[name][0](*leaves, document_mask=mask, check=False)
    assert found[:, 1].isneginf().all() and found[:, [0, 2, 3]].isfinite().all()
    gradients = torch.autograd.grad(found[:, [0, 2, 3]].sum(), leaves)
    assert all(x.isfinite().all() for x in gradients) and (gradients[1][1] == 0).all()


def test_nothing_to_score():
    for score, _ in SCORES.values():
        assert score(torch.ones(2, 3, 8), torch.ones(0, 4, 8)).shape == (2, 0)
        assert score(torch.ones(0, 3, 8), torch.ones(2, 4, 8)).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q, d: scores.xtr(q, d, 0), ValueError, "k must be at least 1, got 0"),
        (lambda q, d: scores.xtr(q, d, 1.5), TypeError, "k must be an integer, got float"),
        (lambda q, d: scores.xtr(q, d[None], 2), ValueError, r"documents must be \[Nd, Ld, dim\]"),
        (lambda q, d: scores.xtr(q, d.numpy(), 2), TypeError, "must both be torch tensors or neither"),
        (lambda q, d: scores.smooth_maxsim(q, d, 0), ValueError, "temperature must be positive, got 0"),
        (lambda q, d: scores.smooth_maxsim(q, d[..., :4]), ValueError, "must share dim, got 8 and 4"),
        (lambda q, d: scores.smooth_maxsim(q.int(), d), TypeError, "queries must be float32"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ones(2, 3, 8), torch.ones(2, 4, 8))


@pytest.mark.parametrize("name", SCORES)
def test_compiled_into_one_graph(rng, name):
    leaves = [torch.stack(tokens(rng, [5] * 4)).requires_grad_() for _ in range(2)]

    def run(queries, documents):
        return SCORES[name][0](queries, documents, check=False)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for left, right in zip(
        (run(*leaves), *torch.autograd.grad(run(*leaves).sum(), leaves)),
        (compiled(*leaves), *torch.autograd.grad(compiled(*leaves).sum(), leaves)),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("name", SCORES)
def test_compiled_a_backend_is_refused_likewise(rng, name):
    leaves = [torch.stack(tokens(rng, [5] * 4, dtype=torch.float64)) for _ in range(2)]

    def run(queries, documents):
        return SCORES[name][0](queries, documents, check=False, backend="cpp")

    for ask in (run, torch.compile(run, backend="eager")):
        with pytest.raises(BackendError, match=r"cannot run .* of float64 on cpu: cpp: takes float32"):
            ask(*leaves)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_xtr_under_transforms(rng):
    """Forward-mode derivatives, and the gradients of functions."""
    queries, documents = (torch.stack(tokens(rng, [5] * 4, 8, torch.float32)) for _ in range(2))
    free = queries.clone().requires_grad_()
    (expected,) = torch.autograd.grad(scores.xtr(free, documents, 6).sum(), free)
    found = torch.func.grad(lambda x: scores.xtr(x, documents, 6).sum())(queries)
    torch.testing.assert_close(found, expected)
    direction = torch.ones_like(queries)
    _, forward = torch.func.jvp(lambda x: scores.xtr(x, documents, 6), (queries,), (direction,))
    torch.testing.assert_close(forward.sum(), (expected * direction).sum())


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_backends_agree(rng, name, dtype):
    documents, queries = (tokens(rng, lengths, dtype=dtype) for lengths in LENGTHS)
    mine, plain = (SCORES[name][0](queries, documents, backend=backend) for backend in ("cpp", "torch"))
    torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)
