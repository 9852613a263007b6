"""Shards find what one index finds, and say what is missing."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from lateint import Hits, Index, LostError, Shards, UnknownIdError, train_codec
from lateint.sharding import asking
from lateint.sharding.asking import Shard
from lateint.sharding.places import Place


def parts_of(collection, count, folder=None, **more):
    """An index, and the same documents in ``count`` indexes with its codec."""
    documents = list(collection)
    codec = train_codec(documents, progress=False, allow_empty=True)
    ids = [f"doc {number}" for number in range(len(documents))]
    whole = Index.build(documents, ids=ids, codec=codec, progress=False, allow_empty=True, **more)
    cuts = np.linspace(0, len(documents), count + 1).astype(int).tolist()
    parts = []
    for number, (first, last) in enumerate(pairwise(cuts)):
        path = None if folder is None else folder / f"part-{number}"
        besides = {name: values[first:last] for name, values in more.items()}
        parts.append(
            Index.build(
                documents[first:last],
                path,
                ids=ids[first:last],
                codec=codec,
                progress=False,
                allow_empty=True,
                **besides,
            )
        )
    return whole, parts


@pytest.fixture(scope="module")
def whole_and_parts(collection):
    return parts_of(collection, 4)


class Stand:
    """An index whose answers fail, or come late, when told to."""

    def __init__(self, index, name):
        self.index, self.path = index, name
        self.broken, self.delay, self.asked, self.reads = False, 0.0, 0, 0

    def __getattr__(self, name):
        return getattr(self.index, name)

    def __len__(self):
        return len(self.index)

    def stats(self):
        if self.broken:
            raise OSError("nobody listens")
        return self.index.stats()

    def search(self, *args, **settings):
        self.asked += 1
        if self.delay:
            time.sleep(self.delay)
        if self.broken:
            raise OSError("nobody listens")
        return self.index.search(*args, **settings)


def same(found, expected):
    assert found.ids.dtype == expected.ids.dtype and found.ids.tolist() == expected.ids.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


def test_exhaustive_search_finds_what_one_index_finds_bit_for_bit(whole_and_parts, queries):
    whole, parts = whole_and_parts
    with Shards(parts) as shards:
        for query in queries:
            same(shards.search(query, 7, exhaustive=True), whole.search(query, 7, exhaustive=True))
        found = shards.search(queries, 300, exhaustive=True)
        for one, expected in zip(found, whole.search(queries, 300, exhaustive=True), strict=True):
            same(one, expected)
        assert (found[0].coverage, found[0].lost) == (1.0, ())
        assert (
            shards.search(np.empty((0, 3, 32), np.float32)) == []
            and len(shards) == len(whole)
            and shards.dim == whole.dim
        )


def test_ties_are_in_the_order_of_one_index(clustered):
    document = next(iter(clustered([5], dim=16)))
    codec = train_codec([document] * 40, progress=False)
    whole = Index.build([document] * 40, codec=codec, progress=False)
    parts = [
        Index.build([document] * 10, ids=range(first, first + 10), codec=codec, progress=False)
        for first in (0, 10, 20, 30)
    ]
    with Shards(parts) as shards:
        same(shards.search(document, 25, exhaustive=True), whole.search(document, 25, exhaustive=True))


def test_pruned_search_finds_at_least_as_much(whole_and_parts, queries):
    whole, parts = whole_and_parts
    with Shards(parts) as shards:
        exact = [set(hits.ids.tolist()) for hits in whole.search(queries, 10, exhaustive=True)]
        share = [
            np.mean([len(set(hits.ids.tolist()) & best) / 10 for hits, best in zip(found, exact, strict=True)])
            for found in (shards.search(queries, 10), whole.search(queries, 10))
        ]
        assert share[0] >= share[1] > 0.9


def test_masks_subsets_and_settings_go_to_shards(whole_and_parts, queries):
    whole, parts = whole_and_parts
    some = ["doc 3", "doc 150", "doc 80", "doc 81"]
    with Shards(parts) as shards:
        same(shards.search(queries[1], 3, subset=some), whole.search(queries[1], 3, subset=some))
        assert len(shards.search(queries[1], 3, subset=[])) == 0
        each = [some, None, some[:2]]
        for hits, one in zip(
            shards.search(queries[:3], 3, subset=each), whole.search(queries[:3], 3, subset=each), strict=True
        ):
            same(hits, one)
        mask = np.arange(len(queries[1])) % 2
        same(
            shards.search(queries[1], 4, mask=mask, exhaustive=True),
            whole.search(queries[1], 4, mask=mask, exhaustive=True),
        )
        with pytest.raises(UnknownIdError, match="subset holds 'no', which is no document of these shards"):
            shards.search(queries[1], subset=["no"])
        with pytest.raises(TypeError, match="subset must be ids, not a mask"):
            shards.search(queries[1], subset=np.ones(len(whole), bool))
        with pytest.raises(TypeError, match="unexpected keyword argument 'nprob'"):
            shards.search(queries[1], nprob=3)
        with pytest.raises(TypeError, match="text cannot be searched over shards"):
            shards.search(queries[1], text="words")
        with pytest.raises(ValueError, match="alpha goes with both Q and text"):
            shards.search(queries[1], alpha=0.5)
        with pytest.raises(ValueError, match="nprobe must be at least 1"):
            shards.search(queries[1], nprobe=0)
        with pytest.raises(ValueError, match="k must be at least 1"):
            shards.search(queries[1], 0)
        with pytest.raises(ValueError, match="Q is text, and Shards has no encoder"):
            shards.search("words")
        with pytest.raises(ValueError, match="timeout must be above 0, got 0"):
            shards.search(queries[1], timeout=0)


@pytest.fixture(scope="module")
def sparse_and_parts(collection):
    """The same with sparse vectors: a few terms each, and none in some documents."""
    rng = np.random.default_rng(5)
    vectors = [
        {f"t{term}": float(weight) for term, weight in zip(rng.choice(30, 5, False), rng.random(5), strict=True)}
        for _ in collection
    ]
    vectors[3] = vectors[60] = None
    return parts_of(collection, 4, sparse=vectors)


SPARSE = {"t1": 1.0, "t4": 0.3, "t9": 2.0, "t20": 0.7}


def test_sparse_vectors_find_what_they_find_in_one_index_bit_for_bit(sparse_and_parts, queries):
    whole, parts = sparse_and_parts
    with Shards(parts) as shards:
        same(shards.search(None, 7, sparse=SPARSE), whole.search(None, 7, sparse=SPARSE))
        pair = (["t9", "t1"], [1.0, 0.5])
        for found, expected in zip(
            shards.search(None, 500, sparse=[SPARSE, pair]), whole.search(None, 500, sparse=[SPARSE, pair]), strict=True
        ):
            same(found, expected)
        some = whole.ids[[1, 3, 50, 60, 120, 150]].tolist()
        same(shards.search(None, 7, sparse=SPARSE, subset=some), whole.search(None, 7, sparse=SPARSE, subset=some))
        assert len(shards.search(None, 7, sparse={"no": 1.0})) == 0


@pytest.mark.parametrize(
    "how", [{}, {"alpha": 0.2}, {"alpha": 1}, {"fusion": "rrf", "alpha": 0.61}, {"rerank": 12}, {"k": 60}]
)
def test_tokens_and_sparse_vectors_together_are_those_of_one_index(sparse_and_parts, queries, how):
    whole, parts = sparse_and_parts
    how = {"k": 9, "sparse": SPARSE, "exhaustive": True, **how}
    some = whole.ids[::3].tolist()
    with Shards(parts) as shards:
        for query in queries[:8]:
            for subset in (None, some):
                found, expected = (index.search(query, subset=subset, **how) for index in (shards, whole))
                same(found, expected)
                for part, scores in expected.parts.items():
                    assert found.parts[part].tobytes() == scores.tobytes()
        several = {**how, "sparse": [SPARSE, {"t2": 1.0}]}
        for found, expected in zip(
            shards.search(queries[:2], **several), whole.search(queries[:2], **several), strict=True
        ):
            same(found, expected)


def test_sparse_vectors_without_a_shard(sparse_and_parts, queries):
    whole, parts = sparse_and_parts
    stands = [Stand(part, f"part {number}") for number, part in enumerate(parts)]
    with Shards(stands) as shards:
        stands[1].broken = True
        left = np.concatenate([part.ids for number, part in enumerate(parts) if number != 1]).tolist()
        for query in (None, queries[0]):
            how = {} if query is None else {"exhaustive": True}
            with pytest.raises(LostError, match="part 1"):
                shards.search(query, 5, sparse=SPARSE, **how)
            found = shards.search(query, 5, sparse=SPARSE, partial=True, **how)
            assert found.lost == ("part 1",) and found.coverage == pytest.approx(1 - len(parts[1]) / len(whole))
            same(found, whole.search(query, 5, sparse=SPARSE, subset=left, **how))
        for stand in stands:
            stand.broken = True
        with pytest.raises(LostError, match="4 of 4 shards"):
            shards.search(queries[0], 5, sparse=SPARSE, partial=True)
        with pytest.raises(ValueError, match="sparse must be a list of 2 vectors"):
            shards.search(queries[:2], sparse=SPARSE)
    with Shards(parts) as shards, pytest.raises(ValueError, match="sparse must have weights from 0"):
        shards.search(None, sparse={"a": -1})


def test_shards_need_sparse_vectors(whole_and_parts):
    with Shards(whole_and_parts[1]) as shards, pytest.raises(ValueError, match="sparse"):
        shards.search(None, sparse=SPARSE)


def test_what_is_asked_of_documents_goes_where_they_are(whole_and_parts, queries):
    whole, parts = whole_and_parts
    ids = ["doc 150", "doc 3", "doc 80", "doc 3"]
    with Shards(parts) as shards:
        same(shards.rerank(queries[2], ids), whole.rerank(queries[2], ids))
        lists = [ids, ids[:1]]
        for one, expected in zip(
            shards.rerank(queries[:2], lists, 2), whole.rerank(queries[:2], lists, 2), strict=True
        ):
            same(one, expected)
        assert [document.id for document in shards.get(ids)] == ids
        assert list(shards.explain(queries[2], "doc 80")) == list(whole.explain(queries[2], "doc 80"))
        np.testing.assert_array_equal(shards.similarity(queries[2], "doc 3"), whole.similarity(queries[2], "doc 3"))
        assert shards.has(["doc 3", "no", 7]).tolist() == [True, False, False]
        assert "doc 3" in shards and "no" not in shards
        with pytest.raises(UnknownIdError, match="id holds 'no'"):
            shards.explain(queries[2], "no")
        with pytest.raises(ValueError, match="ids must be one list for each query"):
            shards.rerank(queries[:2], [ids])


def test_hits_read_texts_and_filters_are_counted(collection, queries):
    pytest.importorskip("sqlglot")
    texts = [f"text {number}" for number in range(len(collection))]
    years = [{"year": 1900 + number} for number in range(len(collection))]
    _, parts = parts_of(collection, 3, texts=texts, metadata=years)
    with Shards(parts) as shards:
        found = shards.search(queries[2], 6)
        assert found.texts == [id.replace("doc", "text") for id in found.ids]
        assert shards.count("year >= 1950") == len(collection) - 50
        old = shards.search(queries[2], 6, filter="year < 1960")
        assert all(document.metadata["year"] < 1960 for document in old.documents())
        assert shards.get(["doc 100"], ["year"])[0].metadata == {"year": 2000}


def test_paths_are_opened_and_refreshed(collection, queries, tmp_path):
    whole, parts = parts_of(collection, 2, tmp_path)
    with Shards([part.path for part in parts], replicas=[None, str(parts[1].path)]) as shards:
        same(shards.search(queries[3], exhaustive=True), whole.search(queries[3], exhaustive=True))
        assert shards.names == [str(part.path) for part in parts]
        parts[0].add([collection[0]], ids=["new"])
        assert "new" not in shards
        shards.refresh()
        assert "new" in shards and len(shards) == len(whole) + 1


def test_a_lost_shard_is_named(whole_and_parts, queries):
    whole, parts = whole_and_parts
    stands = [Stand(part, f"shard {number}") for number, part in enumerate(parts)]
    with Shards(stands) as shards:
        stands[2].broken = True
        with pytest.raises(LostError, match=r"1 of 4 shards did not answer: shard 2 \(nobody listens\)") as raised:
            shards.search(queries[0])
        share = 1 - len(parts[2]) / len(whole)
        assert raised.value.lost == ("shard 2",) and raised.value.coverage == pytest.approx(share)
        found = shards.search(queries[0], 20, exhaustive=True, partial=True)
        assert found.lost == ("shard 2",) and found.coverage == pytest.approx(share) and "coverage" in repr(found)
        there = [id for part in parts[:2] + parts[3:] for id in part.ids]
        same(found, whole.search(queries[0], 20, exhaustive=True, subset=there))
        stands[2].broken = False
        same(shards.search(queries[0], exhaustive=True), whole.search(queries[0], exhaustive=True))
        for stand in stands:
            stand.broken = True
        with pytest.raises(LostError, match="4 of 4 shards did not answer"):
            shards.search(queries[0], partial=True)


def test_ids_of_a_lost_shard_are_not_unknown(whole_and_parts, queries):
    _, parts = whole_and_parts
    stands = [Stand(part, f"shard {number}") for number, part in enumerate(parts)]
    with Shards(stands) as shards:
        stands[1].broken = True
        stands[1].has = lambda ids: stands[1].stats()
        mine, other = parts[1].ids[0], parts[0].ids[0]
        assert shards.get([other])[0].id == other
        with pytest.raises(LostError, match=f"ids holds '{mine}', which no other shard has; 1 of 4 shards did not"):
            shards.get([other, mine])
        found = shards.rerank(queries[1], [other, mine], partial=True)
        assert found.ids.tolist() == [other] and found.lost == ("shard 1",)


def test_an_answer_that_takes_too_long_is_lost(whole_and_parts, queries):
    _, parts = whole_and_parts
    stands = [Stand(part, f"shard {number}") for number, part in enumerate(parts)]
    with Shards(stands) as shards:
        stands[3].delay = 0.5
        started = time.monotonic()
        found = shards.search(queries[0], partial=True, timeout=0.1)
        assert time.monotonic() - started < 0.4
        assert found.lost == ("shard 3",)
        with pytest.raises(LostError, match=r"shard 3 \(no answer within 0.1 s\)"):
            shards.search(queries[0], timeout=0.1)


def test_a_replica_answers_for_one_that_fails(whole_and_parts, queries):
    whole, parts = whole_and_parts
    stands = [Stand(part, f"shard {number}") for number, part in enumerate(parts)]
    twins = [Stand(part, f"twin {number}") for number, part in enumerate(parts)]
    with Shards(stands, replicas=twins) as shards:
        for stand in stands[:2] + twins[2:]:
            stand.broken = True
        for query in queries:
            found = shards.search(query, exhaustive=True)
            same(found, whole.search(query, exhaustive=True))
            assert found.coverage == 1.0
        twins[0].broken = True
        with pytest.raises(LostError, match=r"shard 0 \(nobody listens; nobody listens\)"):
            shards.search(queries[0])


def test_a_late_answer_is_asked_for_a_second_time(whole_and_parts, queries):
    whole, parts = whole_and_parts
    fast, slow = Stand(parts[0], "fast"), Stand(parts[0], "slow")
    with Shards([slow, *parts[1:]], replicas=[fast, None, None, None]) as shards:
        for _ in range(60):
            shards.search(queries[1])
        before = slow.asked + fast.asked
        used = slow if shards._shards[0].begin()[0].index is slow else fast
        used.delay = 3.0
        shards._shards[0]._allowance = asking.BURST  # which a busy machine may have used up
        started = time.monotonic()
        for _ in range(10):
            same(shards.search(queries[1], exhaustive=True), whole.search(queries[1], exhaustive=True))
        assert time.monotonic() - started < 2.5  # nobody waited for it
        assert 10 < slow.asked + fast.asked - before <= 10 + asking.BURST


def test_a_place_that_has_become_slow_is_left_alone(whole_and_parts, queries):
    """Although the other one was slow until then: it answers first, and that counts at once."""
    part = whole_and_parts[1][0]
    one, other = Stand(part, "one"), Stand(part, "other")
    with Shards([one], replicas=[other]) as shards:
        for _ in range(40):
            shards.search(queries[1])
        was_quick, was_slow = shards._shards[0].places
        was_slow.seconds, was_quick.seconds = 0.2, 0.001
        one.delay, before = 0.3, one.asked
        shards._shards[0].requests = 0  # no probe among the next ones
        shards._shards[0]._allowance = asking.BURST
        for _ in range(20):
            shards.search(queries[1])
        assert 1 <= one.asked - before <= 3
        assert was_slow.seconds < 0.2


def test_a_question_that_waits_says_that_its_place_is_slow(whole_and_parts):
    stand = Stand(whole_and_parts[1][0], "one")
    place, said = Place(stand, 1.0), threading.Event()
    place.seconds, stand.delay = 0.001, 0.2
    place.ask(lambda index: index.search(np.eye(1, index.dim, dtype=np.float32)), None, lambda _: said.set())
    time.sleep(0.1)
    assert place.cost >= 2 * 0.1
    assert said.wait(5) and 0.1 <= place.cost < 1  # half of what that took, and half of what was known
    place.close()


def test_no_more_than_one_in_twenty_requests_is_sent_twice(whole_and_parts):
    part = whole_and_parts[1][0]
    places = [Place(Stand(part, name), 1.0) for name in ("a", "b")]
    shard, second = Shard(places), 0
    for number in range(1, 2001):
        first, probed = shard.begin()
        second += probed is not None
        second += shard.second([first] if probed is None else [first, probed]) is not None
        assert second == shard.extra <= asking.MORE * number
    assert second > 90
    for place in places:
        place.close()


def test_what_are_no_parts_of_one_index_is_refused(whole_and_parts, collection, clustered):
    _, parts = whole_and_parts
    other = Index.build(list(collection)[:50], ids=[f"x{n}" for n in range(50)], progress=False, seed=7)
    with pytest.raises(ValueError, match=r"shards must be parts of one index, but .* has another codec: crc32"):
        Shards([parts[0], other])
    numbered = Index.build(list(collection)[:50], codec=parts[0].codec, progress=False)
    with pytest.raises(ValueError, match="has ids of another kind: int64, not string"):
        Shards([parts[0], numbered])
    flat = Index.build(clustered([5] * 20, dim=16), ids=[f"y{n}" for n in range(20)], progress=False)
    with pytest.raises(ValueError, match="has dim 16, not 32"):
        Shards([parts[0], flat])
    with pytest.raises(ValueError, match=r"ids must differ between shards, but 'doc \d+' is in"):
        Shards([parts[0], parts[1], parts[0]])
    with pytest.raises(ValueError, match="replicas must hold the same documents, got"):
        Shards(parts[:1], replicas=[other_size(parts)])
    with pytest.raises(ValueError, match="replicas must be one for each shard, got 1 for 4 shards"):
        Shards(parts, replicas=[None])
    with pytest.raises(ValueError, match="shards must hold at least one, got none"):
        Shards([])
    with pytest.raises(TypeError, match="shards must be a list of paths, urls or indexes, got str"):
        Shards("path")
    with pytest.raises(TypeError, match="shards must be paths, urls or indexes, got int"):
        Shards([3])


def other_size(parts):
    return Index.build([np.ones((2, 32), np.float32) / 32**0.5], ids=["one"], codec=parts[0].codec, progress=False)


def test_a_document_in_two_shards_is_refused_when_it_is_found(whole_and_parts, queries):
    _, parts = whole_and_parts
    with Shards([Stand(parts[0], "a"), Stand(parts[0], "b")]) as shards:
        with pytest.raises(ValueError, match=r"shards must hold different documents, but 'doc \d+' is in a and in b"):
            shards.search(queries[0])
        with pytest.raises(ValueError, match="'doc 0' is in a and in b"):
            shards.get(["doc 0"])


def test_a_shard_that_is_away_at_first(whole_and_parts, queries, tmp_path):
    whole, parts = whole_and_parts
    with pytest.raises(LostError, match=r"shards do not answer: .*nowhere .*there is no index"):
        Shards([*parts[:3], tmp_path / "nowhere"])
    with Shards([*parts[:3], tmp_path / "nowhere"], partial=True) as shards:
        found = shards.search(queries[0], exhaustive=True)
        assert found.lost == (str(tmp_path / "nowhere"),) and found.coverage == pytest.approx(0.75)
        parts[3].save(tmp_path / "nowhere")
        same(shards.search(queries[0], exhaustive=True), whole.search(queries[0], exhaustive=True))
    with Shards([*parts[:3], tmp_path / "other"], partial=True) as shards:
        Index.build(np.ones((9, 4, 32), np.float32), tmp_path / "other", ids=[*"abcdefghi"], progress=False)
        with pytest.raises(LostError, match=r"other .another codec: crc32"):
            shards.search(queries[0], partial=False)


def test_many_threads_search_at_once(whole_and_parts, queries):
    whole, parts = whole_and_parts
    expected = [whole.search(query, exhaustive=True) for query in queries]
    wrong = []

    def many(first):
        for number in range(first, first + 20):
            found = shards.search(queries[number % len(queries)], exhaustive=True)
            if list(found) != list(expected[number % len(queries)]):
                wrong.append(number)

    with Shards(parts, replicas=parts) as shards:
        threads = [threading.Thread(target=many, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_every_answer_says_how_much_was_searched():
    hits = Hits(np.array([1]), np.array([1.0], np.float32))
    assert (hits.coverage, hits.lost) == (1.0, ())
