"""Clusters of tokens are the same with every backend: those of C++, whose arithmetic the others repeat."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import BackendError, RaggedTensor, backends, pool, reference  # noqa: E402
from lateint_kernels.adapters import clusters as adapters  # noqa: E402
from lateint_kernels.dense import pooling  # noqa: E402
from lateint_kernels.dense.runs import LONGEST, Runs, blocks  # noqa: E402

LENGTHS = [1, 2, 3, 17, 0, 40, 9]


@pytest.fixture(params=["torch", pytest.param("triton", marks=pytest.mark.interpreted)])
def backend(request, device):
    """Those that are not C++."""
    if reason := backends.why_not(request.param, "cluster", device):
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def random_tokens(lengths=LENGTHS, dim=4, seed=0, whole=False):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((sum(lengths), dim))
    if whole:  # small integers: many tokens, and many distances, are equal
        return torch.from_numpy(np.round(tokens)).float()
    return torch.from_numpy(tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).float()


def runs_of(lengths, factor, cosine=False):
    return Runs(np.cumsum([0, *lengths]), np.array([-(-n // factor) for n in lengths]), cosine)


def as_cpp(tokens, runs, backend, device):
    found = pooling.clusters_of(tokens.to(device), runs, backend=backend)
    expected = pooling.clusters_of(tokens, runs, backend="cpp")
    assert found.dtype == torch.int64 and found.device.type == device
    return torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("factor", "whole", "cosine"), [(2, False, False), (3, True, False), (5, False, True), (16, True, True)]
)
def test_the_clusters_of_cpp(backend, device, factor, whole, cosine):
    assert as_cpp(random_tokens(seed=factor, whole=whole), runs_of(LENGTHS, factor, cosine), backend, device)


@pytest.mark.parametrize("cosine", [False, True])
def test_the_clusters_of_the_definition(backend, device, cosine):
    lengths = [1, 2, 17]
    tokens, runs = random_tokens(lengths, 3), runs_of(lengths, 4, cosine)
    found = pooling.clusters_of(tokens.to(device), runs, backend=backend).cpu()
    parts = zip(tokens.split(lengths), found.split(lengths), runs.counts.tolist(), strict=True)
    before = 0
    for x, labels, count in parts:
        x = x.double().numpy()
        expected = reference.clusters_by_distance(1 - x @ x.T, count) if cosine else reference.clusters(x, count)
        assert (labels - before).tolist() == expected
        before += count


def test_equal_tokens_are_merged_in_their_order(backend, device):
    """All costs are 0: the first two tokens become one, and that takes in the third."""
    found = pooling.clusters_of(torch.ones(12, 3, device=device), runs_of([12], 3), backend=backend)
    assert found.tolist() == [0] * 9 + [1, 2, 3]


def test_infinity_and_nan(backend, device):
    tokens = random_tokens([9, 12])
    tokens[[0, 5]], tokens[[9, 12, 20]] = torch.nan, torch.inf
    for cosine in (False, True):
        assert as_cpp(tokens, runs_of([9, 12], 3, cosine), backend, device)


def test_numbers_that_round(backend, device):
    """Sums in another order, or a product and a sum rounded once, would part tokens that C++ joins."""
    rng = np.random.default_rng(5)
    tokens = rng.standard_normal((1, 40)) + 3e-8 * rng.standard_normal((16, 40))  # differences are a few last bits
    for cosine in (False, True):
        assert as_cpp(torch.from_numpy(tokens.astype(np.float32)), runs_of([16], 2, cosine), backend, device)


def test_few_runs_at_a_time(backend, device, monkeypatch):
    """And tiles that do not end where runs do."""
    module = backends._module(backends.MODULES["cluster"][backend])
    budget = {"cpu": 200, "cuda": 200} if backend == "torch" else 200
    monkeypatch.setattr(module, "BUDGET", budget)
    if backend == "triton":
        monkeypatch.setattr(module, "SIDE", 16)
    lengths = [3, 9, 9, 8, 2]
    assert blocks(runs_of(lengths, 2).merging(), 200) == [(0, 2), (2, 5)]
    assert as_cpp(random_tokens(lengths), runs_of(lengths, 2), backend, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("protected", [0, 2])
def test_pooled_tensors(backend, device, dtype, protected):
    """Means and their gradients, those of the default."""
    lengths, found = [1, 2, 3, 17], []
    for name in (backend, None):
        tokens = random_tokens(lengths).to(device, dtype).requires_grad_()
        pooled = pool(RaggedTensor.from_lengths(tokens, lengths), 4, protected=protected, backend=name)
        weights = torch.arange(pooled.tokens.numel(), device=device).view_as(pooled.tokens)
        found.append([pooled.tokens, pooled.offsets, *torch.autograd.grad((pooled.tokens * weights).sum(), tokens)])
    for left, right in zip(*found, strict=True):
        assert torch.equal(left, right)


def test_the_same_bits_every_time(backend, device, strict):
    documents = RaggedTensor.from_lengths(random_tokens([20, 9]).to(device), [20, 9])
    first, second = (pool(documents, 3, backend=backend).tokens for _ in range(2))
    assert torch.equal(first, second)


def test_nothing_to_merge(backend, device):
    documents = RaggedTensor.from_lengths(random_tokens([1, 4]).to(device), [1, 4])
    assert torch.equal(pool(documents, 1, backend=backend).tokens, documents.tokens)
    assert torch.equal(pool(documents, 2, protected=9, backend=backend).tokens, documents.tokens)


def test_means_of_other_libraries(backend, device, monkeypatch):
    """Their adapters give means and gradients as by C++ where tensors are on a GPU."""
    lengths, counts = [9, 2, 12], [4, 1, 5]
    monkeypatch.setitem(backends.PREFERENCE, device, (backend,))
    backends.resolve.cache_clear()
    x = random_tokens(lengths).to(device)
    plain = adapters.pooled(x.split(lengths), counts)
    leaf = x.clone().requires_grad_()
    trained = adapters.pooled(leaf.split(lengths), counts)
    backends.resolve.cache_clear()
    expected = pooling.cluster_means(x.cpu().numpy(), np.cumsum([0, *lengths]), np.array(counts), cosine=True)
    for parts in (plain, trained):
        assert [len(part) for part in parts] == counts
        np.testing.assert_allclose(torch.cat(list(parts)).detach().cpu().numpy(), expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(sum(part.sum() for part in trained), leaf)
    found = pooling.clusters_of(x.cpu(), Runs(np.cumsum([0, *lengths]), np.array(counts), True)).to(device)
    torch.testing.assert_close(gradient[:, 0], (1 / found.bincount())[found])


def test_runs_longer_than_a_program_holds_are_left_to_torch(device, monkeypatch):
    """Which only other libraries ask for."""
    monkeypatch.setitem(backends.PREFERENCE, device, ("triton", "torch"))
    backends.resolve.cache_clear()
    tokens = torch.zeros(LONGEST + 1, 1, device=device)
    tokens[-1] = 1
    runs = Runs(np.array([0, LONGEST + 1]), np.array([LONGEST]))
    found = pooling.clusters_of(tokens, runs)
    backends.resolve.cache_clear()
    assert found.tolist() == [0, *range(LONGEST)]


def test_backends_that_cannot(device):
    documents = RaggedTensor.from_lengths(random_tokens([4]).to(device), [4])
    with pytest.raises(BackendError, match=f"cannot run cluster on {device}: cuda: has no cluster"):
        pool(documents, 2, backend="cuda")
    with pytest.raises(ValueError, match="backend must be one of cpp, cuda, torch, triton, got 'jax'"):
        pool(documents, 2, backend="jax")
    from lateint_kernels import Ragged

    arrays = Ragged.from_lengths(np.ones((4, 2), np.float32), [4])
    assert len(pool(arrays, 2, backend="cpp").tokens) == 2
    with pytest.raises(BackendError, match="cannot run pool of numpy arrays on triton: arrays run on cpp"):
        pool(arrays, 2, backend="triton")
