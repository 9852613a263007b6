"""Training's CPU kernels on every instruction set: against float64, whatever the threads, whatever the numbers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from numerics import assert_as_accurate, expression, gradients, tokens  # noqa: E402

from lateint_kernels import RaggedTensor, maxsim, maxsim_pairs  # noqa: E402
from lateint_kernels.dense import cpp as _cpp  # noqa: E402
from lateint_kernels.dense.problem import Problem, inverse_norms  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
pytestmark = pytest.mark.usefixtures("isa")


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def problem(rng, query_lengths, document_lengths, dim, dtype, pairs=None):
    """With everything that a problem can have."""
    queries, documents = (torch.cat(tokens(rng, n, dim, dtype)) for n in (query_lengths, document_lengths))
    weights = torch.randn(len(queries), generator=rng)
    weights[torch.rand(len(queries), generator=rng) < 0.3] = 0
    mask = torch.rand(len(documents), generator=rng) < 0.7
    mask[offsets(document_lengths)[:-1]] = True
    index = None if pairs is None else torch.tensor(pairs).T.contiguous()
    return Problem(
        queries,
        offsets(query_lengths),
        documents,
        offsets(document_lengths),
        max(query_lengths),
        max(document_lengths),
        query_weights=weights,
        query_inverse_norms=inverse_norms(queries),
        document_inverse_norms=inverse_norms(documents),
        document_scales=torch.randint(0, 2, (len(documents),), generator=rng).float(),
        document_mask=mask,
        query_index=None if index is None else index[0],
        document_index=None if index is None else index[1],
    )


def everything(problem, threads):
    """Scores, positions and gradients with so many threads, each output filled with rubbish before."""
    scores = torch.full(problem.scores_shape, torch.nan)
    argmax = torch.full(problem.argmax_shape, 127, dtype=problem.argmax_dtype)
    native = _cpp._native(problem)
    native.forward(scores.data_ptr(), argmax.data_ptr(), argmax.element_size(), threads)
    found = [torch.full_like(x, torch.nan) for x in (problem.queries, problem.documents, problem.query_weights)]
    grad_scores = torch.linspace(-1, 1, scores.numel())
    addresses = [x.data_ptr() for x in found]
    native.backward(grad_scores.data_ptr(), argmax.data_ptr(), argmax.element_size(), *addresses, threads)
    return [scores, argmax, *found]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [None, [(0, 3), (2, 0), (0, 0), (3, 1), (2, 3), (2, 3), (1, 2)] * 6])
def test_any_number_of_threads_gives_the_same_bits(rng, dtype, pairs):
    some = problem(rng, [70, 1, 100, 33], [300, 40, 1, 17], 72, dtype, pairs)
    first = everything(some, 1)
    assert not any(x.isnan().any() for x in first)
    for threads in (2, 3, 16):
        assert all(torch.equal(x, y) for x, y in zip(everything(some, threads), first, strict=True))


def test_callers_do_not_disturb_each_other(rng):
    some = problem(rng, [33, 16, 50], [40, 65, 7], 40, torch.bfloat16)
    first = everything(some, 2)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: everything(some, 2), range(12)):
            assert all(torch.equal(x, y) for x, y in zip(found, first, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("Lq", "Ld", "dim"), [(17, 35, 1), (33, 31, 31), (5, 9, 33), (70, 1100, 130), (3, 40, 520)])
def test_scores_and_gradients(rng, dtype, Lq, Ld, dim):
    """Sizes beside those of registers, tiles and what is taken together; a query and a document more as neighbours."""
    leaves = [torch.randn(2, n, dim, generator=rng).to(dtype).requires_grad_() for n in (Lq, Ld)]
    grad_scores = torch.randn(2, 2, generator=rng)

    def theirs(dtype):
        mine = [x.detach().to(dtype).requires_grad_() for x in leaves]
        return gradients(lambda: expression(*(list(x) for x in mine)), mine, grad_scores)

    actual = gradients(lambda: maxsim(*leaves, backend="cpp"), leaves, grad_scores)
    for found, exact, plain in zip(actual, theirs(torch.float64), theirs(dtype), strict=True):
        assert_as_accurate(found, exact, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_rows(rng, dtype):
    """Last, smaller groups of document tokens, in which any token may win."""
    dim = 24
    documents = [torch.randn(n, dim, generator=rng).to(dtype) for n in range(1, 70)]
    queries = torch.cat([x[[0, -1]] for x in documents])[None] * 100
    scores, found = maxsim(queries, documents, return_argmax=True, backend="cpp")
    for document, where in zip(documents, found[0], strict=True):
        assert torch.equal(where, (queries[0].double() @ document.double().T).argmax(1))
    assert scores.isfinite().all()


def test_float16_products_are_exact(rng):
    """All bits of the numbers count, from the largest to the subnormal ones."""
    numbers = torch.tensor([65504, 1 + 2**-10, 2**-24, 1023 * 2**-24, 6.1e-5, 2047, -0.33325195], dtype=torch.float16)
    for x in numbers:
        queries, documents = torch.zeros(1, 1, 8, dtype=torch.float16), torch.zeros(1, 7, 8, dtype=torch.float16)
        queries[0, 0, 3], documents[0, :, 3] = x, numbers
        for t in range(7):
            score = maxsim(queries, documents[:, t : t + 1], backend="cpp")
            assert score.item() == x.float().item() * numbers[t].float().item()


def test_float32_of_any_size(rng):
    """Tiny numbers, alone and among others, count as they do in plain float32."""
    queries, documents = torch.randn(2, 20, 24, generator=rng), torch.randn(6, 50, 24, generator=rng)
    documents[0] *= 1e-35
    documents[1] *= 1e-20
    documents[2, :, 3:] *= 1e-30
    documents[3, 7] = 1e-45
    documents[4] = 1e-45 * torch.arange(50)[:, None]
    queries[1] *= 2.0**-41
    scores, found = maxsim(queries, documents, return_argmax=True, backend="cpp")
    best, where = torch.einsum("ish,jth->ijst", queries.double(), documents.double()).max(3)
    torch.testing.assert_close(scores, best.sum(2).float(), rtol=1e-5, atol=1e-43)
    picked = torch.einsum("ish,jth->ijst", queries.double(), documents.double()).gather(3, found[..., None])[..., 0]
    torch.testing.assert_close(picked, best, rtol=1e-6, atol=1e-43)
    assert torch.equal(found[:, 5], where[:, 5])


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities(rng, dtype):
    """A product that is infinite is no reason to lose the others."""
    queries, documents = torch.rand(1, 2, 16, generator=rng), torch.rand(4, 40, 16, generator=rng)
    documents[0, 33, 5], documents[1, 2, 5], documents[2, :, 0] = torch.inf, -torch.inf, -torch.inf
    queries, documents = queries.to(dtype), documents.to(dtype)
    scores, found = maxsim(queries, documents, return_argmax=True, backend="cpp")
    best, where = torch.einsum("sh,jth->jst", queries[0].double(), documents.double()).max(2)
    torch.testing.assert_close(scores[0], best.sum(1).float())
    assert torch.equal(found[0], where) and found[0, 2].tolist() == [0, 0]


def test_rounding_is_to_the_nearest_even(rng):
    """One query token and one document token: a gradient is a product, rounded once."""
    for dtype in DTYPES[1:]:
        numbers = torch.cat([torch.randn(2000, generator=rng) * 10.0**e for e in range(-8, 3)]).to(dtype)
        queries, documents = torch.ones(len(numbers), 1, dtype=dtype), numbers[:, None]
        left, right = (RaggedTensor.pack(list(x[:, None])) for x in (queries, documents))
        left.tokens.requires_grad_()
        scores = maxsim_pairs(left, right, backend="cpp")
        factors = torch.randn(len(numbers), generator=rng)
        (found,) = torch.autograd.grad(scores, left.tokens, factors)
        assert torch.equal(found[:, 0], (factors * numbers.float()).to(dtype))


def test_queries_without_tokens(rng):
    queries, documents = torch.randn(3, 4, 8, generator=rng), torch.randn(2, 5, 8, generator=rng)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    for dtype in DTYPES:
        scores = maxsim(queries[:2].to(dtype), documents.to(dtype), query_mask=mask[:2], check=False, backend="cpp")
        assert scores[1].tolist() == [0, 0] and (scores[0] != 0).all()
        alone = maxsim(queries[1:2].to(dtype), documents.to(dtype), query_mask=mask[1:2], check=False, backend="cpp")
        assert alone.tolist() == [[0, 0]]
