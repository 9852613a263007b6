"""What tensors may be given to MaxSim, in which layouts, and what is refused and how."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from numerics import tokens  # noqa: E402

from lateint_kernels import BackendError, Ragged, RaggedTensor, maxsim, maxsim_pairs  # noqa: E402


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def queries(rng, device):
    return torch.randn(3, 5, 16, generator=rng).to(device)


@pytest.fixture
def documents(rng, device):
    return torch.randn(4, 7, 16, generator=rng).to(device)


def test_layouts_agree(backend, queries, documents):
    scores = maxsim(queries, documents, backend=backend)
    expected = torch.einsum("ash,bth->abst", queries, documents).amax(3).sum(2)
    torch.testing.assert_close(scores, expected)
    assert scores.dtype == torch.float32 and scores.shape == (3, 4)
    packed = RaggedTensor.from_lengths(queries.reshape(15, 16), [5] * 3)
    for left in (queries, list(queries), tuple(queries), packed):
        for right in (documents, list(documents), RaggedTensor.pack(list(documents))):
            torch.testing.assert_close(maxsim(left, right, backend=backend), scores)
    single, found = maxsim(queries[1], documents, return_argmax=True, backend=backend)
    assert single.shape == (4,) and found.shape == (4, 5)
    torch.testing.assert_close(single, scores[1])


def test_candidates(backend, queries, rng):
    candidates = torch.randn(3, 2, 7, 16, generator=rng).to(queries.device).requires_grad_()
    mask = (torch.rand(3, 2, 7, generator=rng) < 0.6).to(queries.device)
    mask[..., 0] = True
    scores, found = maxsim(queries, candidates, document_mask=mask, return_argmax=True, backend=backend)
    similarities = torch.einsum("ash,akth->akst", queries, candidates).masked_fill(~mask[:, :, None], -torch.inf)
    torch.testing.assert_close(scores, similarities.amax(3).sum(2))
    assert torch.equal(found, similarities.argmax(3))
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), candidates)[0] for x in (scores, similarities.amax(3))))


def test_strides_do_not_matter(backend, queries, documents):
    expected = maxsim(queries, documents, backend=backend)
    transposed = queries.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    padded = torch.zeros(8, 9, 20, device=queries.device)
    padded[::2, 1:-1, :16] = documents
    scores = maxsim(transposed, padded[::2, 1:-1, :16], backend=backend)
    torch.testing.assert_close(scores, expected)
    (gradient,) = torch.autograd.grad(scores.sum(), transposed)
    assert gradient.shape == transposed.shape
    one = queries[:1].clone().requires_grad_()
    scores = maxsim(one.expand(3, -1, -1), documents, backend=backend)
    torch.testing.assert_close(scores, expected[:1].expand(3, -1))
    (gradient,) = torch.autograd.grad(scores.sum(), one)
    (once,) = torch.autograd.grad(maxsim(one, documents, backend=backend).sum(), one)
    torch.testing.assert_close(gradient, 3 * once)


def test_nothing_to_score(backend, queries, documents):
    queries.requires_grad_(), documents.requires_grad_()
    empty = torch.tensor([], dtype=torch.int64, device=queries.device)
    for scores, shape in (
        (maxsim(queries, documents[:0], backend=backend), (3, 0)),
        (maxsim(queries[:0], documents, backend=backend), (0, 4)),
        (maxsim(queries[:0], documents[:0][None][:0], backend=backend), (0, 0)),
        (maxsim_pairs(queries, documents, empty, empty, backend=backend), (0,)),
        (maxsim_pairs(queries, documents, [], [], backend=backend), (0,)),
    ):
        assert scores.shape == shape
        found = torch.autograd.grad(scores.sum(), (queries, documents))
        assert all((x == 0).all() for x in found)
    scores, found = maxsim(queries[:0], documents, return_argmax=True, backend=backend)
    assert scores.shape == (0, 4) and found.shape == (0, 4, 5)


def test_one_of_each(backend, device):
    scores, found = maxsim(
        torch.full((1, 1), 2.0, device=device),
        torch.full((1, 1, 1), -3.0, device=device),
        return_argmax=True,
        backend=backend,
    )
    assert (scores.tolist(), found.tolist()) == ([-6.0], [[0]])


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.uint8, torch.float32])
def test_masks_are_what_is_not_zero(backend, queries, documents, rng, kind):
    mask = torch.rand(4, 7, generator=rng).to(queries.device) < 0.5
    mask[:, 6] = True
    expected = maxsim(queries, documents, document_mask=mask, backend=backend)
    assert torch.equal(maxsim(queries, documents, document_mask=mask.to(kind), backend=backend), expected)
    left_out = [document[keep] for document, keep in zip(documents, mask, strict=True)]
    torch.testing.assert_close(maxsim(queries, left_out, backend=backend), expected)
    flat = maxsim(queries, list(documents), document_mask=list(mask), backend=backend)
    assert torch.equal(flat, expected)


def test_query_mask_and_weights(backend, queries, documents, rng):
    mask = torch.rand(3, 5, generator=rng).to(queries.device) < 0.5
    mask[:, 0] = True
    weights = torch.rand(3, 5, generator=rng).to(queries.device)
    both = maxsim(queries, documents, query_mask=mask, query_weights=weights, backend=backend)
    product = maxsim(queries, documents, query_weights=weights * mask, backend=backend)
    torch.testing.assert_close(both, product)
    single = maxsim(queries[0], documents, query_mask=mask[0], query_weights=weights[0], backend=backend)
    torch.testing.assert_close(single, both[0])


def test_float64_is_for_torch(queries, documents):
    left, right = queries.double(), documents.double()
    if queries.device.type == "cpu":
        with pytest.raises(BackendError, match="cpp: takes float32, float16 and bfloat16, not float64"):
            maxsim(left, right, backend="cpp")
    scores = maxsim(left, right)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores.float(), maxsim(queries, documents, backend="torch"))


def test_the_default_is_one_of_them(queries, documents):
    torch.testing.assert_close(maxsim(queries, documents), maxsim(queries, documents, backend="torch"))


Q, D = torch.ones(2, 3, 8), torch.ones(4, 5, 8)
MASK = torch.ones(4, 5, dtype=torch.bool)


def without(mask, row):
    mask = mask.clone()
    mask[row] = False
    return mask


@pytest.mark.parametrize(
    ("left", "right", "options", "error", "message"),
    [
        (Q, D[..., :4], {}, ValueError, "queries and documents must share dim, got 8 and 4"),
        (Q.half(), D, {}, TypeError, "queries and documents must share a dtype, got torch.float16 and torch.float32"),
        (Q.int(), D, {}, TypeError, "queries must be float32, float16, bfloat16 or float64, got torch.int32"),
        (Q, D.to(torch.int8), {}, TypeError, "documents must be float32, .* got torch.int8"),
        (Q, D.to("meta"), {}, ValueError, "queries and documents must be on one device, got cpu and meta"),
        (Q[0, 0], D, {}, ValueError, r"queries must be \[Lq, dim\], \[Nq, Lq, dim\], .* got \(8,\)"),
        (Q[:, :0], D, {}, ValueError, r"queries must be .* got \(2, 0, 8\)"),
        (Q, D[0], {}, ValueError, r"documents must be \[Nd, Ld, dim\], \[Nq, K, Ld, dim\], .* got \(5, 8\)"),
        (Q, D[:, :, :0], {}, ValueError, r"documents must be .* got \(4, 5, 0\)"),
        (Q, D[None], {}, ValueError, r"need queries \[Nq, Lq, dim\], got 1 sets of candidates for 2 queries"),
        (Q[0], D[None], {}, ValueError, "got 1 sets of candidates for one query without a batch axis"),
        (Q, [D[0], D[0, :0]], {}, ValueError, r"document 1 must be \[L, dim\] and not empty, got \(0, 8\)"),
        (Q, [D[0], D[0, :, :4]], {}, ValueError, "document 1 has dim 4, document 0 has 8"),
        (Q, [D[0], D[0].half()], {}, TypeError, "document 1 has torch.float16, document 0 has torch.float32"),
        ([Q[0], 3], D, {}, TypeError, "query 1 must be a tensor like query 0, got int"),
        (Q, [], {}, ValueError, "there must be at least one document to pack"),
        (Q, np.ones((4, 5, 8), np.float32), {}, TypeError, "must both be torch tensors or neither, got ndarray"),
        (Q.numpy(), D, {}, TypeError, "queries and documents must both be torch tensors or neither, got ndarray"),
        (Q, Ragged.pack([np.ones((5, 8), np.float32)]), {}, TypeError, "neither, got Ragged for documents"),
        (Q, D, {"document_mask": MASK[:3]}, ValueError, r"document_mask must be \[4, 5\], .* got \[3, 5\]"),
        (Q, D, {"document_mask": MASK.numpy()}, TypeError, "document_mask must be a torch tensor, got ndarray"),
        (
            Q,
            D,
            {"document_mask": MASK.to("meta")},
            ValueError,
            "document_mask must be on cpu like the tokens, got meta",
        ),
        (Q, D, {"query_mask": MASK}, ValueError, r"query_mask must be \[2, 3\], one number for each token"),
        (Q, D, {"query_weights": torch.ones(2, 3, 1)}, ValueError, r"query_weights must be \[2, 3\]"),
        (Q, D, {"query_weights": torch.ones(2, 3).int()}, TypeError, "query_weights must be floats, got torch.int32"),
        (
            Q,
            D,
            {"document_mask": without(MASK, 2)},
            ValueError,
            "leave every document a token, but document 2 has none",
        ),
        (Q, D, {"query_mask": without(MASK[:2, :3], 1)}, ValueError, "leave every query a token, but query 1 has none"),
        (Q, D, {"masking": "ignore"}, ValueError, "masking must be 'exclude' or 'multiply', got 'ignore'"),
        (Q, D, {"backend": "fortran"}, ValueError, "backend must be one of cpp, cuda, torch, triton, got 'fortran'"),
        (Q, D, {"backend": "cuda"}, BackendError, "cannot run maxsim of float32 on cpu: cuda: runs on cuda only"),
        (Q, D, {"threads": 2}, ValueError, "threads is for arrays, got 2 with tensors"),
    ],
)
def test_bad_arguments(left, right, options, error, message):
    with pytest.raises(error, match=message):
        maxsim(left, right, **options)


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        ([0, 2], [0, 1], ValueError, "query_index must be from 0 to 1, for there are 2 queries"),
        ([0, 1], [0, -1], ValueError, "document_index must be from 0 to 3, for there are 4 documents"),
        ([0, 1], [0], ValueError, "query_index and document_index must have one length, got 2 and 1"),
        ([0.0, 1.0], [0, 1], TypeError, r"query_index must be a list of integers, got torch.float32 \(2,\)"),
        (torch.ones(1, 1).int(), [0], TypeError, "query_index must be a list of integers"),
        ([0], None, ValueError, "query_index and document_index must be given together or not at all"),
        (None, None, ValueError, "pairs without an index need as many queries as documents, got 2, 4"),
    ],
)
def test_bad_pairs(first, second, error, message):
    with pytest.raises(error, match=message):
        maxsim_pairs(Q, D, first, second)


def test_multiply_does_not_mind_what_is_all_masked():
    scores = maxsim(Q, D, document_mask=without(MASK, 2), masking="multiply")
    assert (scores[:, 2] == 0).all()


def test_ragged_tensor(rng):
    matrices = tokens(rng, [3, 1, 4], 8)
    packed = RaggedTensor.pack(matrices)
    assert (len(packed), packed.dim, packed.max_length, packed.lengths.tolist()) == (3, 8, 4, [3, 1, 4])
    assert all(torch.equal(packed[i], matrix) for i, matrix in enumerate(matrices))
    assert torch.equal(packed[-1], matrices[2])
    with pytest.raises(IndexError, match="index 3 is out of range for 3 matrices"):
        packed[3]
    padded = torch.nn.utils.rnn.pad_sequence(matrices, batch_first=True)
    mask = torch.arange(4) < torch.tensor([3, 1, 4])[:, None]
    for other in (
        RaggedTensor.from_lengths(packed.tokens, torch.tensor([3, 1, 4])),
        RaggedTensor.from_offsets(packed.tokens, [0, 3, 4, 8]),
        RaggedTensor.from_padded(padded, mask.long()),
    ):
        assert torch.equal(other.tokens, packed.tokens) and other.max_length == 4
        assert other.offsets.tolist() == [0, 3, 4, 8]
    assert len(RaggedTensor.from_lengths(packed.tokens[:0], [])) == 0


def test_gradients_flow_through_packing(rng):
    queries = torch.randn(2, 3, 8, generator=rng)
    padded = torch.randn(3, 4, 8, generator=rng).requires_grad_()
    mask = torch.arange(4) < torch.tensor([[3], [1], [4]])
    packed = maxsim(queries, RaggedTensor.from_padded(padded, mask))
    masked = maxsim(queries, padded, document_mask=mask)
    torch.testing.assert_close(packed, masked)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), padded)[0] for x in (packed, masked)))


T = torch.ones(5, 8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: RaggedTensor.from_lengths(T, [2, 2]),
            ValueError,
            "lengths must add up to the number of tokens 5, got 4",
        ),
        (lambda: RaggedTensor.from_lengths(T, [5, 0]), ValueError, r"document 1 is empty: offsets 5\.\.5"),
        (lambda: RaggedTensor.from_lengths(T, [2.5, 2.5]), TypeError, "lengths must be a list of integers"),
        (lambda: RaggedTensor.from_offsets(T, [0, 4]), ValueError, "offsets must end at the number of tokens 5, got 4"),
        (lambda: RaggedTensor.from_offsets(T, []), ValueError, "offsets must start at 0, got none"),
        (lambda: RaggedTensor.from_offsets(T, [0, 3, 3, 5]), ValueError, r"document 1 is empty: offsets 3\.\.3"),
        (lambda: RaggedTensor.from_lengths(T.int(), [5]), TypeError, "tokens must be a tensor of .* got torch.int32"),
        (lambda: RaggedTensor.from_lengths(T.numpy(), [5]), TypeError, "tokens must be a tensor of .* got ndarray"),
        (lambda: RaggedTensor.from_lengths(T[None], [5]), ValueError, r"tokens must be \[T, dim\], got \(1, 5, 8\)"),
        (lambda: RaggedTensor.from_padded(T, T), ValueError, "padded must be a tensor"),
        (lambda: RaggedTensor.from_padded(T[None], T), ValueError, r"mask must be \[1, 5\] on cpu, got \[5, 8\]"),
        (lambda: RaggedTensor.from_padded(T[None], torch.zeros(1, 5)), ValueError, "document 0 is empty"),
        (lambda: RaggedTensor.pack([T, T.to("meta")]), ValueError, "document 1 is on meta, document 0 on cpu"),
        (
            lambda: RaggedTensor.from_lengths(T.to_sparse(), [5]),
            TypeError,
            "tokens must be a dense tensor, got torch.sparse_coo",
        ),
    ],
)
def test_bad_ragged_tensors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def not_dense():
    ragged = [torch.ones(2, 8), torch.ones(1, 8)]
    return {
        "sparse": torch.ones(2, 3, 8).to_sparse(),
        "nested": torch.nested.as_nested_tensor(ragged, layout=torch.jagged),
    }


@pytest.mark.parametrize("kind", ["sparse", "nested"])
@pytest.mark.parametrize("name", ["queries", "documents", "query_mask", "query_weights"])
def test_tensors_that_are_not_dense_are_refused(kind, name):
    given = {"queries": torch.ones(2, 3, 8), "documents": torch.ones(2, 3, 8)}
    with pytest.raises(TypeError, match=f"{name} must be a dense tensor, got"):
        maxsim(**{**given, name: not_dense()[kind]})
    if "_" in name:
        return
    with pytest.raises(
        TypeError, match=f"{ {'queries': 'query', 'documents': 'document'}[name] } 0 must be a dense tensor"
    ):
        maxsim(**{**given, name: [not_dense()[kind]]})


def test_tensors_without_numbers_are_refused():
    with pytest.raises(TypeError, match="queries must hold numbers, got a tensor on meta"):
        maxsim(Q.to("meta"), D.to("meta"))
    index = torch.zeros(2, dtype=torch.int64, device="meta")
    with pytest.raises(TypeError, match="query_index must hold numbers, got a tensor on meta"):
        maxsim_pairs(Q, D, index, [0, 1])
