"""Inner products of sparse vectors over postings are their definition, whatever the segments, threads and deletions."""

import itertools

import numpy as np
import pytest
from random_text import cut

from lateint_kernels.reference import sparse_product
from lateint_kernels.text.building import check_sparse, invert_sparse, join_sparse
from lateint_kernels.text.engine import SparseEngine

TINY, LARGEST = np.float16(6e-8), np.float16(65504)


def vectors(rng, count, vocabulary=60, longest=30):
    """Documents as weights by term, exact in float16, some empty, with frequent and rare terms."""
    found = []
    for _ in range(count):
        terms = np.unique(rng.geometric(0.08, rng.integers(0, longest)).clip(1, vocabulary))
        weights = (rng.gamma(1, 0.8, len(terms)) + 1e-4).astype(np.float16)
        if len(weights) and rng.random() < 0.05:
            weights[0] = rng.choice([TINY, LARGEST])
        found.append({b"t%d" % term: float(weight) for term, weight in zip(terms, weights, strict=True)})
    return found


def postings(documents):
    terms = sorted({term for document in documents for term in document}, reverse=True)
    numbers = {term: number for number, term in enumerate(terms)}
    flat = np.array([numbers[term] for document in documents for term in document], np.uint32)
    weights = np.array([weight for document in documents for weight in document.values()], np.float16)
    return invert_sparse(terms, flat, weights, np.cumsum([0, *map(len, documents)]))


def query_of(rng, vocabulary=60):
    terms = rng.choice(vocabulary, rng.integers(1, 20), replace=False)
    return {b"t%d" % term: float(np.float32(rng.choice([1e-6, 1, 1, 30]) * rng.gamma(1, 1) + 1e-9)) for term in terms}


def assert_ranked(ranking, query, documents, k, live=None, allowed=None):
    """The best by definition, but for the last bit of float32, on which sums in another order may differ."""
    scores = np.float32(sparse_product(query, documents))
    for mask in (live, allowed):
        scores = scores if mask is None else scores * mask
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[scores[best] > 0]
    np.testing.assert_allclose(ranking[1], scores[best], rtol=2e-7)
    np.testing.assert_allclose(ranking[1], scores[ranking[0]], rtol=2e-7)


@pytest.mark.parametrize("seed", range(30))
def test_random_collections(seed):
    rng = np.random.default_rng(seed)
    documents = vectors(rng, int(rng.integers(1, 300)))
    live = (rng.random(len(documents)) > 0.3).astype(np.uint8) if seed % 2 else None
    allowed = (rng.random(len(documents)) > 0.5).astype(np.uint8)
    allowed = allowed if live is None else allowed & live
    engine = SparseEngine([postings(part) for part in cut(rng, documents, int(rng.integers(1, 6)))], live)
    queries, k = [query_of(rng) | {b"nowhere": 2.0} for _ in range(10)], int(rng.integers(1, 40))
    for query, one, other in zip(
        queries, engine.search(queries, k), engine.search(queries, k, allowed=allowed), strict=True
    ):
        assert_ranked(one, query, documents, k, live)
        assert_ranked(other, query, documents, k, live, allowed)
        np.testing.assert_array_equal(engine.score(query, one[0]), one[1])


def test_ranges_beyond_the_first_and_terms_that_are_only_looked_up():
    rng = np.random.default_rng(3)
    documents = [{b"the": 0.0078125, **document} for document in vectors(rng, 12_000, longest=5)]
    engine = SparseEngine([postings(documents[:9_000]), postings(documents[9_000:])])
    for query in ({b"the": 1.0, b"t30": 1.0}, {b"the": 3.0, b"t1": 1.0, b"t2": 0.5, b"t55": 9.0}, {b"the": 1.0}):
        assert_ranked(engine.search([query], 10)[0], query, documents, 10)


def test_the_same_bits_on_any_cut_and_number_of_threads():
    rng = np.random.default_rng(5)
    documents, queries = vectors(rng, 500, 200), [query_of(rng, 200) for _ in range(20)]
    whole = SparseEngine([postings(documents)]).search(queries, 25)
    for threads in (1, 3):
        engine = SparseEngine([postings(part) for part in cut(rng, documents, 7)])
        for one, other in zip(whole, engine.search(queries, 25, threads=threads), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1].view(np.uint32), other[1].view(np.uint32))


def test_every_weight_of_float16_counts_exactly():
    bits = np.arange(1, 0x7C00, dtype=np.uint16)
    weights = bits.view(np.float16).astype(np.float64)
    made = postings([{b"a": weight} for weight in weights])
    np.testing.assert_array_equal(made.posting_weights, bits)
    engine = SparseEngine([made])
    np.testing.assert_array_equal(engine.score({b"a": 1.0}, np.arange(len(bits))), weights.astype(np.float32))
    positions, scores = engine.search([{b"a": 0.5}], 3)[0]
    assert positions.tolist() == [0x7BFE, 0x7BFD, 0x7BFC] and scores[0] == 32752
    check_sparse(made)


@pytest.mark.parametrize("seed", range(6))
def test_joined_segments_are_those_made_together(seed):
    rng = np.random.default_rng(seed)
    documents = vectors(rng, 100)
    live = rng.random(len(documents)) > 0.3
    numbers = np.full(len(documents), -1)
    numbers[live] = np.arange(live.sum()) if seed % 2 else rng.permutation(int(live.sum()))
    parts = cut(rng, documents, 5)
    firsts = np.cumsum([0, *map(len, parts)])
    places = [numbers[first:last] for first, last in itertools.pairwise(firsts)]
    joined = join_sparse([postings(part) for part in parts], places, int(live.sum()) + 1)
    expected = [documents[i] for i in np.argsort(numbers, kind="stable") if live[i]]
    for one, other in zip(joined, postings([*expected, {}]), strict=True):
        np.testing.assert_array_equal(one, other)
    check_sparse(joined)
    with pytest.raises(ValueError, match="places must be different numbers below 1"):
        join_sparse([postings(documents[:2])], [np.array([0, 0])], 1)


@pytest.mark.parametrize("segments", [[], [[]], [[{}, {}]]])
def test_nothing_to_find(segments):
    engine = SparseEngine([postings(documents) for documents in segments])
    (found,) = engine.search([{b"a": 1.0}], 5)
    assert [len(part) for part in found] == [0, 0]


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


DAMAGE = {
    "more documents": ("documents", lambda n: n - 200),
    "term offsets go beyond the bytes": ("term_offsets", lambda a: changed(a, 3, 2**62)),
    "no term offsets": ("term_offsets", lambda a: a[:0]),
    "terms out of order": ("term_bytes", lambda a: a[::-1].copy()),
    "posting offsets are negative": ("posting_offsets", lambda a: changed(a, 1, -(2**62))),
    "documents far away": ("posting_documents", lambda a: a * 0 + np.uint32(2**32 - 1)),
    "the same document for ever": ("posting_documents", lambda a: a * 0),
    "fewer weights": ("posting_weights", lambda a: a[:-1]),
    "weights of nothing": ("posting_weights", lambda a: a * 0),
    "a weight without end": ("posting_weights", lambda a: changed(a, 0, 0x7C00)),
    "a weight that is no number": ("posting_weights", lambda a: changed(a, 5, 0x7E00)),
    "a negative weight": ("posting_weights", lambda a: a | 0x8000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_never_followed(damage):
    name, change = DAMAGE[damage]
    whole = postings(vectors(np.random.default_rng(1), 300))
    damaged = whole._replace(**{name: change(getattr(whole, name))})
    with pytest.raises(RuntimeError, match="the index is damaged: "):
        check_sparse(damaged)
    query = {b"t%d" % number: 1.0 for number in range(60)}
    for call in (
        lambda: SparseEngine([damaged]).search([query, {b"t1": 1.0}], 5),
        lambda: SparseEngine([damaged]).score(query, np.arange(10)),
        lambda: join_sparse([damaged], [np.arange(damaged.documents)], damaged.documents),
    ):
        try:
            call()
        except RuntimeError as error:
            assert "the index is damaged: " in str(error)


def test_what_is_no_postings_or_query_is_refused():
    engine = SparseEngine([postings([{b"a": 1.0}])])
    for weight in (0.0, -1.0, float("nan"), float("inf"), 1e10):
        with pytest.raises(ValueError, match="weights of terms must be from above 0 to 1e9"):
            engine.search([{b"a": weight}], 5)
    with pytest.raises(ValueError, match="weights must be one for each number"):
        invert_sparse([b"a"], np.zeros(2, np.uint32), np.ones(1, np.float16), np.array([0, 2]))
    with pytest.raises(ValueError, match="live must have a number for each of 1 documents"):
        SparseEngine([postings([{b"a": 1.0}])], np.ones(2, np.uint8))
    with pytest.raises(TypeError, match="posting_weights must be a C-contiguous array of uint16"):
        SparseEngine([postings([{b"a": 1.0}])._replace(posting_weights=np.ones(1, np.float16))])
