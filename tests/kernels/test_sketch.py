"""A sketch may change how long a score takes, and nothing else."""

import numpy as np
import pytest

from lateint_kernels import Ragged, Sketched, _cpu, maxsim, maxsim_pairs, to_bfloat16

EDGES = [1, 2, 15, 16, 17, 31, 32, 33, 61, 300, 511, 512, 513, 1100]


def normal(rng, rows, dim):
    return rng.standard_normal((rows, dim)).astype(np.float32)


def assert_same(queries, documents, **settings):
    """Bit for bit."""
    plain = maxsim(queries, Ragged.from_offsets(documents.tokens, documents.offsets), **settings)
    sketched = maxsim(queries, Sketched.of(documents), **settings)
    np.testing.assert_array_equal(sketched.view(np.uint32), plain.view(np.uint32))
    return plain


@pytest.mark.parametrize("dim", [1, 3, 8, 40, 63, 64, 65, 96, 128, 200, 320, 1100])
def test_dims(isa, dim):
    rng = np.random.default_rng(dim)
    queries = Ragged.from_lengths(normal(rng, 90, dim), [32, 1, 17, 40])
    assert_same(queries, Ragged.from_lengths(normal(rng, 420, dim), [300, 1, 16, 33, 70]))


def test_lengths(isa):
    rng = np.random.default_rng(0)
    documents = Ragged.from_lengths(normal(rng, sum(EDGES), 16), EDGES)
    for Lq in (1, 16, 32, 33, 300):
        assert_same(normal(rng, Lq, 16), documents, threads=2)


@pytest.mark.parametrize("shift", [-10, 10])
def test_one_sign(isa, shift):
    rng = np.random.default_rng(0)
    queries, documents = normal(rng, 20, 24) + np.float32(10), normal(rng, sum(EDGES), 24) + np.float32(shift)
    scores = assert_same(queries, Ragged.from_lengths(documents, EDGES))
    assert (scores * shift > 0).all()


def test_ties(isa):
    rng = np.random.default_rng(0)
    few = normal(rng, 3, 32)
    documents = Ragged.pack([few[[0] * 200], few[rng.integers(0, 3, 600)], few])
    assert_same(normal(rng, 40, 32), documents)


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-5, 1e-7])
def test_near_ties(isa, step):
    """Tokens closer to each other than to their sketch."""
    rng = np.random.default_rng(0)
    center = rng.standard_normal(128)
    cloud = (center + step * rng.standard_normal((700, 128))).astype(np.float32)
    queries = (center + 0.3 * rng.standard_normal((40, 128))).astype(np.float32)
    assert_same(queries, Ragged.from_lengths(cloud, [300, 60, 40, 300]))


@pytest.mark.parametrize("right", [1e-44, 1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("left", [1e-44, 1e-38, 1e-12, 1.0, 1e7])
def test_magnitudes(isa, left, right):
    rng = np.random.default_rng(0)
    queries, documents = normal(rng, 20, 48) * np.float32(left), normal(rng, 57, 48) * np.float32(right)
    assert_same(queries, Ragged.from_lengths(documents, [50, 7]))


def test_tokens_of_very_different_norms(isa):
    """In one document, denormal and zero ones among them; on both sides."""
    rng = np.random.default_rng(0)
    for low, high in ((-6, 3), (-45, 15), (-45, -30)):
        norms = (10.0 ** rng.uniform(low, high, (490, 1))).astype(np.float32)
        norms[::7] = 0
        tokens = normal(rng, 490, 64) * norms
        assert_same(tokens[450:], Ragged.from_lengths(tokens[:450], [400, 50]))


def test_one_number_far_larger_than_the_others(isa):
    """The worst case of one scale for a whole token."""
    rng = np.random.default_rng(0)
    queries, documents = normal(rng, 32, 128), normal(rng, 600, 128)
    queries[::2, 5] = documents[::3, 5] = 1e3
    documents[1::3, 6] = -1e6
    assert_same(queries, Ragged.from_lengths(documents, [300, 300]))


@pytest.mark.parametrize("over", [1, 2, 3])
def test_codes_that_mislead_as_much_as_they_can(isa, over):
    """The winner's codes are worse than another token's, by nearly twice what rounding can do along the query."""
    rng = np.random.default_rng(0)
    base, query = rng.integers(-100, 100, 64), rng.choice([-1.0, 1.0], 64)
    base[0], query[0] = 127, 0  # the scale is 1
    winner = base + 0.499 * query
    other = base + np.where(np.arange(64) > over, 0.501, -0.499) * query
    tokens = np.stack([base - 5 * query, other, base - 3 * query, winner] * 10).astype(np.float32)
    queries = np.stack([query, query / 3]).astype(np.float32)
    scores = assert_same(queries, Ragged.from_lengths(tokens, [4, 36]))
    np.testing.assert_allclose(scores, 4 / 3 * (winner @ query), rtol=1e-5)


def test_queries_whose_small_numbers_are_lost(isa):
    """The codes leave nothing, so that only what rounding the query loses can mislead."""
    rng = np.random.default_rng(0)
    documents = (rng.integers(-100, 100, 64) + rng.integers(-1, 2, (900, 64))).astype(np.float32)
    documents[:, 0] = 127
    queries = normal(rng, 200, 64)
    queries[:, 0] = 10.0 ** rng.uniform(2, 5, 200)
    sketched = Sketched.from_lengths(documents, [300, 300, 300])
    assert (sketched.scales == [1, 0]).all()
    assert_same(queries, sketched)


@pytest.mark.parametrize("cast", [lambda x: x.astype(np.float16), to_bfloat16], ids=["float16", "bfloat16"])
def test_halves_as_queries(isa, cast):
    rng = np.random.default_rng(0)
    assert_same(cast(normal(rng, 40, 128)), Ragged.from_lengths(normal(rng, 400, 128), [300, 100]))


def test_random_shapes(isa):
    rng = np.random.default_rng(1)
    for _ in range(40):
        dim, scale = int(rng.integers(8, 321)), 10.0 ** rng.uniform(-3, 3)
        left, right = rng.integers(1, 50, rng.integers(1, 6)), rng.integers(1, 90, rng.integers(1, 9))
        documents = normal(rng, right.sum(), dim) * np.float32(scale) + np.float32(rng.normal())
        documents = documents[rng.integers(0, len(documents), len(documents))]  # some of them twice
        queries = Ragged.from_lengths(normal(rng, left.sum(), dim), left)
        assert_same(queries, Ragged.from_lengths(documents, right), threads=int(rng.integers(1, 4)))


def test_pairs_masks_and_norms(isa):
    rng = np.random.default_rng(0)
    queries = Ragged.from_lengths(normal(rng, 60, 48), [32, 3, 25])
    documents = Ragged.from_lengths(normal(rng, 400, 48), [300, 30, 70])
    sketched = Sketched.of(documents)
    rows, columns = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    np.testing.assert_array_equal(
        maxsim_pairs(queries, sketched, rows, columns), maxsim_pairs(queries, documents, rows, columns)
    )
    np.testing.assert_array_equal(maxsim(queries, sketched, normalize=True), maxsim(queries, documents, normalize=True))
    mask = rng.random(400) < 0.7
    np.testing.assert_array_equal(
        maxsim(queries, sketched, document_mask=mask), maxsim(queries, documents, document_mask=mask)
    )


def test_what_a_sketch_says():
    """The error of every token, and infinity where there is no saying."""
    rng = np.random.default_rng(0)
    tokens = normal(rng, 2000, 40) * (10.0 ** rng.uniform(-10, 10, (2000, 1))).astype(np.float32)
    tokens[3], tokens[4], tokens[5], tokens[6] = 0, 1e-30, 1e30, np.nan
    sketched = Sketched.from_lengths(tokens, [2000])
    scale, error = sketched.scales.T.astype(np.float64)
    assert (scale[3:7] == 0).all() and error[3:7].tolist() == [0, np.inf, np.inf, np.inf]
    codes = sketched.codes[: tokens.size].reshape(tokens.shape)
    left = np.linalg.norm(tokens - scale[:, None] * codes, axis=1)
    usual = np.delete(np.arange(2000), [4, 5, 6])
    assert (left[usual] <= error[usual]).all()
    np.testing.assert_allclose(error[usual], left[usual], rtol=1e-5)
    others = _cpu.sketch(tokens, 1)
    np.testing.assert_array_equal(others[0], sketched.codes)
    np.testing.assert_array_equal(others[1], sketched.scales)


def test_made_like_ragged():
    rng = np.random.default_rng(0)
    padded = rng.standard_normal((3, 5, 8))
    ragged = Ragged.from_padded(padded)
    assert np.shares_memory(Sketched.of(ragged).tokens, ragged.tokens)
    for documents in (
        Sketched.of(ragged),
        Sketched.pack(list(padded)),
        Sketched.from_padded(padded),
        Sketched.from_lengths(padded.reshape(15, 8), [5, 5, 5]),
        Sketched.from_offsets(padded.reshape(15, 8), [0, 5, 10, 15]),
    ):
        assert isinstance(documents, Sketched) and len(documents) == 3 and documents.dim == 8
        np.testing.assert_array_equal(documents.codes, Sketched.of(ragged).codes)
    empty = Sketched.from_lengths(padded.reshape(15, 8)[:0], [])
    assert maxsim(padded[0], empty).shape == (0,)
    assert Sketched.of(Ragged.from_lengths(padded[0], [5, 0], allow_empty=True)).has_empty


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="tokens of a sketch must be float32, got float16"):
        Sketched.from_lengths(np.ones((3, 8), np.float16), [3])
