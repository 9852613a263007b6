"""What XTR selects, on every backend of tensors: against float64, which sorts, and torch's own gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import RaggedTensor  # noqa: E402
from lateint_kernels.dense.maxima import retrieved  # noqa: E402
from lateint_kernels.dense.problem import Problem, inverse_norms, multiplied  # noqa: E402
from lateint_kernels.scores import xtr  # noqa: E402

QUERIES, DOCUMENTS = [1, 9, 7], [1, 2, 9, 33, 17]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def rng():
    return np.random.default_rng(13)


def offsets(lengths, device):
    return torch.tensor([0, *lengths], device=device).cumsum(0)


def make(rng, device, dtype, dim, kind="plain", queries=QUERIES, documents=DOCUMENTS):
    """Ragged tokens, normalised or not; of some kinds many are absent and hold NaN."""
    sides = [
        torch.from_numpy(rng.standard_normal((sum(lengths), dim)).astype(np.float32)).to(device, dtype)
        for lengths in (queries, documents)
    ]
    more = {}
    if kind in ("masked", "all"):
        present = [torch.from_numpy(rng.random(len(side)) < 0.7).to(device) for side in sides]
        more = {"query_weights": present[0].float(), "document_mask": present[1]}
        for side, there in zip(sides, present, strict=True):
            side[~there] = torch.nan
    if kind in ("normalized", "all"):
        more |= {"query_inverse_norms": inverse_norms(sides[0]), "document_inverse_norms": inverse_norms(sides[1])}
    return Problem(
        sides[0], offsets(queries, device), sides[1], offsets(documents, device), max(queries), max(documents), **more
    )


def definition(problem, k):
    """Maxima and the last of the k largest similarities, in float64; NaN is above everything."""
    present, normalize = problem.query_weights, problem.query_inverse_norms is not None
    queries = multiplied(problem.queries.double(), None if present is None else present != 0, normalize)
    documents = multiplied(problem.documents.double(), problem.document_mask, normalize)
    found = queries @ documents.T
    count = len(documents)
    if problem.document_mask is not None:
        found, count = found.masked_fill(~problem.document_mask, -torch.inf), int(problem.document_mask.sum())
    every = found.split(problem.document_offsets.diff().tolist(), dim=1)
    maxima = [x.amax(1) if x.shape[1] else found.new_full((len(found),), -torch.inf) for x in every]
    best, least = torch.stack(maxima, 1), found.topk(max(1, min(k, count)), dim=1).values[:, -1]
    if not count:
        least = torch.zeros_like(least)
    if present is not None:
        best, least = best.masked_fill((present == 0)[:, None], 0), least.masked_fill(present == 0, 0)
    return best, least


def check(problem, k, backend):
    """Numbers are right, and so is what is found, unless it is too near to the border to tell."""
    best, found, least = retrieved(problem, k, False, backend)
    exact, last = definition(problem, k)
    finite = exact.isfinite()
    assert torch.equal(best.isneginf(), exact.isneginf())
    far = 3e-6 * max(1, exact[finite].abs().max())
    assert (best.double() - exact)[finite].abs().max() <= far
    there = problem.query_weights != 0 if problem.query_weights is not None else torch.ones(len(best), dtype=torch.bool)
    clear = finite & there.to(finite.device)[:, None] & ((exact - last[:, None]).abs() > 2 * far)
    assert torch.equal(found[clear], (exact >= last[:, None])[clear])
    if backend in ("cpp", "triton"):  # the others do without it, where there are fewer than k tokens
        assert (least.double() - last).abs().max() <= far


@pytest.mark.parametrize("kept", DTYPES)
@pytest.mark.parametrize(
    ("components", "kind", "k"), [(40, "all", 7), (130, "masked", 1), (24, "normalized", 25), (40, "plain", 1000)]
)
def test_maxima_and_the_last_of_k(backend, rng, device, kept, components, kind, k):
    check(make(rng, device, kept, components, kind), k, backend)


def test_random_shapes(backend, rng, device):
    """Documents without tokens too, or with as many as fill tiles and groups."""
    for _ in range(3):
        queries, documents = rng.integers(1, 9, 3), rng.choice([0, 1, 4, 8, 15, 17, 32], rng.integers(2, 6))
        documents[rng.integers(len(documents))] = 16
        kind = rng.choice(["plain", "masked", "normalized", "all"])
        dtype = DTYPES[rng.integers(3)]
        problem = make(rng, device, dtype, 24, kind, queries.tolist(), documents.tolist())
        check(problem, int(rng.integers(1, documents.sum() + 2)), backend)


@pytest.mark.parametrize("k", [1, 5, 31])
def test_ties(backend, rng, device, k):
    """Of whole numbers, whose products are exact; beside one that is far from the others, too."""
    problem = make(rng, device, torch.float32, 4, queries=[7], documents=[1, 30, 17])
    for side in (problem.queries, problem.documents):
        side.copy_(torch.from_numpy(rng.integers(-1, 2, side.shape)))
    for outlier in (False, True):
        problem.documents[20] = 1e6 if outlier else 1
        best, found, least = retrieved(problem, k, False, backend)
        exact, last = definition(problem, k)
        assert torch.equal(best.double(), exact)
        if backend in ("cpp", "triton"):
            assert torch.equal(least.double(), last)
            assert torch.equal(found, exact >= last[:, None])


def test_infinity_and_nan(backend, rng, device):
    """They reach what they belong to, and nothing else; NaN is above everything, but what is imputed is a number."""
    problem = make(rng, device, torch.float32, 24)
    problem.queries.abs_()
    problem.queries[12, 3], problem.documents[0, 0], problem.documents[1:3, 1] = torch.nan, torch.inf, -torch.inf
    best, found, least = retrieved(problem, 5, False, backend)
    rows = torch.arange(len(best), device=device) != 12
    assert best[12].isnan().all() and found[12].all()
    assert (best[rows, 0] == torch.inf).all() and (best[rows, 1] == -torch.inf).all()
    exact, last = definition(problem, 5)
    assert (best.double() - exact)[rows, 2:].abs().max() <= 3e-6 * exact[rows, 2:].abs().max()
    assert torch.equal(found[rows], (exact >= last[:, None])[rows])
    if backend in ("cpp", "triton"):
        assert least[12] == torch.inf and (least.double() - last)[rows].abs().max() <= 3e-6 * last[rows].abs().max()


@pytest.mark.parametrize("kept", DTYPES)
@pytest.mark.parametrize(("components", "kind"), [(40, "all"), (24, "normalized")])
def test_scores_and_gradients(backend, rng, device, kept, components, kind):
    problem = make(rng, device, kept, components, kind)
    mask = problem.document_mask
    if mask is not None:
        mask[problem.document_offsets[1:] - 1] = True
        problem.documents.nan_to_num_()
    given = torch.from_numpy(rng.standard_normal((len(QUERIES), len(DOCUMENTS)))).to(device)

    def run(name, dtype):
        leaves = [side.to(dtype).requires_grad_() for side in (problem.queries, problem.documents)]
        sides = [RaggedTensor.from_lengths(x, n) for x, n in zip(leaves, (QUERIES, DOCUMENTS), strict=True)]
        masks = {"query_mask": problem.query_weights, "document_mask": mask}
        found = xtr(*sides, 12, **masks, normalize=kind in ("normalized", "all"), impute=True, backend=name)
        return [found.detach(), *torch.autograd.grad((found * given.to(found.dtype)).sum(), leaves)]

    tolerance = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[kept]
    for i, (mine, exact) in enumerate(zip(run(backend, kept), run("torch", torch.float64), strict=True)):
        assert (mine.double() - exact).abs().max() <= (tolerance if i else 3e-6) * max(1, exact.abs().max())


@pytest.mark.any_tiles
def test_no_tokens(triton, device):
    """Of queries, or of documents."""
    for TQ, TD in ((0, 3), (2, 0)):
        tokens = torch.ones(TQ, 8, device=device), torch.ones(TD, 8, device=device)
        problem = Problem(tokens[0], offsets([TQ], device), tokens[1], offsets([TD], device), TQ, TD)
        best, argmax, least = triton.retrieved(problem, 4)
        assert best.shape == argmax.T.shape == (TQ, 1) and best.isneginf().all() and not least.any()


def test_nothing_present(backend, rng, device):
    problem = make(rng, device, torch.bfloat16, 24, "all")
    problem.document_mask.fill_(False)
    best, _, least = retrieved(problem, 3, False, backend)
    assert best[problem.query_weights != 0].isneginf().all() and not least.isnan().any()


@pytest.fixture
def triton(backend):
    if backend != "triton":
        pytest.skip("of Triton's")
    return pytest.importorskip("lateint_kernels.dense.triton.retrieved")


@pytest.mark.parametrize("k", [3, 30])
def test_few_query_tokens_at_a_time_and_long_rows(triton, rng, device, k, monkeypatch):
    """The same bits in any number of parts, and where a row is read again for every step."""
    problem = make(rng, device, torch.bfloat16, 24, "all", documents=[9, 1, 33])
    whole = triton.retrieved(problem, k)
    monkeypatch.setattr(triton, "BYTES", 1000)
    monkeypatch.setattr(triton, "MOST_NUMBERS", 16)
    for left, right in zip(whole, triton.retrieved(problem, k), strict=True):
        assert torch.equal(left, right)


@pytest.mark.any_tiles
def test_compiled_into_one_graph(triton, rng, device):
    leaves = [torch.from_numpy(rng.standard_normal((3, n, 16)).astype(np.float32)).to(device) for n in (4, 9)]
    for leaf in leaves:
        leaf.requires_grad_()

    def run(queries, documents):
        return xtr(queries, documents, 6, check=False, backend="triton")

    plain, compiled = (f(*leaves) for f in (run, torch.compile(run, fullgraph=True, backend="aot_eager")))
    assert torch.equal(plain, compiled)
    for left, right in zip(*(torch.autograd.grad(x.square().sum(), leaves) for x in (plain, compiled)), strict=True):
        assert torch.equal(left, right)


def test_the_same_bits_every_time(triton, rng, device):
    problem = make(rng, device, torch.bfloat16, 40, "all")
    for left, right in zip(triton.retrieved(problem, 9), triton.retrieved(problem, 9), strict=True):
        assert torch.equal(left, right)
