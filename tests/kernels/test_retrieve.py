import importlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from lateint_kernels import Ragged, maxsim
from lateint_kernels.retrieve import TopK, retrieve

MODULE = importlib.import_module("lateint_kernels.retrieve")
LENGTHS = [3, 1, 4, 2, 5, 1, 2, 6, 3, 3, 1]


def sides(kind, seed=0):
    """Queries and documents in each layout, of few values so that many scores are equal; and a mask for padded ones."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (4, 3, 5)).astype(np.float32)
    documents = [rng.integers(-1, 2, (length, 5)).astype(np.float32) for length in LENGTHS]
    if kind == "list":
        return queries, documents, None
    if kind == "packed":
        return queries, Ragged.pack(documents), None
    padded = np.full((len(LENGTHS), max(LENGTHS), 5), 9, np.float32)  # padding that would win
    for row, document in zip(padded, documents, strict=True):
        row[: len(document)] = document
    return queries, padded, np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]


def expected(queries, documents, mask, k):
    scores = np.asarray(maxsim(queries, documents, document_mask=mask))
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(scores, order, -1), order


@pytest.mark.parametrize("chunk", [1, 2, 5, 11, None])
@pytest.mark.parametrize("k", [1, 3, 11, 50])
@pytest.mark.parametrize("kind", ["list", "packed", "padded"])
def test_against_sorting_all_scores(kind, k, chunk):
    queries, documents, mask = sides(kind)
    found = retrieve(queries, documents, k, document_mask=mask, chunk=chunk)
    scores, indices = expected(queries, documents, mask, k)
    assert isinstance(found, TopK) and found.scores.dtype == np.float32 and found.indices.dtype == np.int64
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("chunk", [1, 2, 5, 11, None])
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("kind", ["list", "packed", "padded"])
def test_tensors(kind, k, chunk):
    torch = pytest.importorskip("torch")
    from lateint_kernels import RaggedTensor

    queries, documents, mask = sides(kind)
    scores, indices = expected(queries, documents, mask, k)
    queries = torch.tensor(queries, requires_grad=True)
    mask = None if mask is None else torch.tensor(mask)
    if kind == "padded":
        documents = torch.tensor(documents)
    else:
        documents = [torch.tensor(document) for document in documents]
        documents = RaggedTensor.pack(documents) if kind == "packed" else documents
    found = retrieve(queries, documents, k, document_mask=mask, chunk=chunk)
    assert found.scores.dtype == torch.float32 and found.indices.dtype == torch.int64
    assert not found.scores.requires_grad
    np.testing.assert_array_equal(found.indices.numpy(), indices)
    np.testing.assert_array_equal(found.scores.numpy(), scores)


def test_one_query_and_other_options():
    queries, documents, mask = sides("padded")
    found = retrieve(queries[1], documents, 4, document_mask=mask, normalize=True, chunk=3)
    scores = maxsim(queries[1], documents, document_mask=mask, normalize=True)
    np.testing.assert_array_equal(found.indices, np.argsort(-scores, kind="stable")[:4])
    weights = np.array([[1.0, 0.0, 2.0]] * 4, np.float32)
    found = retrieve(queries, documents, 4, document_mask=mask, query_weights=weights, query_mask=weights > 0, chunk=3)
    scores = maxsim(queries, documents, document_mask=mask, query_weights=weights)
    np.testing.assert_array_equal(found.indices, np.argsort(-scores, axis=1, kind="stable")[:, :4])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_float_has_its_place(library):
    """Infinities, denormals, both zeros, and NaN, which comes last; arrays must not hold NaN."""
    smallest, nan = np.float32(1e-45), np.nan if library == "torch" else -np.inf
    values = [0.0, nan, -np.inf, 3.5, -0.0, np.inf, -smallest, smallest, -2.0, 3.4e38, -3.4e38, nan]
    documents = np.array(values, np.float32).reshape(-1, 1, 1)
    order = [5, 9, 3, 7, 0, 4, 6, 8, 10, *([2, 1, 11] if library == "torch" else [1, 2, 11])]
    query = np.ones((1, 1, 1), np.float32)
    if library == "torch":
        torch = pytest.importorskip("torch")
        query, documents = torch.tensor(query), torch.tensor(documents)
    for chunk in (1, 5, None):
        found = retrieve(query, documents, len(values), chunk=chunk)
        assert found.indices[0].tolist() == order
        np.testing.assert_array_equal(np.asarray(found.scores[0]), np.array(values, np.float32)[order])


def test_memory_is_bounded(monkeypatch):
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((64, 2, 4), np.float32), rng.standard_normal((20_000, 2, 4), np.float32)
    monkeypatch.setitem(MODULE.SCORES, "cpu", 1 << 13)
    monkeypatch.setattr(MODULE, "NUMBERS", 1 << 12)
    retrieve(queries, documents[:500], 10)
    tracemalloc.start()
    found = retrieve(queries, documents, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.indices, expected(queries, documents, None, 10)[1])
    lists = 8 * len(documents)  # the offsets
    assert peak < lists * 2 + 60 * (1 << 13), peak  # all scores would be 5 MB


def test_chunks_are_cut_by_scores_and_tokens(monkeypatch):
    seen = []
    original = MODULE.maxsim
    monkeypatch.setattr(MODULE, "maxsim", lambda q, d, **options: seen.append(len(d)) or original(q, d, **options))
    monkeypatch.setattr(MODULE, "NUMBERS", 5 * 7)  # 7 tokens
    queries, documents, _ = sides("packed")
    retrieve(queries, documents, 2)
    assert seen == [2, 2, 2, 1, 1, 3]
    seen.clear()
    monkeypatch.setitem(MODULE.SCORES, "cpu", 4)
    retrieve(queries, documents, 2)
    assert seen == [1] * len(LENGTHS)


def test_memory_maps_and_no_torch(tmp_path):
    """Arrays need no torch, and a map is read chunk by chunk."""
    program = """
import sys
import numpy as np
from lateint_kernels.retrieve import retrieve
documents = np.load("documents.npy", mmap_mode="r")
print(retrieve(documents[3][None], documents, 1, chunk=2).indices.tolist(), "torch" in sys.modules)
"""
    documents = np.random.default_rng(0).standard_normal((7, 4, 8)).astype(np.float32)
    np.save(tmp_path / "documents.npy", documents / np.linalg.norm(documents, axis=2, keepdims=True))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[[3]] False\n", "")


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", ["list", "packed", "padded"])
def test_documents_on_either_device(kind, where):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    from lateint_kernels import RaggedTensor

    queries, documents, mask = sides(kind)
    indices = expected(queries, documents, mask, 5)[1]
    if kind == "padded":
        documents, mask = torch.tensor(documents, device=where), torch.tensor(mask, device=where)
    else:
        documents = [torch.tensor(document, device=where) for document in documents]
        documents = RaggedTensor.pack(documents) if kind == "packed" else documents
    found = retrieve(torch.tensor(queries, device="cuda"), documents, 5, document_mask=mask, chunk=3)
    assert found.indices.device.type == "cuda"
    np.testing.assert_array_equal(found.indices.cpu().numpy(), indices)


NUMBERS = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieve(NUMBERS, NUMBERS, 0), "k must be at least 1, got 0"),
        (lambda: retrieve(NUMBERS, NUMBERS, 1, chunk=0), "chunk must be at least 1, got 0"),
        (lambda: retrieve(NUMBERS, NUMBERS[:0], 1), "documents must not be empty"),
        (lambda: retrieve(NUMBERS, [], 1), "documents must not be empty"),
        (lambda: retrieve(NUMBERS, NUMBERS[0], 1), r"documents must be \[Nd, Ld, dim\], packed or a list .* \(3, 4\)"),
        (lambda: retrieve(NUMBERS, NUMBERS[:, :, :3], 1), "queries and documents must share dim, got 4 and 3"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_package_has_the_function():
    import lateint_kernels

    assert lateint_kernels.retrieve is retrieve
