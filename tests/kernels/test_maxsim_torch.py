"""MaxSim of tensors on every backend: scores and gradients against float64, and next to what plain torch loses."""

import pytest

torch = pytest.importorskip("torch")

from numerics import assert_as_accurate, expression, gradients, tokens  # noqa: E402

from lateint_kernels import RaggedTensor, maxsim, maxsim_pairs, reference  # noqa: E402
from lateint_kernels.backends import interpreting  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EDGES = [1, 2, 7, 15, 16, 17, 31, 33]
pytestmark = pytest.mark.usefixtures("strict")


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def check(backend, device):
    """Scores and all gradients of packed tokens are as accurate as plain torch, half of which is bad luck."""

    def run(queries, documents, *, weights=None, masks=None, pairs=None, floor=3e-7, **options):
        sides = [[x.to(device) for x in side] for side in (queries, documents)]
        weights = None if weights is None else [x.to(device) for x in weights]
        masks = None if masks is None else [x.to(device) for x in masks]
        packed = [RaggedTensor.pack(side) for side in sides]
        leaves = [side.tokens.clone().requires_grad_() for side in packed]
        if weights is not None:
            leaves.append(torch.cat(weights).requires_grad_())
        shape = (len(queries), len(documents)) if pairs is None else (len(pairs),)
        grad_scores = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)

        def ours():
            left, right = (
                RaggedTensor(x, side.offsets, side.max_length) for x, side in zip(leaves[:2], packed, strict=True)
            )
            more = {
                "query_weights": leaves[2] if weights is not None else None,
                "document_mask": None if masks is None else torch.cat(masks),
                "backend": backend,
                **options,
            }
            if pairs is None:
                return maxsim(left, right, **more)
            index = torch.tensor(pairs, device=device).reshape(-1, 2)
            return maxsim_pairs(left, right, index[:, 0], index[:, 1], **more)

        def theirs(dtype):
            mine = [x.detach().to(dtype).requires_grad_() for x in leaves]
            split = [x.split([len(y) for y in side]) for x, side in zip(mine[:2], sides, strict=True)]
            split_weights = mine[2].split([len(y) for y in sides[0]]) if weights is not None else None
            run = lambda: expression(*split, weights=split_weights, masks=masks, pairs=pairs, **options)  # noqa: E731
            return gradients(run, mine, grad_scores)

        actual = gradients(ours, leaves, grad_scores)
        assert [x.dtype for x in actual] == [torch.float32, *(x.dtype for x in leaves)]
        for found, exact, plain in zip(actual, theirs(torch.float64), theirs(queries[0].dtype), strict=True):
            assert_as_accurate(found, exact, plain, floor=floor)
        return actual

    return run


def test_the_expression_means_what_the_reference_says(rng):
    queries, documents = tokens(rng, [3, 1, 4], 8), tokens(rng, [2, 5, 1], 8)
    weights, masks = (
        [torch.tensor([1.0, 0.0, -2.0]), torch.ones(1), torch.rand(4)],
        [torch.rand(n) > 0.5 for n in (2, 5, 1)],
    )
    masks[0][:], masks[1][2], masks[2][0] = False, True, True
    for normalize in (False, True):
        for masking in ("exclude", "multiply"):
            found = expression(
                [x.double() for x in queries],
                [x.double() for x in documents],
                weights=weights,
                masks=masks,
                normalize=normalize,
                masking=masking,
            )
            expected = reference.maxsim(
                [x.numpy() for x in queries],
                [x.numpy() for x in documents],
                query_weights=[x.tolist() for x in weights],
                document_masks=[x.tolist() for x in masks],
                normalize=normalize,
                masking=masking,
            )
            torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [8, 40, 96])
def test_ragged(check, rng, dim, dtype):
    check(tokens(rng, [12, 1, 33], dim, dtype), tokens(rng, EDGES, dim, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 128, 320])
def test_dims(check, rng, dim, dtype):
    check(tokens(rng, [5, 18], dim, dtype), tokens(rng, [35, 3, 16], dim, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 13, 15, 16, 17, 31, 33, 63, 65, 127, 129])
def test_lengths(check, rng, length, dtype):
    check(tokens(rng, [length, 5], 16, dtype), tokens(rng, [length, length], 16, dtype))


@pytest.fixture
def not_interpreted(backend):
    if backend == "triton" and interpreting():
        pytest.skip("left to GPUs, for the interpreter is slow and runs one program after another")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("Lq", "Ld", "dim"), [(3, 5, 4096), (8192, 20, 8), (20, 8192, 8)])
def test_extremes(not_interpreted, check, rng, Lq, Ld, dim, dtype):
    check(tokens(rng, [Lq], dim, dtype), tokens(rng, [Ld], dim, dtype))


def test_the_longest_with_the_longest(not_interpreted, backend, rng, device):
    queries, documents = (torch.randn(1, 8192, 8, generator=rng).to(device, torch.bfloat16) for _ in range(2))
    queries.requires_grad_()
    scores = maxsim(queries, documents, backend=backend)
    best, where = (queries[0].detach().float() @ documents[0].float().T).max(1)
    torch.testing.assert_close(scores[0, 0], best.sum())
    scores.backward(torch.ones_like(scores))
    assert torch.equal(queries.grad[0], documents[0, where])


def test_random_shapes(check, rng):
    for _ in range(4):
        number = lambda most: int(torch.randint(1, most, (), generator=rng))  # noqa: E731
        dim, dtype = number(80), DTYPES[number(4) - 1]
        queries = tokens(rng, [number(40) for _ in range(number(5))], dim, dtype)
        check(queries, tokens(rng, [number(70) for _ in range(number(6))], dim, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_similarities_negative(check, rng, dtype):
    """Padding that took part would score 0 and win."""
    queries = [x + 10 for x in tokens(rng, [3, 16, 20], 24, dtype)]
    scores = check(queries, [x - 10 for x in tokens(rng, [1, 17, 33], 24, dtype)])[0]
    assert (scores < 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_of_equals_wins(backend, rng, device, dtype):
    few = torch.randn(3, 32, generator=rng).to(device, dtype)
    queries = torch.randn(2, 5, 32, generator=rng).to(device, dtype)
    documents = [few[[0] * 40], few[[1, 2, 1, 2, 0] * 9], few]
    _, found = maxsim(queries, documents, return_argmax=True, backend=backend)
    # Which of the three is best decides, for a product in float64 may round equal rows differently.
    best = (queries.double() @ few.double().T).argmax(-1)  # [2, 5]
    firsts = torch.tensor([[0, 0, 0], [4, 0, 1], [0, 1, 2]], device=device)  # of each in each document
    expected = firsts[:, best].transpose(0, 1)
    assert torch.equal(found, expected)
    assert (found < 5).all()


def test_minus_zero_equals_zero(backend, device):
    documents = torch.tensor([[[-1.0], [-0.0], [0.0], [-0.0]]], device=device)
    _, found = maxsim(torch.ones(1, 3, 1, device=device), documents, return_argmax=True, backend=backend)
    assert found.tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize("kind", ["prefix", "arbitrary", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks(check, rng, kind, dtype):
    queries = [x + 3 for x in tokens(rng, [20, 4], 16, dtype)]
    documents = [x - 3 for x in tokens(rng, [33, 17, 16, 1], 16, dtype)]
    keep = {
        "prefix": lambda n: torch.arange(n) < max(1, n // 3),
        "arbitrary": lambda n: (torch.rand(n, generator=rng) < 0.4) | (torch.arange(n) == n // 2),
        "last": lambda n: torch.arange(n) == n - 1,
    }[kind]
    masks = [keep(len(x)) for x in documents]
    weights = [(torch.rand(len(x), generator=rng) < 0.5).float() for x in queries]
    for document, mask in zip(documents, masks, strict=True):
        assert mask.any()
        document[~mask] = 100.0  # would win
    check(queries, documents, masks=masks, weights=weights)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, in Triton's interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_masked_may_hold_anything(backend, rng, device, dtype):
    queries, documents = (torch.randn(2, 20, 16, generator=rng).to(device, dtype) for _ in range(2))
    query_mask, document_mask = (torch.rand(2, 20, generator=rng).to(device) < 0.5 for _ in range(2))

    def run(poison):
        left, right = queries.clone(), documents.clone()
        left[~query_mask], right[~document_mask] = poison, poison
        leaves = [left.requires_grad_(), right.requires_grad_(), torch.ones(2, 20, device=device).requires_grad_()]
        masks = {"query_mask": query_mask, "document_mask": document_mask, "query_weights": leaves[2]}
        return gradients(lambda: maxsim(left, right, **masks, backend=backend), leaves, torch.ones(2, 2, device=device))

    clean = run(0.0)
    assert not any(x.isnan().any() for x in clean)
    assert (clean[1][~query_mask] == 0).all() and (clean[2][~document_mask] == 0).all()
    assert (clean[3][~query_mask] == 0).all()
    for poison in (torch.nan, torch.inf, -torch.inf):
        for found, expected in zip(run(poison), clean, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_present_nan_makes_the_score_nan(backend, rng, device, dtype):
    queries, documents = torch.randn(3, 18, 16, generator=rng), torch.randn(4, 35, 16, generator=rng)
    queries[1, 17, 3] = documents[0, 0, 0] = documents[2, 34, 15] = torch.nan
    scores = maxsim(queries.to(device, dtype), documents.to(device, dtype), backend=backend)
    assert scores.isnan().tolist() == [[i == 1 or j in (0, 2) for j in range(4)] for i in range(3)]


def test_a_document_without_tokens_scores_minus_infinity(backend, rng, device):
    queries, documents = (torch.randn(3, 5, 16, generator=rng).to(device) for _ in range(2))
    mask = torch.ones(3, 5, dtype=torch.bool, device=device)
    mask[1] = False
    options = {"document_mask": mask, "check": False, "backend": backend}
    scores, found = maxsim(queries, documents, **options, return_argmax=True)
    assert (scores[:, 1] == -torch.inf).all() and scores[:, [0, 2]].isfinite().all()
    assert (found[:, 1] == -1).all() and (found[:, [0, 2]] >= 0).all()
    assert maxsim(queries, documents, query_mask=mask, check=False, backend=backend)[1].tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiply_is_what_pylate_does(backend, rng, device, dtype):
    queries, documents = torch.randn(3, 12, 16, generator=rng) + 1, torch.randn(5, 19, 16, generator=rng) - 1
    query_mask, document_mask = torch.rand(3, 12, generator=rng) < 0.6, torch.rand(5, 19, generator=rng) < 0.6
    document_mask[2] = False
    grad_scores = torch.randn(3, 5, generator=rng).to(device)
    query_mask, document_mask = query_mask.to(device), document_mask.to(device)

    def pylate(left, right):  # colbert_scores of pylate 1.2
        scores = torch.einsum("ash,bth->abst", left, right)
        scores = scores * query_mask[:, None, :, None]
        scores = scores * document_mask[None, :, None, :]
        return scores.max(-1).values.sum(-1)

    def ours(left, right):
        return maxsim(
            left, right, query_mask=query_mask, document_mask=document_mask, masking="multiply", backend=backend
        )

    def run(function, dtype):
        leaves = [x.to(device, dtype).requires_grad_() for x in (queries, documents)]
        return gradients(lambda: function(*leaves), leaves, grad_scores)

    queries, documents = queries.to(dtype), documents.to(dtype)
    for found, exact, plain in zip(run(ours, dtype), run(pylate, torch.float64), run(pylate, dtype), strict=True):
        assert_as_accurate(found, exact, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize(check, rng, dtype):
    lengths = [[12, 1, 33], [5, 31, 16, 40]]
    queries, documents = (tokens(rng, n, 24, dtype) for n in lengths)
    for side in (queries, documents):  # very short and very long tokens, as far as the dtype goes
        for x in side:
            x *= (4.0 ** torch.randint(-3, 4, (len(x), 1), generator=rng)).to(dtype)
    check(queries, documents, normalize=True)


def test_normalize_knows_zeros_and_dust(check, rng):
    """Below 1e-12 a token is divided by that, and no direction is taken out of its gradient."""
    queries, documents = tokens(rng, [12], 8), tokens(rng, [5, 9], 8)
    queries[0][3] = 0
    queries[0][4] *= 1e-13
    documents[1][2:4] = 0
    documents[0] = documents[0] * 1e-14
    check(queries, documents, normalize=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_at_once(check, rng, dtype):
    queries, documents = tokens(rng, [20, 1, 7], 40, dtype), tokens(rng, [33, 5, 17, 2], 40, dtype)
    weights = [torch.randn(len(x), generator=rng) for x in queries]
    masks = [(torch.rand(len(x), generator=rng) < 0.5) | (torch.arange(len(x)) == 0) for x in documents]
    for masking in ("exclude", "multiply"):
        check(queries, documents, weights=weights, masks=masks, normalize=True, masking=masking)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_with_repeats(check, rng, dtype):
    queries, documents = tokens(rng, [20, 1, 7], 16, dtype), tokens(rng, [33, 5, 17, 2, 9], 16, dtype)
    pairs = [(2, 4), (0, 1), (0, 0), (2, 1), (2, 4), (0, 3)]  # query 1 and document 2 in none
    weights = [torch.randn(len(x), generator=rng) for x in queries]
    masks = [(torch.rand(len(x), generator=rng) < 0.5) | (torch.arange(len(x)) == 0) for x in documents]
    _, grad_queries, grad_documents = check(queries, documents, pairs=pairs)
    assert (grad_queries[20:21] == 0).all() and (grad_documents[38:55] == 0).all()
    check(queries, documents, pairs=pairs, weights=weights, masks=masks, normalize=True)


def test_pairs_are_the_numbers_of_the_grid(backend, rng, device):
    queries, documents = (torch.randn(4, 9, 16, generator=rng).to(device) for _ in range(2))
    scores = maxsim(queries, documents, backend=backend)
    i, j = torch.tensor([0, 3, 3, 1], device=device), torch.tensor([2, 2, 0, 1], device=device)
    torch.testing.assert_close(maxsim_pairs(queries, documents, i, j, backend=backend), scores[i, j])
    torch.testing.assert_close(maxsim_pairs(queries, documents, backend=backend), scores.diagonal())


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_again_and_again_the_same_bits(not_interpreted, backend, rng, device, dtype, pairs):
    documents = torch.randn(6, 33, 16, generator=rng).to(device, dtype).requires_grad_()
    queries = torch.randn(5, 17, 16, generator=rng).to(device, dtype).requires_grad_()
    index = torch.randint(0, 5, (2, 12), generator=rng).to(device)

    def run():
        if pairs:
            scores = maxsim_pairs(queries, documents, *index, normalize=True, backend=backend)
        else:
            scores = maxsim(queries, documents, normalize=True, backend=backend)
        return [scores.detach(), *torch.autograd.grad(scores.logsumexp(-1).sum(), (queries, documents))]

    first = run()
    for _ in range(20 if device == "cuda" else 3):
        assert all(torch.equal(x, y) for x, y in zip(run(), first, strict=True))


def test_only_what_is_needed(backend, rng, device):
    """Each subset of gradients is the same as when all are asked for."""
    queries, documents = (torch.randn(2, 9, 16, generator=rng).to(device) for _ in range(2))
    weights = torch.rand(2, 9, generator=rng).to(device)

    def run(needs):
        leaves = [x.clone().requires_grad_(need) for x, need in zip((queries, documents, weights), needs, strict=True)]
        maxsim(leaves[0], leaves[1], query_weights=leaves[2], normalize=True, backend=backend).square().sum().backward()
        return [x.grad for x in leaves]

    everything = run((True, True, True))
    for number in range(1, 7):
        needs = [bool(number >> bit & 1) for bit in range(3)]
        for need, found, expected in zip(needs, run(needs), everything, strict=True):
            assert torch.equal(found, expected) if need else found is None


def test_positions(backend, rng, device):
    queries, documents = tokens(rng, [3, 1, 20], 16), tokens(rng, [5, 33, 1, 17], 16)
    mask = torch.rand(24, generator=rng) < 0.5
    mask[[0, 3, 4]] = True
    left, right = (RaggedTensor.pack([x.to(device) for x in side]) for side in (queries, documents))
    options = {"query_mask": mask.to(device), "return_argmax": True, "backend": backend}
    scores, found = maxsim(left, right, **options)
    assert found.dtype == torch.int64 and found.shape == (3, 4, 20)
    _, of_pairs = maxsim_pairs(left, right, [2, 0], [1, 3], **options)
    masks = mask.split([3, 1, 20])
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            expected = (query @ document.T).argmax(1).masked_fill(~masks[i], -1)
            assert found[i, j].tolist() == expected.tolist() + [-1] * (20 - len(query))
    assert torch.equal(of_pairs, torch.stack([found[2, 1], found[0, 3]]))
    torch.testing.assert_close(scores, maxsim(left, right, query_mask=mask.to(device), backend=backend))
