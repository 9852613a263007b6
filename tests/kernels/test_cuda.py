"""The CUDA kernels against the definition: their PTX executed without a GPU (ptx), and on a GPU if there is one."""

from dataclasses import fields, replace

import pytest

torch = pytest.importorskip("torch")

from ptx.cuda import ORDERS, Simulation  # noqa: E402

from lateint_kernels.dense.cuda import backward, forward, support  # noqa: E402
from lateint_kernels.dense.problem import Problem, inverse_norms  # noqa: E402
from lateint_kernels.gpu import program  # noqa: E402
from lateint_kernels.gpu import support as gpu_support  # noqa: E402

pytestmark = pytest.mark.interpreted

AMPERE = program.Gpu("sm_80", multiprocessors=4, shared_per_block=163 * 1024, shared_per_multiprocessor=164 * 1024)
HOPPER = program.Gpu("sm_90a", multiprocessors=2, shared_per_block=48 * 1024, shared_per_multiprocessor=228 * 1024)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def need_gpu():
    if reason := support.why_not("maxsim", "cuda"):
        pytest.skip(reason)


@pytest.fixture
def simulation(monkeypatch):
    """A GPU of four multiprocessors, so that a block has several documents."""
    if reason := gpu_support._missing():
        pytest.skip(reason)
    monkeypatch.setattr(forward, "BLOCKS_PER_MULTIPROCESSOR", 1)
    monkeypatch.setattr(backward, "DOCUMENT_THREADS", 128)
    return Simulation(AMPERE).install(monkeypatch, forward, backward)


@pytest.fixture(
    params=[*ORDERS, pytest.param("cuda", marks=pytest.mark.gpu)], ids=lambda given: "real" if given == "cuda" else ""
)
def device(request):
    """A GPU: simulated, or real."""
    if request.param == "cuda":
        need_gpu()
        return "cuda"
    vars(request.getfixturevalue("simulation")).update(request.param)
    return "cpu"


@pytest.fixture
def hopper(device, request):
    """The same, of sm_90a."""
    if device == "cpu":
        request.getfixturevalue("simulation").gpu = HOPPER
    elif program.gpu(0).arch != "sm_90a":
        pytest.skip("needs compute capability 9.0")
    return device


def make_problem(
    query_lengths,
    document_lengths,
    dim,
    dtype="bf16",
    *,
    normalize=False,
    weights=False,
    scales=False,
    mask=False,
    pairs=None,
    seed=0,
):
    generator = torch.Generator().manual_seed(seed)

    def tokens(lengths):
        return torch.randn(sum(lengths), dim, generator=generator).to(DTYPES[dtype])

    def offsets(lengths):
        return torch.tensor([0, *lengths]).cumsum(0)

    queries, documents = tokens(query_lengths), tokens(document_lengths)
    more = {}
    if weights:
        more["query_weights"] = (torch.rand(len(queries), generator=generator) + 0.5).index_fill(
            0, torch.arange(0, len(queries), 3), 0.0
        )
    if scales:
        more["document_scales"] = (torch.rand(len(documents), generator=generator) + 0.5).index_fill(
            0, torch.arange(0, len(documents), 4), 0.0
        )
    if mask:
        more["document_mask"] = torch.rand(len(documents), generator=generator) > 0.3
        more["document_mask"][offsets(document_lengths)[:-1]] = True
    if normalize:
        more["query_inverse_norms"], more["document_inverse_norms"] = inverse_norms(queries), inverse_norms(documents)
    if pairs is not None:
        more["query_index"], more["document_index"] = torch.tensor(pairs).unbind(1)
        more = {name: tensor.contiguous() for name, tensor in more.items()}
    longest = max(query_lengths), max(document_lengths)
    return Problem(queries, offsets(query_lengths), documents, offsets(document_lengths), *longest, **more)


def on(device, problem):
    """The problem with its tensors on a device."""
    parts = {field.name: getattr(problem, field.name) for field in fields(problem)}
    tensors = {name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor)}
    return replace(problem, **tensors)


def maxsim(device, problem, need_argmax=True):
    scores, argmax = forward.maxsim(on(device, problem), need_argmax)
    return scores.cpu(), None if argmax is None else argmax.cpu()


def pairs_of(problem):
    """(query, document, where its score is) of every pair."""
    if problem.query_index is not None:
        chosen = zip(problem.query_index.tolist(), problem.document_index.tolist(), strict=True)
        return [(i, j, p) for p, (i, j) in enumerate(chosen)]
    return [(i, j, (i, j)) for i in range(problem.Nq) for j in range(problem.Nd)]


def exact(problem):
    """Scores, argmax, and a function of grad_scores for the gradients: float64, by autograd through the definition."""
    queries, documents = (x.double().requires_grad_() for x in (problem.queries, problem.documents))
    weights = torch.ones(len(queries)) if problem.query_weights is None else problem.query_weights
    weights = weights.double().requires_grad_()
    normed = problem.query_inverse_norms is not None
    q, d = (torch.nn.functional.normalize(x, eps=1e-12) if normed else x for x in (queries, documents))
    grid = problem.query_index is None
    scores = {}
    argmax = torch.zeros(problem.argmax_shape, dtype=problem.argmax_dtype)
    for i, j, where in pairs_of(problem):
        rows = slice(*problem.query_offsets[i : i + 2].tolist())
        columns = slice(*problem.document_offsets[j : j + 2].tolist())
        similarities = q[rows] @ d[columns].T
        if problem.document_scales is not None:
            similarities = similarities * problem.document_scales[columns].double()
        if problem.document_mask is not None:
            similarities = similarities.masked_fill(~problem.document_mask[columns], -torch.inf)
        best = similarities.max(1)
        terms = weights[rows] * best.values
        scores[where] = torch.where(weights[rows] != 0, terms, 0).sum()
        if grid:
            argmax[j, rows] = best.indices.to(argmax.dtype)
        else:
            argmax[where, : len(best.indices)] = best.indices.to(argmax.dtype)
    matrix = torch.stack([scores[where] for _, _, where in pairs_of(problem)])
    matrix = matrix.view(problem.scores_shape)

    def gradients(grad_scores):
        dq, dd, dw = torch.autograd.grad(matrix, (queries, documents, weights), grad_scores.double())
        return dq, dd, torch.where(weights != 0, dw, 0)

    return matrix.detach(), argmax, gradients


def assert_close(actual, wanted, dtype):
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-20}[dtype]
    assert not actual.isnan().any()
    allowed = rounding * wanted.abs() + 1e-5 * wanted.abs().max().clamp_min(1e-3)
    assert ((actual.double() - wanted).abs() <= allowed).all()


FORWARD_CASES = {
    "even": dict(query_lengths=[32] * 5, document_lengths=[70] * 3, dim=128),
    "one query": dict(query_lengths=[20], document_lengths=[40, 300, 129, 1, 16, 5], dim=32),
    "ragged": dict(query_lengths=[3, 1, 9, 20], document_lengths=[40, 1, 17], dim=96, dtype="fp16", weights=True),
    "one token each": dict(query_lengths=[1] * 70, document_lengths=[2] * 7, dim=32),
    "long query": dict(query_lengths=[150, 2], document_lengths=[20, 150], dim=32, normalize=True),
    "factors": dict(query_lengths=[4, 6], document_lengths=[90, 20, 5], dim=32, normalize=True, scales=True, mask=True),
    "wide": dict(query_lengths=[7], document_lengths=[20, 3], dim=256, mask=True),
    "pairs": dict(
        query_lengths=[3, 5, 20],
        document_lengths=[4, 9, 70, 2],
        dim=32,
        weights=True,
        pairs=[(2, 1), (2, 0), (2, 2), (0, 0), (1, 1), (2, 1), (0, 2), (0, 3), (0, 1), (1, 1), (1, 2), (2, 3)] * 2,
    ),
    "pairs of long queries": dict(
        query_lengths=[150, 3],
        document_lengths=[4, 20],
        dim=32,
        normalize=True,
        pairs=[(0, 1), (1, 0), (1, 1), (0, 0), (1, 1)] * 4,
    ),
}


@pytest.mark.parametrize("case", FORWARD_CASES.values(), ids=FORWARD_CASES)
def test_scores_are_those_of_the_definition(device, case):
    problem = make_problem(**case)
    wanted, where, _ = exact(problem)
    scores, argmax = maxsim(device, problem)
    assert (scores.double() - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    if problem.query_weights is None:
        assert torch.equal(argmax, where)


HOPPER_CASES = {
    "even": dict(query_lengths=[32] * 9, document_lengths=[70] * 3, dim=128, argmax=False),
    "ragged": dict(
        query_lengths=[3, 40, 1, 30] * 5, document_lengths=[100, 1, 17, 103, 208], dim=64, dtype="fp16", weights=True
    ),
    "factors": dict(
        query_lengths=[130, 20], document_lengths=[90, 20, 5], dim=64, normalize=True, scales=True, mask=True
    ),
    "one token each": dict(query_lengths=[1] * 150, document_lengths=[2] * 7, dim=64),
    "odd": dict(query_lengths=[300], document_lengths=[20, 70], dim=64),
}


@pytest.mark.parametrize("case", HOPPER_CASES.values(), ids=HOPPER_CASES)
def test_hopper_scores_are_those_of_the_definition(hopper, case):
    case = dict(case)
    need_argmax = case.pop("argmax", True)
    problem = make_problem(**case)
    wanted, where, _ = exact(problem)
    scores, argmax = maxsim(hopper, problem, need_argmax)
    assert (scores.double() - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    if need_argmax and problem.query_weights is None:
        assert torch.equal(argmax, where)


def test_scores_without_positions_are_the_same(device):
    problem = make_problem([32] * 5, [70] * 3, 128)
    scores, argmax = maxsim(device, problem, False)
    assert torch.equal(scores, maxsim(device, problem)[0]) and argmax is None


def test_first_of_equals_wins(device):
    problem = make_problem([20], [150, 40], 32)
    problem.documents[:] = problem.documents[0]
    problem.documents[:7] *= -1
    problem.documents[150:] = 0
    _, argmax = maxsim(device, problem)
    assert torch.equal(argmax, exact(problem)[1])
    assert set(argmax[0].tolist()) == {0, 7} and not argmax[1].any()


@pytest.mark.parametrize("masked", [False, True])
def test_nan_counts_only_where_present(device, masked):
    problem = make_problem([5, 3], [20, 30], 32, weights=True, mask=masked)
    wanted = exact(problem)[0]
    problem.queries[problem.query_weights == 0] = torch.nan
    if masked:
        problem.documents[~problem.document_mask] = torch.nan
        assert torch.equal(maxsim(device, problem, False)[0].isnan(), wanted.isnan())
        problem.document_mask[25] = True
    problem.documents[25] = torch.nan
    assert maxsim(device, problem, False)[0].isnan().tolist() == [[False, True]] * 2


def test_document_without_tokens_scores_minus_infinity(device):
    problem = make_problem([5], [20, 3, 1], 32, mask=True)
    problem.document_mask[20:23] = False
    scores, argmax = maxsim(device, problem)
    assert scores.isinf().tolist() == [[False, True, False]] and not argmax[1].any()


BACKWARD_CASES = {
    "even": dict(query_lengths=[4] * 5, document_lengths=[7] * 6, dim=128),
    "long queries": dict(query_lengths=[140, 41], document_lengths=[5, 30], dim=8, weights=True),
    "ragged": dict(query_lengths=[3, 1, 9, 32], document_lengths=[40, 1, 17], dim=96, dtype="fp16"),
    "float32": dict(query_lengths=[5, 2], document_lengths=[3, 8], dim=136, dtype="fp32", normalize=True),
    "normalized": dict(
        query_lengths=[4, 6], document_lengths=[9, 2, 5], dim=32, normalize=True, weights=True, scales=True
    ),
    "masked": dict(query_lengths=[4, 6], document_lengths=[9, 2, 5], dim=8, mask=True, scales=True),
    "many documents": dict(query_lengths=[2], document_lengths=[3] * 20, dim=16),
    "long document": dict(query_lengths=[20], document_lengths=[300, 20], dim=128),
    "wide": dict(query_lengths=[2], document_lengths=[4, 3], dim=4096, normalize=True),
    "pairs": dict(
        query_lengths=[3, 5, 2],
        document_lengths=[4, 9, 6, 2],
        dim=128,
        normalize=True,
        pairs=[(2, 1), (0, 0), (2, 0), (1, 1), (2, 1), (0, 2)],
    ),
    "many pairs": dict(
        query_lengths=[30, 5],
        document_lengths=[40, 9],
        dim=24,
        weights=True,
        pairs=[(k * 7 % 2, k // 3 % 2) for k in range(50)],
    ),
}


@pytest.mark.parametrize("case", BACKWARD_CASES.values(), ids=BACKWARD_CASES)
def test_gradients_are_those_of_the_definition(device, case):
    problem = make_problem(**case)
    scores, argmax, gradients = exact(problem)
    grad_scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    grad_scores.view(-1)[::3] = 0.0
    wanted = gradients(grad_scores)
    given = grad_scores.to(device), argmax.to(device), (True, True, True)
    dq, dd, dw = (x.cpu() for x in backward.maxsim_backward(on(device, problem), *given))
    assert dq.dtype == dd.dtype == problem.queries.dtype
    assert_close(dq, wanted[0], dq.dtype)
    assert_close(dd, wanted[1], dd.dtype)
    assert_close(dw, wanted[2], torch.float32)


def test_the_order_of_warps_changes_no_bit(simulation):
    problem = make_problem([32] * 4, [30, 7, 12], 64, normalize=True, weights=True)
    scores, argmax, _ = exact(problem)
    found = []
    for simulation.seed, simulation.late in ((1, True), (2, False)):
        given = torch.ones_like(scores, dtype=torch.float32), argmax, (True, True, True)
        found.append((*forward.maxsim(problem, True), *backward.maxsim_backward(problem, *given)))
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_only_gradients_needed_are_formed(device):
    problem = make_problem([3, 2], [4, 5], 8)
    scores, argmax, gradients = exact(problem)
    grad_scores = torch.ones_like(scores, dtype=torch.float32)
    given = on(device, problem), grad_scores.to(device), argmax.to(device)
    assert [x is None for x in backward.maxsim_backward(*given, (False, True, False))] == [True, False, True]
    dq, dd, dw = backward.maxsim_backward(*given, (False, False, True))
    assert dq is None and dd is None
    assert_close(dw.cpu(), gradients(grad_scores)[2], torch.float32)


def test_no_pairs(device):
    problem = on(device, make_problem([3, 2], [4, 5], 16))
    none = torch.zeros(0, dtype=torch.int64, device=device)
    problem = replace(problem, query_index=none, document_index=none)
    scores, argmax = forward.maxsim(problem, True)
    assert scores.shape == (0,) and argmax.shape == (0, 3)
    gradients = backward.maxsim_backward(problem, scores, argmax, (True, True, True))
    assert not any(gradient.any() for gradient in gradients)


def test_documents_without_any_token(hopper):
    problem = replace(make_problem([3] * 50, [4, 5], 64), max_document_length=0)
    problem = replace(problem, documents=problem.documents[:0], document_offsets=torch.zeros(3, dtype=torch.int64))
    scores, _ = maxsim(hopper, problem)
    assert scores.isneginf().all()


@pytest.mark.gpu
@pytest.mark.parametrize("pairs", [False, True], ids=["all", "pairs"])
def test_the_same_bits_every_time(pairs):
    need_gpu()
    chosen = [(i, (i + k) % 40) for i in range(70) for k in range(9)] if pairs else None
    problem = on("cuda", make_problem([32] * 70, [180, 7, 64, 33] * 10, 128, normalize=True, pairs=chosen))
    scores, argmax = forward.maxsim(problem, True)
    grad_scores = torch.randn_like(scores)
    first = scores, argmax, *backward.maxsim_backward(problem, grad_scores, argmax, (True, True, True))
    for _ in range(20):
        again = *forward.maxsim(problem, True), *backward.maxsim_backward(problem, grad_scores, argmax, (True,) * 3)
        assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@pytest.mark.gpu
def test_cuda_graph_records_it():
    need_gpu()
    problem = on("cuda", make_problem([32] * 9, [180, 7, 64, 33], 128, weights=True))

    def step():
        scores, argmax = forward.maxsim(problem, True)
        return scores, *backward.maxsim_backward(problem, torch.ones_like(scores), argmax, (True, True, True))

    wanted = step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for _ in range(2):
        graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(wanted, found, strict=True))


@pytest.mark.gpu
def test_second_device_while_the_first_is_current():
    need_gpu()
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    problem = make_problem([32] * 9, [180, 7, 64, 33], 128)
    scores, argmax = forward.maxsim(on("cuda:1", problem), True)
    assert torch.equal(scores.cpu(), forward.maxsim(on("cuda:0", problem), False)[0].cpu())
    dq, dd, _ = backward.maxsim_backward(on("cuda:1", problem), torch.ones_like(scores), argmax, (True, True, False))
    assert str(dq.device) == str(dd.device) == "cuda:1"


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 96, 128, 256])
def test_large_batch_is_as_plain_torch(dim):
    need_gpu()
    problem = on("cuda", make_problem([32] * 128, [200] * 128, dim, "fp16", normalize=True))
    queries, documents = (
        torch.nn.functional.normalize(tokens.float(), dim=1).unflatten(0, (128, -1))
        for tokens in (problem.queries, problem.documents)
    )
    wanted = torch.stack([(query @ documents.mT).amax(2).sum(1) for query in queries])
    assert (forward.maxsim(problem, True)[0] - wanted).abs().max() < 1e-2
