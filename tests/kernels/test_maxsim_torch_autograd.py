"""MaxSim as an operator of torch: gradients, tracing, compilation, autocast, and what it keeps in memory."""

import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import RaggedTensor, maxsim, maxsim_pairs  # noqa: E402
from lateint_kernels.dense.problem import Problem, inverse_norms  # noqa: E402


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def sides(rng, device):
    """Queries ``[3, 5, 16]`` and documents ``[4, 7, 16]``."""
    return [torch.randn(*shape, generator=rng).to(device).requires_grad_() for shape in ((3, 5, 16), (4, 7, 16))]


@pytest.fixture(params=["grid", "pairs"])
def problem(request, rng, device):
    queries, documents = (torch.randn(n, 16, generator=rng).to(device).requires_grad_() for n in (8, 20))
    index = (torch.tensor([1, 0, 1], device=device), torch.tensor([2, 2, 0], device=device))
    return Problem(
        queries=queries,
        query_offsets=torch.tensor([0, 3, 8], device=device),
        documents=documents,
        document_offsets=torch.tensor([0, 4, 11, 20], device=device),
        max_query_length=5,
        max_document_length=9,
        query_weights=torch.rand(8, generator=rng).to(device).requires_grad_(),
        query_inverse_norms=inverse_norms(queries),
        document_inverse_norms=inverse_norms(documents),
        document_scales=torch.rand(20, generator=rng).to(device),
        document_mask=torch.ones(20, dtype=torch.bool, device=device),
        query_index=index[0] if request.param == "pairs" else None,
        document_index=index[1] if request.param == "pairs" else None,
    )


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masking", ["exclude", "multiply"])
def test_gradcheck(rng, device, pairs, normalize, masking):
    shapes = [(9, 4), (12, 4), (9,)]
    leaves = [torch.randn(*s, generator=rng, dtype=torch.float64).to(device).requires_grad_() for s in shapes]
    mask = (torch.arange(12) % 3 != 1).to(device)

    def run(queries, documents, weights):
        left, right = RaggedTensor.from_lengths(queries, [3, 1, 5]), RaggedTensor.from_lengths(documents, [5, 2, 5])
        options = {"query_weights": weights, "document_mask": mask, "normalize": normalize, "masking": masking}
        if pairs:
            return maxsim_pairs(left, right, [2, 0, 2, 1, 2], [0, 1, 1, 2, 0], **options, backend="torch")
        return maxsim(left, right, **options, backend="torch")

    assert run(*leaves).dtype == torch.float64
    assert torch.autograd.gradcheck(run, leaves)


# torch 2.14's opcheck itself looks at the gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.any_tiles
def test_opcheck(problem, backend):
    from lateint_kernels.dense.operator import NAMES

    fields = [getattr(problem, name) for name in NAMES]
    torch.library.opcheck(torch.ops.lateint.maxsim.default, (*fields, True, backend))
    detached = [x.detach() if isinstance(x, torch.Tensor) else x for x in fields]
    torch.library.opcheck(torch.ops.lateint.maxsim.default, (*detached, False, backend))
    scores, argmax = torch.ops.lateint.maxsim(*detached, True, backend)
    for needs in ([True, True, True], [False, True, False]):
        torch.library.opcheck(
            torch.ops.lateint.maxsim_backward.default,
            (*detached, torch.randn_like(scores), argmax, needs, backend),
        )


def test_opcheck_of_the_checks(device):
    mask, offsets = torch.ones(6, dtype=torch.bool, device=device), torch.tensor([0, 2, 6], device=device)
    torch.library.opcheck(torch.ops.lateint.checked_mask.default, (mask, offsets, "document"))
    torch.library.opcheck(torch.ops.lateint.checked_index.default, (offsets, 7, "query_index", "queries"))


@pytest.mark.any_tiles
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.long)])
def test_compile_without_a_graph_break(sides, backend, device, dynamic):
    mask = torch.ones(4, 7, dtype=torch.bool, device=device)
    mask[2, 3:] = False

    def loss(queries, documents, mask):
        scores = maxsim(queries * 2, documents.tanh(), document_mask=mask, normalize=True, backend=backend)
        return scores.log_softmax(1).diagonal().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for function in (compiled, loss):
        function(*sides, mask).backward()
    once = torch.autograd.grad(loss(*sides, mask), sides)
    for side, expected in zip(sides, once, strict=True):
        torch.testing.assert_close(side.grad, 2 * expected)
    with pytest.raises(ValueError, match="document 0 has none left"):
        compiled(*sides, torch.zeros_like(mask))


def test_compile_of_pairs_and_ragged(sides, backend):
    queries, documents = sides
    packed = RaggedTensor.from_lengths(documents.detach().reshape(28, 16), [3, 20, 5])

    def run(queries, packed, first, second):
        return maxsim_pairs(queries, packed, first, second, return_argmax=True, backend=backend)

    torch.compiler.reset()
    index = torch.tensor([0, 2], device=queries.device)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        compiled(queries, packed, index, index), run(queries, packed, index, index), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_autocast(sides, backend, device):
    kind = torch.device(device).type
    with torch.autocast(kind, dtype=torch.bfloat16):
        scores = maxsim(*sides, backend=backend)
        mixed = maxsim(sides[0], sides[1].bfloat16(), backend=backend)
    expected = maxsim(*(x.bfloat16() for x in sides), backend=backend)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected) and torch.equal(mixed, expected)
    found = torch.autograd.grad(scores.sum(), sides)
    assert [x.dtype for x in found] == [torch.float32] * 2
    for gradient, right in zip(found, torch.autograd.grad(expected.sum(), sides), strict=True):
        assert torch.equal(gradient, right)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_float32_is_not_shortened(sides, backend, precision):
    before = torch.get_float32_matmul_precision()
    expected = maxsim(*sides, backend=backend)
    try:
        torch.set_float32_matmul_precision(precision)
        assert torch.equal(maxsim(*sides, backend=backend), expected)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.any_tiles
@pytest.mark.parametrize(("Ld", "bytes_each"), [(256, 1), (257, 2)])
def test_saved_for_backward(backend, device, Ld, bytes_each):
    """Besides the inputs, at most 2 bytes for each query token and document."""
    queries, documents = (torch.zeros(3, n, 8, device=device, requires_grad=True) for n in (40, Ld))
    saved = {}
    keep = lambda x: saved.setdefault(x.untyped_storage().data_ptr(), x)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        maxsim(queries, documents, backend=backend)
    inputs = {x.untyped_storage().data_ptr() for x in (queries, documents)}
    extra = sum(x.untyped_storage().nbytes() for pointer, x in saved.items() if pointer not in inputs)
    offsets = 2 * 4 * 8
    assert 0 < extra <= bytes_each * 3 * 40 * 3 + offsets


def test_nothing_is_kept_without_gradients(sides, backend):
    with torch.no_grad():
        assert maxsim(*sides, backend=backend).grad_fn is None
    with torch.inference_mode():
        assert not maxsim(*sides, backend=backend).requires_grad
    detached = [x.detach() for x in sides]
    assert maxsim(*detached, backend=backend).grad_fn is None


def test_a_second_derivative_is_refused(sides, backend):
    (gradient,) = torch.autograd.grad(maxsim(*sides, backend=backend).sum(), sides[0], create_graph=True)
    with pytest.raises(RuntimeError, match="maxsim can be differentiated once only"):
        gradient.sum().backward()


def test_gradients_that_are_expanded_or_missing(sides, backend):
    scores = maxsim(*sides, backend=backend)
    expected = torch.autograd.grad(scores, sides, torch.full((3, 4), 2.0, device=scores.device), retain_graph=True)
    for given in (torch.tensor(2.0, device=scores.device).expand(3, 4), torch.full((4, 3), 2.0).to(scores.device).T):
        for found, right in zip(torch.autograd.grad(scores, sides, given, retain_graph=True), expected, strict=True):
            assert torch.equal(found, right)


@pytest.mark.gpu
def test_cuda_graph(device, backend):
    if device == "cpu":
        pytest.skip("needs a GPU")
    queries, documents = (torch.randn(4, 9, 64, device=device, requires_grad=True) for _ in range(2))
    mask = torch.ones(4, 9, dtype=torch.bool, device=device)
    options = {"document_mask": mask, "backend": backend}

    def step(check):
        return torch.autograd.grad(maxsim(queries, documents, **options, check=check).sum(), (queries, documents))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = step(True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(False)
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
    with (
        pytest.raises(RuntimeError, match="a CUDA graph cannot record: pass check=False"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        step(True)
