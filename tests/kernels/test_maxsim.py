import itertools

import numpy as np
import pytest

from lateint_kernels import BFLOAT16, Ragged, maxsim, maxsim_pairs, reference, to_bfloat16, to_float32
from lateint_kernels.dense.array_edge import MAX_DIM

EDGES = [1, 2, 15, 16, 17, 31, 32, 33, 37, 61]
CASTS = {
    "float32": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": to_bfloat16,
    "int8": lambda x: np.clip(np.round(x * 60), -127, 127).astype(np.int8),
}
FLOATS = list(itertools.product(["float32", "float16", "bfloat16"], CASTS))


def tokens(rng, lengths, dim, cast="float32", shift=0.0):
    numbers = rng.standard_normal((sum(lengths), dim)).astype(np.float32) + np.float32(shift)
    return Ragged.from_lengths(CASTS[cast](numbers), lengths)


def plain(queries, documents):
    """What one writes in numpy, in float32."""
    return np.array(
        [[(to_float32(q) @ to_float32(d).T).max(1).sum() for d in documents] for q in queries], dtype=np.float32
    )


def exact(queries, documents):
    """reference.maxsim, vectorised; test_the_reference_is_a_loop holds the two together."""
    left = [to_float32(q).astype(np.float64) for q in queries]
    right = [to_float32(d).astype(np.float64) for d in documents]
    return np.array([[(q @ d.T).max(1).sum() for d in right] for q in left])


def test_the_reference_is_a_loop():
    rng = np.random.default_rng(0)
    queries, documents = tokens(rng, [3, 1], 8), tokens(rng, [2, 5, 1], 8, "float16")
    np.testing.assert_allclose(reference.maxsim(queries, documents), exact(queries, documents), rtol=1e-12)


@pytest.mark.parametrize("casts", FLOATS, ids="-".join)
@pytest.mark.parametrize("dim", [8, 40, 96, 128])
def test_against_the_definition(isa, casts, dim, assert_as_accurate):
    rng = np.random.default_rng(dim)
    queries, documents = tokens(rng, [12, 1, 33], dim, casts[0]), tokens(rng, EDGES, dim, casts[1])
    scores = maxsim(queries, documents, threads=2)
    assert scores.dtype == np.float32
    assert_as_accurate(scores, exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("dim", [1, 3, 7, 16, 31, 33, 63, 65, 104, 127, 136, 257, 320, 4096])
def test_dims(isa, cast, dim, assert_as_accurate):
    rng = np.random.default_rng(dim)
    queries, documents = tokens(rng, [5, 18], dim, cast), tokens(rng, [35, 3, 16], dim, cast)
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("length", [*EDGES, 64, 65, 511, 512, 513, 1100])
def test_document_lengths(isa, cast, length, assert_as_accurate):
    rng = np.random.default_rng(length)
    queries, documents = tokens(rng, [4, 17], 16, cast), tokens(rng, [length, length], 16, cast)
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("length", [*EDGES, 300, 1031])
def test_query_lengths(isa, cast, length, assert_as_accurate):
    rng = np.random.default_rng(length)
    queries, documents = tokens(rng, [length], 16, cast), tokens(rng, [40, 1], 16, cast)
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", CASTS)
def test_all_similarities_negative(isa, cast):
    """Padding that took part would score 0 and win."""
    rng = np.random.default_rng(0)
    queries, documents = tokens(rng, [3, 16, 20], 24, cast, shift=10), tokens(rng, EDGES, 24, cast, shift=-10)
    scores = maxsim(queries, documents)
    assert (scores < 0).all()
    np.testing.assert_allclose(scores, exact(queries, documents), rtol=1e-5)


@pytest.mark.parametrize("cast", CASTS)
def test_repeated_tokens(isa, cast, assert_as_accurate):
    """Ties everywhere: every token of a document is the same one, or a permutation of a few."""
    rng = np.random.default_rng(0)
    queries, few = tokens(rng, [20, 3], 32, cast), tokens(rng, [3], 32, cast).tokens
    documents = Ragged.pack([few[[0] * 200], few[rng.integers(0, 3, 150)], few])
    scores = maxsim(queries, documents)
    assert_as_accurate(scores, exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4, 1e-6])
def test_near_ties(isa, cast, step, assert_as_accurate):
    """Tokens so close that a bfloat16 product cannot tell them apart."""
    rng = np.random.default_rng(0)
    center = rng.standard_normal(128)
    cloud = (center + step * rng.standard_normal((700, 128))).astype(np.float32)
    documents = Ragged.from_lengths(CASTS[cast](cloud), [300, 60, 40, 300])
    queries = Ragged.from_lengths((center + 0.3 * rng.standard_normal((40, 128))).astype(np.float32), [32, 8])
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", ["float32", "bfloat16"])
@pytest.mark.parametrize("scales", [(1e-18, 1e-18), (1e18, 1e-18), (1e-30, 1e30), (1e18, 1e18), (1e-20, 1.0)])
def test_magnitudes(isa, cast, scales, assert_as_accurate):
    rng = np.random.default_rng(0)
    queries = Ragged.from_lengths(CASTS[cast](tokens(rng, [20], 48).tokens * np.float32(scales[0])), [20])
    documents = Ragged.from_lengths(CASTS[cast](tokens(rng, [50, 7], 48).tokens * np.float32(scales[1])), [50, 7])
    floor = 2e-4 if scales == (1e-18, 1e-18) else 2e-7  # bf16 instructions drop products below 1e-38
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents), floor)


def test_tokens_of_very_different_norms(isa, assert_as_accurate):
    rng = np.random.default_rng(0)
    queries, documents = tokens(rng, [20], 64), tokens(rng, [400, 40], 64)
    norms = (10.0 ** rng.uniform(-6, 3, (440, 1))).astype(np.float32)
    documents = Ragged.from_lengths(documents.tokens * norms, [400, 40])
    assert_as_accurate(maxsim(queries, documents), exact(queries, documents), plain(queries, documents))


@pytest.mark.parametrize("cast", CASTS)
def test_zeros(isa, cast):
    rng = np.random.default_rng(0)
    zeros = CASTS[cast](np.array([[-0.0] * 16, [0.0] * 16], dtype=np.float32))
    documents = Ragged.pack([zeros, zeros[:1], tokens(rng, [40], 16, cast).tokens])
    assert maxsim(zeros, documents).tolist() == [0.0] * 3
    some = tokens(rng, [20], 16, cast)
    assert maxsim(some, documents)[:, :2].tolist() == [[0.0, 0.0]]
    mixed = Ragged.pack([np.concatenate([some.tokens, zeros])])
    np.testing.assert_array_equal(maxsim(mixed, documents), maxsim(some, documents))


@pytest.mark.parametrize("cast", CASTS)
def test_a_score_knows_nothing_of_the_batch(isa, cast):
    """Bit for bit: alone, in any batch, as a pair, on any number of threads, and again."""
    rng = np.random.default_rng(0)
    queries = tokens(rng, [7, 12, 1, 32, 40, 3, 3, 100], 48, cast)
    documents = tokens(rng, [*EDGES, 200, 5, 600], 48, cast)
    if cast != "int8":  # near ties, so that some lanes take the long way
        documents.tokens[40:60] = documents.tokens[40]
    scores = maxsim(queries, documents, threads=1)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(maxsim(queries, documents, threads=threads), scores)
    alone = [[maxsim(q, Ragged.pack([d]))[0] for d in documents] for q in queries]
    np.testing.assert_array_equal(np.array(alone), scores)
    rows, columns = rng.integers(0, len(queries), 300), rng.integers(0, len(documents), 300)
    for threads in (1, 3):
        pairs = maxsim_pairs(queries, documents, rows, columns, threads=threads)
        np.testing.assert_array_equal(pairs, scores[rows, columns])


def test_int8_is_the_same_on_every_instruction_set(isa):
    rng = np.random.default_rng(0)
    for dim in (5, 64, 100, 128):
        queries = Ragged.from_lengths(rng.integers(-128, 128, (60, dim), dtype=np.int8), [32, 28])
        documents = Ragged.from_lengths(rng.integers(-128, 128, (400, dim), dtype=np.int8), [300, 99, 1])
        np.testing.assert_array_equal(maxsim(queries, documents), exact(queries, documents).astype(np.float32))


def test_int8_extremes(isa):
    low, high = np.full((40, MAX_DIM), -128, np.int8), np.full((40, MAX_DIM), 127, np.int8)
    for left, right, each in ((low, low, 16384), (low, high, -16256), (high, high, 16129)):
        assert maxsim(left[:2], Ragged.pack([right])).tolist() == [float(np.float32(2 * each * MAX_DIM))]


def test_many_panels(isa):
    """More query tokens than are packed together, and queries longer than that."""
    rng = np.random.default_rng(0)
    queries, documents = tokens(rng, [700, 3, 2500, *[9] * 200], 128), tokens(rng, [20, 40], 128)
    np.testing.assert_allclose(maxsim(queries, documents), exact(queries, documents), rtol=1e-5)


def test_random_shapes(isa, assert_as_accurate):
    rng = np.random.default_rng(1)
    for _ in range(15):
        dim = int(rng.integers(1, 150))
        casts = FLOATS[rng.integers(len(FLOATS))]
        queries = tokens(rng, rng.integers(1, 50, rng.integers(1, 6)).tolist(), dim, casts[0])
        documents = tokens(rng, rng.integers(1, 90, rng.integers(1, 9)).tolist(), dim, casts[1])
        assert_as_accurate(
            maxsim(queries, documents, threads=int(rng.integers(1, 4))),
            exact(queries, documents),
            plain(queries, documents),
        )


def test_what_may_be_given():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 4, 8)).astype(np.float32)
    documents = rng.standard_normal((5, 6, 8)).astype(np.float32)
    scores = maxsim(queries, documents)
    assert scores.shape == (3, 5)
    assert maxsim(queries[0], documents).tolist() == scores[0].tolist()
    for left in (list(queries), Ragged.from_padded(queries), queries.astype(np.float64)):
        for right in (list(documents), Ragged.from_padded(documents)):
            np.testing.assert_array_equal(maxsim(left, right), scores)
    assert maxsim(queries, Ragged.from_lengths(documents[0][:0], [])).shape == (3, 0)
    assert maxsim(queries[:0], documents).shape == (0, 5)
    assert maxsim_pairs(queries, documents, [], []).shape == (0,)


def test_torch_in():
    torch = pytest.importorskip("torch")
    documents = [torch.randn(3, 8).bfloat16(), torch.randn(5, 8).bfloat16()]
    queries = torch.randn(4, 8)
    expected = [float((queries @ d.float().T).max(1).values.sum()) for d in documents]
    np.testing.assert_allclose(maxsim(queries.numpy(), Ragged.pack(documents)), expected, rtol=1e-5)


def test_documents_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tokens.npy", to_bfloat16(rng.standard_normal((30, 16)).astype(np.float32)))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    assert mapped.dtype == BFLOAT16
    queries = rng.standard_normal((4, 16)).astype(np.float32)
    expected = maxsim(queries, Ragged.from_lengths(np.array(mapped), [10, 20]))
    np.testing.assert_array_equal(maxsim(queries, Ragged.from_lengths(mapped, [10, 20])), expected)


F32 = np.ones((2, 3, 8), np.float32)


@pytest.mark.parametrize(
    ("queries", "documents", "error", "message"),
    [
        (F32, F32[..., :4], ValueError, "queries and documents must share dim, got 8 and 4"),
        (F32.astype(np.int8), F32, TypeError, "int8 queries need int8 documents, got float32"),
        (F32.astype(int), F32, TypeError, "queries must be float32, .* got int64"),
        (F32[0, 0], F32, ValueError, r"queries must be \[Lq, dim\], .* got \(8,\)"),
        (F32[0, :0], F32, ValueError, r"queries must be \[Lq, dim\], .* got \(0, 8\)"),
        (F32, F32[0], ValueError, r"documents must be Ragged, .* got \(3, 8\)"),
        (F32, [F32[0], F32[0, :0]], ValueError, "document 1 is empty"),
        ([F32[0], F32[0, :0]], F32, ValueError, "query 1 is empty"),
        (
            F32,
            Ragged.from_lengths(F32[0], [3, 0], allow_empty=True),
            ValueError,
            "document 1 is empty: MaxSim is not defined for it",
        ),
        (np.ones((1, 40000), np.float32), np.ones((1, 1, 40000), np.float32), ValueError, "dim must be at most 32768"),
        ([], F32, ValueError, r"queries must be .* got \(0,\)"),
    ],
)
def test_bad_arguments(queries, documents, error, message):
    with pytest.raises(error, match=message):
        maxsim(queries, documents)


def test_bad_threads():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        maxsim(F32, F32, threads=0)


@pytest.mark.parametrize(
    ("left", "right", "error", "message"),
    [
        ([0, 2], [0, 1], ValueError, "query_index must be from 0 to 1, for there are 2 queries"),
        ([0, 1], [0, -1], ValueError, "document_index must be from 0 to 1, for there are 2 documents"),
        ([0, 1], [0], ValueError, "query_index and document_index must have one length, got 2 and 1"),
        ([0.0, 1.0], [0, 1], TypeError, "query_index must be a list of integers"),
    ],
)
def test_bad_pairs(left, right, error, message):
    with pytest.raises(error, match=message):
        maxsim_pairs(F32, F32, left, right)
