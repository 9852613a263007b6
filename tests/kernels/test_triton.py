"""The Triton kernels where the tests of all backends do not reach: how work is cut up, and added up again."""

import os
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels look at it when they are imported

from lateint_kernels import backends  # noqa: E402
from lateint_kernels.dense import torch as plain  # noqa: E402
from lateint_kernels.dense.problem import Problem, inverse_norms  # noqa: E402

if reason := backends.why_not("triton", "maxsim", DEVICE):
    pytest.skip(reason, allow_module_level=True)

from lateint_kernels.dense.triton import maxsim, sizes  # noqa: E402
from lateint_kernels.gpu import launch  # noqa: E402

pytestmark = pytest.mark.interpreted


@pytest.fixture
def small(monkeypatch):
    """Sizes so small that small inputs have many pieces, tiles, groups, segments and buckets."""

    def arch(device):
        return launch.Architecture(
            2, 40 << 10, block_m=32, block_n=(16,), stages=2, float32_block=16, float32_step=16, gathering=1, block_k=16
        )

    def scatter_tiles(arch, Ld, dim, itemsize):
        cut = sizes.scatter_tiles(arch, Ld, dim, itemsize)
        buckets = triton.next_power_of_2(triton.cdiv(Ld, 32))
        return replace(cut, block_t=16, block_d=32, width=32, buckets=buckets, segment=32, entries=32)

    monkeypatch.setattr(maxsim, "architecture", arch)
    monkeypatch.setattr(maxsim, "scatter_tiles", scatter_tiles)
    monkeypatch.setattr(maxsim, "MOST_DOCUMENTS", 4)
    monkeypatch.setattr(maxsim, "LIST_BYTES", 2000)
    monkeypatch.setattr(maxsim, "TOGETHER_BYTES", 16 << 10)


def problem(query_lengths, document_lengths, dim, dtype=torch.float32, *, pairs=None, everything=False):
    """Random tokens, with every factor and mask there is or with none."""
    rng = torch.Generator().manual_seed(0)
    offsets = [torch.tensor([0, *lengths]).cumsum(0).to(DEVICE) for lengths in (query_lengths, document_lengths)]
    queries, documents = (
        torch.randn(sum(lengths), dim, generator=rng).to(DEVICE, dtype) for lengths in (query_lengths, document_lengths)
    )
    given = {}
    if everything:
        uniform = torch.rand(4, max(len(queries), len(documents)), generator=rng).to(DEVICE)
        given = {
            "query_weights": (uniform[0] * (uniform[1] > 0.3))[: len(queries)],
            "query_inverse_norms": inverse_norms(queries),
            "document_inverse_norms": inverse_norms(documents),
            "document_scales": (uniform[2, : len(documents)] > 0.3).float(),
            "document_mask": uniform[3, : len(documents)] > 0.3,
        }
        given["document_mask"][offsets[1][:-1]] = True
    if pairs is not None:
        given["query_index"], given["document_index"] = torch.tensor(pairs, device=DEVICE).T.contiguous()
    return Problem(queries, offsets[0], documents, offsets[1], max(query_lengths), max(document_lengths), **given)


def exact(given):
    """The same in float64, on the CPU."""
    tensors = {name: value.cpu() for name, value in vars(given).items() if isinstance(value, torch.Tensor)}
    return replace(given, **{name: x.double() if x.is_floating_point() else x for name, x in tensors.items()})


CASES = {
    "one length": ([32] * 4, [40] * 3, 32),
    "queries of several pieces": ([70] * 2, [20] * 3, 16),
    "ragged queries of several pieces": ([70, 3, 33], [17, 3, 33, 1], 24),
    "more documents than a program takes": ([5, 9], [1, 16, 17, 2, 31, 3, 5, 33, 2], 16),
    "long documents": ([20, 5], [270, 40], 16),
    "components in two parts": ([16], [20, 33], 48),
    "components one after another": ([16, 5], [20, 9], 200),
    "one token": ([1], [1], 1),
    "a query without tokens": ([4, 0, 3], [5, 17], 16),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small")
def test_grid_with_all_factors_and_masks(case):
    check(problem(*CASES[case], torch.float16, everything=True))


@pytest.mark.parametrize("case", ["one length", "queries of several pieces", "components one after another"])
@pytest.mark.usefixtures("small")
def test_grid_of_float32(case):
    check(problem(*CASES[case]))


@pytest.mark.parametrize(("dtype", "everything"), [(torch.float32, False), (torch.bfloat16, True)])
@pytest.mark.usefixtures("small")
def test_pairs(dtype, everything):
    pairs = [(2, 3), (0, 1), (0, 0), (2, 1), (2, 3), (0, 3)]
    check(problem([40, 1, 33], [33, 50, 17, 2], 40, dtype, pairs=pairs, everything=everything))


def check(given):
    """Against float64: scores, positions, and gradients."""
    narrow = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[given.queries.dtype]
    scores, argmax = maxsim.maxsim(given, True)
    wanted, places = plain.maxsim(exact(given), True)
    torch.testing.assert_close(scores.cpu().double(), wanted, rtol=1e-5, atol=1e-5)
    assert argmax.dtype == given.argmax_dtype and argmax.shape == given.argmax_shape
    assert (argmax.int() >= 0).all() and (argmax.int() < given.max_document_length).all()
    torch.testing.assert_close(maxsim.maxsim(given, False)[0], scores, rtol=0, atol=0)

    grad_scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    grad_scores[grad_scores.abs() < 0.2] = 0
    places = places.to(given.argmax_dtype)
    found = maxsim.maxsim_backward(given, grad_scores.to(DEVICE), places.to(DEVICE), (True, True, True))
    exactly = plain.maxsim_backward(exact(given), grad_scores.double(), places, (True, True, True))
    for gradient, right, error in zip(found, exactly, (narrow, narrow, 1e-6), strict=True):
        assert (gradient.cpu().double() - right).abs().max() <= error * right.abs().max() + 1e-7


@pytest.mark.usefixtures("small")
def test_small_gradients_survive_float16():
    """The matrix of winners is as narrow as the tokens: factors of 1e-7 would be 0 in it."""
    given = problem([20, 17], [40, 9, 33], 16, torch.float16)
    given.queries.mul_(1000)
    _, argmax = maxsim.maxsim(given, True)
    grad_scores = torch.tensor([[1e-7, 3e-7, 0.0], [2e-7, 1e-7, 1e-8]], device=DEVICE)
    _, found, _ = maxsim.maxsim_backward(given, grad_scores, argmax, (False, True, False))
    _, right, _ = plain.maxsim_backward(exact(given), grad_scores.cpu().double(), argmax.cpu(), (False, True, False))
    assert (found.cpu().double() - right).abs().max() <= 1e-3 * right.abs().max()


@pytest.mark.usefixtures("small")
def test_only_what_is_needed():
    given = problem([5, 20], [9, 17], 16, everything=True)
    scores, argmax = maxsim.maxsim(given, True)
    everything = maxsim.maxsim_backward(given, scores, argmax, (True, True, True))
    for i in range(3):
        found = maxsim.maxsim_backward(given, scores, argmax, tuple(i == j for j in range(3)))
        assert [x is not None for x in found] == [i == j for j in range(3)]
        assert torch.equal(found[i], everything[i])


def test_nothing_at_all():
    given = problem([3], [4], 16)
    none = given.documents[:0]
    empty = replace(given, documents=none, document_offsets=torch.zeros(2, dtype=torch.int64, device=DEVICE))
    assert maxsim.maxsim(empty, True)[0].tolist() == [[-torch.inf]]
    absent = replace(given, queries=none, query_offsets=torch.zeros(2, dtype=torch.int64, device=DEVICE))
    assert maxsim.maxsim(absent, True)[0].tolist() == [[0.0]]


@pytest.mark.parametrize("capability", launch.ARCHITECTURES)
def test_tiles_fit_every_architecture(capability):
    arch = launch.ARCHITECTURES[capability]
    for dim in (8, 48, 96, 128, 256, 320, 384, 768, 4096):
        for itemsize in (2, 4):
            for rows in (1, 32, 100, 100000):
                cut = sizes.tiles(arch, rows, 180, dim, itemsize)
                assert cut.shared <= arch.shared
                assert not cut.resident or cut.first + cut.rest >= dim


def test_programs_end_together():
    """One wave of 264 programs for the case of 128 queries of 32 tokens and 128 documents."""
    assert sizes.documents_each(32, 128, 4, 264, 32) == 16
    assert sizes.documents_each(1, 10000, 5, 528, 32) == 19


def test_a_dim_that_is_too_large():
    assert "8192" in maxsim.why_not("maxsim", "cpu", torch.float16, 8193)
