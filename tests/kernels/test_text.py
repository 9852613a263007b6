"""BM25 over postings is its definition, whatever the segments, threads, deletions and ties."""

import itertools
import threading
from collections import Counter

import numpy as np
import pytest
from random_text import cut, postings, words

from lateint_kernels.reference import bm25
from lateint_kernels.text.building import check, invert, join
from lateint_kernels.text.engine import TextEngine


def expected(query, documents, k, live=None, allowed=None, **parameters):
    """The best documents by definition: what is deleted is not there at all."""
    there = [p for p in range(len(documents)) if live is None or live[p]]
    scores = bm25(query, [documents[p] for p in there], **parameters)
    found = [
        (-np.float32(score), p)
        for p, score in zip(there, scores, strict=True)
        if score > 0 and (allowed is None or allowed[p])
    ]
    found.sort()
    return [p for _, p in found[:k]], [-score for score, _ in found[:k]]


def assert_ranked(ranking, positions, scores):
    """The same but for the last bit of float32, on which sums in another order may differ."""
    np.testing.assert_allclose(ranking[1], scores, rtol=2e-7)
    for found, wanted, score in zip(ranking[0].tolist(), positions, scores, strict=True):
        assert found == wanted or np.isclose(ranking[1][ranking[0].tolist().index(found)], score, rtol=2e-7)


def query_of(rng, vocabulary=40, most=8):
    return dict(Counter(b"t%d" % number for number in rng.integers(0, vocabulary, rng.integers(1, most))))


@pytest.mark.parametrize("seed", range(40))
def test_random_collections(seed):
    rng = np.random.default_rng(seed)
    documents = words(rng, int(rng.integers(1, 300)))
    live = (rng.random(len(documents)) > 0.3).astype(np.uint8) if seed % 2 else None
    parameters = {"k1": float(rng.choice([0, 0.5, 1.2, 3])), "b": float(rng.choice([0, 0.75, 1]))}
    engine = TextEngine([postings(part) for part in cut(rng, documents, int(rng.integers(1, 6)))], live, **parameters)
    queries = [query_of(rng) | {b"nowhere": 2} for _ in range(10)]
    k = int(rng.integers(1, 40))
    for query, ranking in zip(queries, engine.search(queries, k), strict=True):
        assert_ranked(ranking, *expected(query, documents, k, live, **parameters))


def test_an_allowed_document_keeps_its_score():
    rng = np.random.default_rng(0)
    documents, query = words(rng, 200), {b"t0": 1, b"t5": 2}
    live = (rng.random(200) > 0.3).astype(np.uint8)
    allowed = live & (rng.random(200) > 0.5)
    (ranking,) = TextEngine([postings(documents)], live).search([query], 20, allowed=allowed)
    assert_ranked(ranking, *expected(query, documents, 20, live, allowed))


@pytest.mark.parametrize("parts", [2, 7])
def test_the_same_bits_on_any_cut_and_number_of_threads(parts):
    rng = np.random.default_rng(parts)
    documents = words(rng, 500, vocabulary=200)
    queries = [query_of(rng, 200) for _ in range(30)]
    whole = TextEngine([postings(documents)]).search(queries, 25)
    for threads in (1, 2, 3):
        engine = TextEngine([postings(part) for part in cut(rng, documents, parts)])
        for one, other in zip(whole, engine.search(queries, 25, threads=threads), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1].view(np.uint32), other[1].view(np.uint32))


def test_ties_are_in_the_order_of_documents():
    documents = [[b"a", b"b"], [b"b", b"c"]] * 10_000
    positions, scores = TextEngine([postings(documents[:9]), postings(documents[9:])]).search([{b"b": 1}], 7)[0]
    assert positions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(set(scores.tolist())) == 1


def test_ranges_beyond_the_first_and_terms_that_are_only_looked_up():
    rng = np.random.default_rng(3)
    documents = [[b"the", *document] for document in words(rng, 30_000, vocabulary=60, longest=8)]
    engine = TextEngine([postings(documents[:20_000]), postings(documents[20_000:])])
    for query in ({b"the": 1, b"t30": 1}, {b"the": 3, b"t1": 1, b"t2": 1, b"t25": 1}, {b"the": 1}):
        assert_ranked(engine.search([query], 10)[0], *expected(query, documents, 10))


def test_counts_beyond_a_byte():
    documents = [[b"a"] * count + [b"b"] for count in (1, 254, 255, 256, 300, 70_000)] + [[b"b"]]
    segment = postings(documents)
    assert segment.posting_counts.tolist() == [1, 254, 255, 255, 255, 255, *[1] * 7]
    assert segment.large_counts.tolist() == [255, 256, 300, 70_000]
    query = {b"a": 1, b"b": 1}
    assert_ranked(TextEngine([segment]).search([query], 10)[0], *expected(query, documents, 10))
    check(segment)


def test_scores_of_chosen_documents():
    rng = np.random.default_rng(4)
    documents, query = words(rng, 150), {b"t1": 1, b"t9": 1, b"t20": 3}
    engine = TextEngine([postings(part) for part in cut(rng, documents, 4)])
    positions = rng.permutation(150)[:60]
    np.testing.assert_allclose(engine.score(query, positions), np.array(bm25(query, documents))[positions], rtol=2e-7)
    found, scores = engine.search([query], 30)[0]
    np.testing.assert_array_equal(engine.score(query, found), scores)


def test_statistics_are_of_live_documents():
    documents = [[b"a"], [b"a", b"b", b"b"], [], [b"b"]]
    engine = TextEngine([postings(documents[:2]), postings(documents[2:])], np.array([0, 1, 1, 1], np.uint8))
    assert engine.statistics({b"a": 1, b"b": 1, b"c": 1}) == (2, 4, {b"a": 1, b"b": 2, b"c": 0})


@pytest.mark.parametrize("segments", [[], [[]], [[[], []]]])
def test_nothing_to_find(segments):
    engine = TextEngine([postings(documents) for documents in segments])
    (found,) = engine.search([{b"a": 1}], 5)
    assert [len(part) for part in found] == [0, 0]
    assert engine.search([{}], 5)[0][0].tolist() == []


@pytest.mark.parametrize("seed", range(10))
def test_joined_segments_are_those_made_together(seed):
    rng = np.random.default_rng(seed)
    documents = [*words(rng, 100), [b"t0"] * 300]
    live = rng.random(len(documents)) > 0.3
    numbers = np.full(len(documents), -1)
    numbers[live] = np.arange(live.sum()) if seed % 2 else rng.permutation(int(live.sum()))
    parts = cut(rng, documents, 5)
    firsts = np.cumsum([0, *map(len, parts)])
    places = [numbers[first:last] for first, last in itertools.pairwise(firsts)]
    joined = join([postings(part) for part in parts], places, int(live.sum()) + 1)
    expected = [documents[i] for i in np.argsort(numbers, kind="stable") if live[i]]
    for one, other in zip(joined, postings([*expected, []]), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    check(joined)


def test_many_threads_search_one_engine():
    rng = np.random.default_rng(0)
    documents = words(rng, 2_000)
    live = (rng.random(2_000) > 0.3).astype(np.uint8)
    queries = [query_of(rng) for _ in range(20)]
    right = TextEngine([postings(documents)], live).search(queries, 10, threads=1)
    engine, wrong = TextEngine([postings(documents)], live), []

    def work():
        for found, wanted in zip(engine.search(queries, 10, threads=2), right, strict=True):
            if not (np.array_equal(found[0], wanted[0]) and np.array_equal(found[1], wanted[1])):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_no_postings_or_query_is_refused():
    with pytest.raises(ValueError, match="offsets must rise from 0 to 1"):
        invert([b"a"], np.zeros(1, np.uint32), np.array([0, 2]))
    with pytest.raises(ValueError, match="numbers must be less than 1, found 1"):
        invert([b"a"], np.ones(1, np.uint32), np.array([0, 1]))
    with pytest.raises(ValueError, match="terms must each come once"):
        invert([b"a", b"a"], np.array([0, 1], np.uint32), np.array([0, 2]))
    one = postings([[b"a"]])
    for places in ([1], [0]):
        with pytest.raises(ValueError, match="places must be different numbers below 1"):
            join([one, one], [np.array(places), np.array([0])], 1)
    engine = TextEngine([one])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        engine.search([{b"a": 1}], 0)
    with pytest.raises(ValueError, match="allowed must have a number for each of 1 documents"):
        engine.search([{b"a": 1}], 1, allowed=np.ones(2, np.uint8))
    with pytest.raises(ValueError, match="positions must be from 0 to 0"):
        engine.score({b"a": 1}, np.array([1]))
    with pytest.raises(ValueError, match="counts and weights of terms"):
        engine.search([{b"a": -1}], 1)
    with pytest.raises(ValueError, match="k1 must be from 0"):
        TextEngine([], k1=-1)
    with pytest.raises(ValueError, match="live must have"):
        TextEngine([postings([[b"a"]])], np.ones(2, np.uint8))


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


DAMAGE = {
    "lengths beyond 2^31": ("text_lengths", lambda a: changed(a, 2, 2**32 - 1)),
    "lengths of nothing": ("text_lengths", lambda a: a * 0),
    "fewer lengths": ("text_lengths", lambda a: a[:-1]),
    "term offsets decrease": ("term_offsets", lambda a: changed(a, 3, 0)),
    "term offsets are negative": ("term_offsets", lambda a: changed(a, 3, -(2**62))),
    "term offsets go beyond the bytes": ("term_offsets", lambda a: changed(a, 3, 2**62)),
    "no term offsets": ("term_offsets", lambda a: a[:0]),
    "terms out of order": ("term_bytes", lambda a: a[::-1].copy()),
    "posting offsets decrease": ("posting_offsets", lambda a: changed(a, 2, 0)),
    "posting offsets are negative": ("posting_offsets", lambda a: changed(a, 1, -(2**62))),
    "posting offsets go beyond the postings": ("posting_offsets", lambda a: changed(a, -1, 2**62)),
    "fewer posting offsets": ("posting_offsets", lambda a: a[:-1]),
    "documents that are not there": ("posting_documents", lambda a: changed(a, 5, len(a))),
    "documents far away": ("posting_documents", lambda a: a * 0 + np.uint32(2**32 - 1)),
    "the same document for ever": ("posting_documents", lambda a: a * 0),
    "documents that descend": ("posting_documents", lambda a: a[::-1].copy()),
    "fewer counts": ("posting_counts", lambda a: a[:-1]),
    "counts of nothing": ("posting_counts", lambda a: a * 0),
    "large counts that are not there": ("posting_counts", lambda a: changed(a, 0, 255)),
    "large postings far away": ("large_postings", lambda a: a - 2**62),
    "fewer large counts": ("large_counts", lambda a: a[:-1]),
    "large counts that are small": ("large_counts", lambda a: a * 0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_never_followed(damage):
    name, change = DAMAGE[damage]
    whole = postings([*words(np.random.default_rng(1), 300), [b"t0"] * 300])
    damaged = whole._replace(**{name: change(getattr(whole, name))})
    with pytest.raises(RuntimeError, match=r"the index is damaged: .*_"):
        check(damaged)
    queries = [{b"t%d" % number: 1 for number in range(40)}, {b"t0": 1}]
    for live in (None, np.arange(len(damaged.text_lengths)).astype(np.uint8) % 2):
        for call in (
            lambda live=live: TextEngine([damaged], live).search(queries, 5),
            lambda live=live: TextEngine([damaged], live).score(queries[0], np.arange(10)),
            lambda: join([damaged], [np.arange(len(damaged.text_lengths))], len(damaged.text_lengths)),
        ):
            try:
                call()
            except RuntimeError as error:
                assert "the index is damaged: " in str(error)
