"""Search: exact where it says so, the same however it is asked."""

import gc
import multiprocessing
import threading

import numpy as np
import pytest

import lateint
from lateint import Index, Ragged, UnknownIdError
from lateint.retrieval import searching
from lateint_kernels import to_bfloat16

EVERYTHING = 1 << 40  # a limit that nothing reaches


def pairs(hits):
    return list(hits)


def brute_force(index, query, k, allowed=None):
    """From the integers of query and codes, summed in float64 as the engine sums."""
    integers, scales, constant = index._snapshot.engine.prepare(query)
    scores = []
    for document in index.ids:
        rows = index._snapshot.decoded(document).astype(np.float64) - 128
        if len(rows) == 0 or (allowed is not None and document not in allowed):
            scores.append(-np.inf)
            continue
        best = (integers[:, : rows.shape[1]].astype(np.float64) @ rows.T).max(1)
        score = constant
        for scale, product in zip(scales, best, strict=True):
            score += scale * product
        scores.append(score)
    scores = np.array(scores, np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return [(index.ids[i], float(scores[i])) for i in order if np.isfinite(scores[i])]


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_without_pruning_search_is_brute_force(collection, queries, nbits):
    index = Index.build(collection, nbits=nbits, progress=False)
    for query in queries:
        for k in (1, 10, 1000):
            expected = brute_force(index, query, k)
            assert pairs(index.search(query, k, exhaustive=True)) == expected
            assert pairs(index.search(query, k, nprobe=EVERYTHING, candidates=EVERYTHING)) == expected
            assert pairs(index.search(query, k, nprobe=EVERYTHING, candidates=EVERYTHING, threads=3)) == expected


@pytest.mark.parametrize("dim", [8, 13, 96, 104, 130])
@pytest.mark.parametrize("nbits", [2, 4])
def test_scores_are_maxsim_of_the_reconstruction(clustered, dim, nbits):
    """Up to what rounding a query token to bytes can do: half a unit a component, a unit being its largest / 127."""
    documents, (query,) = clustered([5, 30, 1, 17] * 20, dim), clustered([33], dim, seed=5)
    index = Index.build(documents, nbits=nbits, progress=False)
    hits = index.search(query, 80, exhaustive=True)
    _, scales, _ = index._snapshot.engine.prepare(query)
    for document, score in hits:
        rows = index.reconstruct(document).astype(np.float64)
        exact = (query.astype(np.float64) @ rows.T).max(1).sum()
        centred = np.abs(rows - index._snapshot.codec.rotation.mean).sum(1).max() / index._snapshot.codec.rotation.step
        assert abs(score - exact) <= 0.5 * scales.sum() * centred * dim**0.5
        assert abs(score - exact) <= 0.01 * len(query)


@pytest.mark.parametrize(("nbits", "error"), [(1, 0.25), (2, 0.12), (4, 0.04), (8, 0.02)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_scores_are_on_the_scale_of_the_embeddings(clustered, nbits, error, scale):
    documents, (query,) = clustered([20] * 60, 64), clustered([16], 64, seed=5)
    documents = Ragged(documents.tokens * np.float32(scale), documents.offsets)
    exact = np.array([(query @ document.T).max(1).sum() for document in documents]) / scale
    hits = Index.build(documents, nbits=nbits, progress=False).search(query, 60, exhaustive=True)
    found = np.empty(60)
    found[hits.ids] = hits.scores / np.float32(scale)
    assert np.abs(found - exact).max() <= error * 16
    assert np.corrcoef(found, exact)[0, 1] > 1 - 2 * error


@pytest.mark.parametrize("many", [2**31, 2**32, 2**63, 10**400], ids=["2^31", "2^32", "2^63", "10^400"])
def test_numbers_beyond_any_index_mean_all_of_it(index, queries, many):
    everything = pairs(index.search(queries[4], 158, exhaustive=True))
    assert pairs(index.search(queries[4], many, exhaustive=True)) == everything
    for settings in ({"k": many}, {"k": 158, "candidates": many}, {"k": 158, "nprobe": many}):
        assert pairs(index.search(queries[4], **settings, cells=many)) == everything
    assert len(index.rerank(queries[4], [1, 2, 3], many)) == 3
    assert len(index.search(queries[4], many, subset=[1, 2, 3])) == 3


def test_pruned_search_finds_almost_all(clustered):
    """Recall of the defaults against a scan of the same codes."""
    documents = clustered(np.random.default_rng(0).integers(5, 40, 3000).tolist(), 64, clusters=300)
    rng = np.random.default_rng(0)
    queries = [
        documents[i][:8] + 0.1 * rng.standard_normal((len(documents[i][:8]), 64)).astype(np.float32)
        for i in rng.integers(0, 3000, 40)
    ]
    index = Index.build(documents, progress=False)
    for k in (1, 10, 100):
        found = [set(hits.ids.tolist()) for hits in index.search(queries, k)]
        best = [set(hits.ids.tolist()) for hits in index.search(queries, k, exhaustive=True)]
        recall = np.mean([len(f & b) / k for f, b in zip(found, best, strict=True)])
        assert recall >= (0.95 if k < 100 else 0.85), (k, recall)


def test_more_limits_find_more(clustered):
    documents = clustered([12] * 1500, 32, clusters=200, noise=0.8)
    queries = list(clustered([8] * 30, 32, seed=9, clusters=200, noise=0.8))
    index = Index.build(documents, progress=False)
    best = [set(hits.ids.tolist()) for hits in index.search(queries, 10, exhaustive=True)]

    def recall(**limits):
        found = index.search(queries, 10, **limits)
        return np.mean([len(set(f.ids.tolist()) & b) / 10 for f, b in zip(found, best, strict=True)])

    recalls = [recall(nprobe=1, candidates=10), recall(nprobe=8, candidates=100), recall(nprobe=64, candidates=1000)]
    assert recalls == sorted(recalls) and recalls[0] < recalls[2] and recalls[2] > 0.97


# ------------------------------------------------------------------------- what a query may be


def test_forms_of_a_query(index, queries):
    same = [queries[5], queries[6]]
    expected = [pairs(index.search(query)) for query in same]
    for batch in (np.stack(same), same, tuple(same), Ragged.pack(same), [query.tolist() for query in same]):
        found = index.search(batch)
        assert isinstance(found, list) and [pairs(hits) for hits in found] == expected
    assert pairs(index.search(same[0].tolist())) == expected[0]
    assert pairs(index.search(same[0].astype(np.float64))) == expected[0]
    assert pairs(index.search(np.asfortranarray(same[0]))) == expected[0]
    assert pairs(index.search(np.repeat(same[0], 2, axis=1)[:, ::2])) == expected[0]
    assert index.search(np.zeros((0, 4, 32), np.float32)) == []


@pytest.mark.parametrize("cast", [lambda x: x.astype(np.float16), to_bfloat16])
def test_halves(index, queries, cast):
    exact, found = index.search(queries[4], 5), index.search(cast(queries[4]), 5)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=0.02)
    ragged = Ragged.pack([cast(query) for query in queries[4:6]])
    assert pairs(index.search(ragged, 5)[0]) == pairs(found)


def test_torch_queries(index, queries):
    torch = pytest.importorskip("torch")
    expected = pairs(index.search(queries[4]))
    tensor = torch.tensor(queries[4], requires_grad=True)
    assert pairs(index.search(tensor)) == expected
    assert pairs(index.search(tensor[None])[0]) == expected
    assert pairs(index.search([tensor, tensor[:3]])[0]) == expected
    halved = index.search(tensor.bfloat16())
    assert pairs(index.search(tensor.bfloat16().float())) == pairs(halved)


def test_a_batch_is_its_queries_one_by_one(index, queries):
    expected = [pairs(index.search(query, 7)) for query in queries]
    for threads in (1, 2, 3, None):
        assert [pairs(hits) for hits in index.search(queries, 7, threads=threads)] == expected
        assert [pairs(index.search(query, 7, threads=threads)) for query in queries] == expected


def test_hits(index, queries):
    hits = index.search(queries[4])
    assert len(hits) == 5 and hits.ids.dtype == np.int64 and hits.scores.dtype == np.float32
    assert [type(value) for value in next(iter(hits))] == [int, float]
    assert (np.diff(hits.scores) <= 0).all()


QUERY = np.ones((2, 32), np.float32)


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-20, 1e17])
def test_queries_of_any_size(index, queries, scale):
    """Small ones may lose their bits but not their senses."""
    query = queries[4] * np.float32(scale)
    hits = index.search(query, 3, exhaustive=True)
    assert len(hits) == 3 and np.isfinite(hits.scores).all()
    if scale > 1e-40:
        assert hits.ids.tolist() == index.search(queries[4], 3, exhaustive=True).ids.tolist()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"k": -3}, ValueError, "k must be at least 1, got -3"),
        ({"k": 2.0}, TypeError, "k must be an integer, got float"),
        ({"k": None}, TypeError, "k must be an integer, got NoneType"),
        ({"nprobe": 0}, ValueError, "nprobe must be at least 1, got 0"),
        ({"cells": -1}, ValueError, "cells must be at least 0, got -1"),
        ({"cells": 1.5}, TypeError, "cells must be an integer, got float"),
        ({"candidates": 0}, ValueError, "candidates must be at least 1, got 0"),
        ({"candidates": "all"}, TypeError, "candidates must be an integer, got str"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"subset": 7}, TypeError, "subset must be a list of ids, got int 7"),
        ({"subset": "7"}, TypeError, "subset must be a list of ids, got str '7'"),
        ({"subset": [1, 99_999]}, UnknownIdError, "^subset holds 99999, which is no document of this index"),
        ({"subset": [1, "1"]}, UnknownIdError, "subset holds '1', which is no document"),
        ({"subset": [True]}, UnknownIdError, "subset holds True, which is no document"),
        ({"subset": [1.0]}, UnknownIdError, r"subset holds 1\.0, which is no document"),
    ],
)
def test_bad_settings(index, settings, error, message):
    with pytest.raises(error, match=message):
        index.search(QUERY, **settings)


def test_the_longest_query(clustered):
    """Every token of it counts: the score is that of its sixteenths, added up."""
    index = Index.build(clustered([4] * 6, 8), progress=False)
    query = clustered([1 << 16], 8, seed=8)[0]
    whole = index.search(query, 6, nprobe=1)
    parts = [index.search(part, 6, exhaustive=True) for part in query.reshape(16, -1, 8)]
    for document, score in whole:
        added = sum(hits.scores[hits.ids == document][0].astype(np.float64) for hits in parts)
        np.testing.assert_allclose(score, added, rtol=1e-5)


# ------------------------------------------------------------------------- how many hits


def test_more_than_there_are(index, queries):
    n = len(index)
    for k in (n - 1, n, n + 1, 10 * n):
        for settings in ({}, {"exhaustive": True}, {"nprobe": 1}, {"nprobe": 1, "candidates": 1}):
            for hits in index.search(queries[:3], k, **settings):
                assert len(hits) == min(k, n)
                assert len(set(hits.ids.tolist())) == len(hits)


def test_empty_documents_are_never_found(clustered):
    documents = clustered([0, 3, 0, 0, 5, 1, 0])
    index = Index.build(documents, allow_empty=True, progress=False)
    assert len(index) == 7
    query = documents[1]
    for settings in ({}, {"exhaustive": True}, {"subset": range(7)}):
        assert sorted(index.search(query, 7, **settings).ids.tolist()) == [1, 4, 5]
    assert index.search(query, 7, subset=[0, 2]).ids.tolist() == []
    assert index.rerank(query, [0, 4]).ids.tolist() == [4]
    assert index.reconstruct(2).shape == (0, 32)
    with pytest.raises(ValueError, match="document 3 has no tokens to explain"):
        index.explain(query, 3)


def test_ties_are_in_the_order_given(clustered):
    """The same few documents over and over."""
    few = clustered([4, 4, 4])
    order = np.random.default_rng(0).integers(0, 3, 60)
    index = Index.build([few[i] for i in order], progress=False)
    hits = index.search(few[0], 60, exhaustive=True)
    groups = [hits.ids[hits.scores == score] for score in np.unique(hits.scores)]
    assert len(groups) == 3 and all((np.diff(group) > 0).all() for group in groups)
    assert hits.ids[: len(groups[-1])].tolist() == np.flatnonzero(order == 0).tolist()
    assert pairs(index.search(few[0], 60)) == pairs(hits)
    assert pairs(index.rerank(few[0], reversed(range(60)))) == pairs(hits)
    assert pairs(index.search(few[0], 60, subset=list(range(60)))) == pairs(hits)


def test_one_document():
    index = Index.build([np.eye(8, dtype=np.float32)[:1]], progress=False)
    hits = index.search(np.eye(8)[:1], 3)
    assert hits.ids.tolist() == [0]
    np.testing.assert_allclose(hits.scores, [1], atol=0.01)


# ------------------------------------------------------------------------- subsets and reranking


@pytest.mark.parametrize("size", [1, 2, 50, 158])
def test_subset(index, queries, size):
    chosen = np.random.default_rng(size).permutation(158)[:size]
    for query in queries[:5]:
        expected = [pair for pair in index.search(query, 1000, exhaustive=True) if pair[0] in chosen]
        for subset in (chosen, chosen.tolist(), set(chosen.tolist()), iter(chosen.tolist()), [*chosen, chosen[0]]):
            assert pairs(index.search(query, 5, subset=subset)) == expected[:5]
        assert pairs(index.search(query, 5, subset=chosen, exhaustive=True)) == expected[:5]
        assert pairs(index.rerank(query, chosen)) == expected
        assert pairs(index.rerank(query, chosen, 3)) == expected[:3]


def test_a_subset_for_each_query(index, queries):
    few, many = np.array([3, 7, 11]), np.arange(40, 150)
    mask = np.zeros(len(index), bool)
    mask[::2] = True
    subsets = [few, None, many.tolist(), mask, index.subset(few), [], many, few]
    asked = list(queries[: len(subsets)])
    for settings in ({}, {"exhaustive": True}, {"nprobe": 1, "candidates": 5}):
        found = index.search(asked, 5, subset=subsets, **settings)
        for query, subset, hits in zip(asked, subsets, found, strict=True):
            assert pairs(hits) == pairs(index.search(query, 5, subset=subset, **settings))
            assert hits.plan == index.search(query, 5, subset=subset, **settings).plan
    rows = np.stack([few, few + 1])
    assert [set(hits.ids) for hits in index.search(asked[:2], 5, subset=rows)] == [set(few), set(few + 1)]
    masks = np.stack([mask, ~mask])
    assert [hits.ids[0] % 2 for hits in index.search(asked[:2], 1, subset=masks)] == [0, 1]


def test_queries_with_the_same_subset_are_searched_together(index, queries, monkeypatch):
    calls = []
    scan = searching._scan
    monkeypatch.setattr(
        searching,
        "_scan",
        lambda engine, some, *rest, **how: calls.append(len(some)) or scan(engine, some, *rest, **how),
    )
    one, other = [1, 2], [3]
    found = index.search(list(queries[:5]), 1, subset=[one, other, one, one, other])
    assert calls == [3, 2]
    assert [hits.ids[0] in one for hits in found] == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("count", "subset", "message"),
    [
        (2, [[1]], "subset must be one for all queries, or a list with one for each, got 1 for 2 queries"),
        (1, [[1], [2]], "subset must be one for all queries, or a list with one for each, got 2 for 1 queries"),
        (None, [[1], [2]], "subset must be ids or a mask for one query, got a list of 2 subsets"),
        (2, [[1], 2], "subset must be a list of ids, got int 2"),
    ],
)
def test_bad_subsets_of_a_batch(index, queries, count, subset, message):
    with pytest.raises((TypeError, ValueError), match=message):
        index.search(queries[0] if count is None else list(queries[:count]), subset=subset)


def test_an_empty_subset(index, queries):
    assert len(index.search(queries[0], subset=[])) == 0
    assert [len(hits) for hits in index.search(queries[:2], subset=np.zeros(0, np.int64))] == [0, 0]
    assert len(index.rerank(queries[0], [])) == 0


def test_a_large_subset_is_searched(clustered, monkeypatch):
    monkeypatch.setattr("lateint.retrieval.planning.CANDIDATES", 1)
    documents = clustered([9] * 2000, clusters=150)
    index = Index.build(documents, progress=False)
    queries = list(clustered([6] * 20, seed=7, clusters=150))
    subset = np.random.default_rng(0).permutation(2000)[:1500].tolist()
    allowed = set(subset)
    found = index.search(queries, 10, subset=subset, candidates=400)
    assert {hits.plan.kind for hits in found} == {"pruned"}
    best = index.search(queries, 10, subset=subset, exhaustive=True)
    overlap = []
    for hits, truth in zip(found, best, strict=True):
        assert len(hits) == 10 and allowed.issuperset(hits.ids.tolist())
        overlap.append(len(set(hits.ids.tolist()) & set(truth.ids.tolist())) / 10)
    assert np.mean(overlap) > 0.9
    everything = index.search(queries, 10, subset=subset, nprobe=EVERYTHING, candidates=EVERYTHING)
    assert [pairs(hits) for hits in everything] == [pairs(hits) for hits in best]


def test_reranking_says_what_is_wrong(index, queries):
    with pytest.raises(UnknownIdError, match="ids holds -1, which is no document of this index"):
        index.rerank(queries[0], [3, -1])
    with pytest.raises(ValueError, match="ids must be one list for each query, got 1 for 2 queries"):
        index.rerank(queries[:2], [3])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.rerank(queries[0], [3], 0)
    with pytest.raises(TypeError, match="ids must be a list of ids, got int 3"):
        index.rerank(queries[0], 3)


# ------------------------------------------------------------------------- explanations


def test_explain(index, collection, queries):
    for query in queries:
        for document, score in index.search(query, 3):
            explanation = index.explain(query, document)
            assert len(explanation) == len(query)
            assert explanation.tokens.dtype == np.int64 and explanation.scores.dtype == np.float32
            np.testing.assert_allclose(explanation.scores.sum(dtype=np.float64), score, rtol=1e-5)
            products = query @ collection[document].T
            np.testing.assert_allclose(explanation.scores, products.max(1), atol=0.12)
            best = products[np.arange(len(query)), explanation.tokens]
            np.testing.assert_allclose(best, products.max(1), atol=0.12)
            assert [type(value) for value in next(iter(explanation))] == [int, float]


def test_explain_takes_the_first_of_equal_tokens():
    token = np.eye(8, dtype=np.float32)[3]
    index = Index.build([np.stack([-token, token, token]), -token[None]], progress=False)
    assert index.explain(token[None], 0).tokens.tolist() == [1]


def test_explain_says_what_is_wrong(index, queries):
    with pytest.raises(UnknownIdError, match="id holds 158, which is no document of this index"):
        index.explain(queries[0], 158)
    with pytest.raises(ValueError, match=r"explain takes one query \[Lq, dim\], got a batch"):
        index.explain(queries[:2], 3)


def test_similarity_has_the_scores_of_explain(index, collection, queries):
    for query in queries:
        for document, _ in index.search(query, 3):
            similarity, explanation = index.similarity(query, document), index.explain(query, document)
            assert similarity.dtype == np.float32 and similarity.shape == (len(query), len(collection[document]))
            np.testing.assert_allclose(similarity, query @ collection[document].T, atol=0.12)
            np.testing.assert_array_equal(similarity.max(1), explanation.scores)
            np.testing.assert_array_equal(similarity[np.arange(len(query)), explanation.tokens], explanation.scores)


def test_similarity_says_what_is_wrong(index, queries):
    with pytest.raises(UnknownIdError, match="id holds 158, which is no document of this index"):
        index.similarity(queries[0], 158)
    with pytest.raises(ValueError, match=r"similarity takes one query \[Lq, dim\], got a batch"):
        index.similarity(queries[:2], 3)


def test_similarity_of_a_document_without_tokens(queries):
    index = Index.build(
        [np.eye(32, dtype=np.float32)[:2], np.empty((0, 32), np.float32)], progress=False, allow_empty=True
    )
    assert index.similarity(queries[0], 1).shape == (len(queries[0]), 0)


# ------------------------------------------------------------------------- callers


def test_callers_on_many_threads(index, queries):
    expected = [pairs(index.search(query, 9)) for query in queries]
    failures = []

    def ask(number):
        for i in range(40):
            query = (number + i) % len(queries)
            if pairs(index.search(queries[query], 9, threads=1 + number % 2)) != expected[query]:
                failures.append(number)

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def _search_and_send(index, query, pipe):
    pipe.send(list(index.search(query, 5, threads=2)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_searching_after_a_fork(index, queries):
    """A child has none of the threads that its parent's searches started."""
    expected = pairs(index.search(queries[4], 5, threads=2))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_search_and_send, args=(index, queries[4], there))
    child.start()
    assert here.poll(20), "the child hangs"
    assert here.recv() == expected
    child.join()
    assert pairs(index.search(queries[4], 5, threads=2)) == expected


# ------------------------------------------------------------------------- lateint.search


def test_the_one_line_form(index, saved, queries):
    query = queries[4]
    expected = pairs(index.search(query, 3))
    assert pairs(lateint.search(query, 3, index=index)) == expected
    assert pairs(lateint.search(query, k=3, index=saved)) == expected
    assert pairs(lateint.search(query, 3, index=str(saved), nprobe=4)) == pairs(index.search(query, 3, nprobe=4))


def test_the_one_line_form_takes_the_index_built_or_opened_last(saved, clustered, queries, monkeypatch):
    monkeypatch.setattr("lateint.index.latest.current", None)
    with pytest.raises(ValueError, match="index must be given, for none has been built or opened in this process"):
        lateint.search(queries[0])
    for _ in range(2):  # as a cell of a notebook that runs again
        Index.build(clustered([3, 4]), progress=False)
        gc.collect()
        assert len(lateint.search(queries[0], 9)) == 2
    opened = Index.open(saved)
    assert pairs(lateint.search(queries[0], 9)) == pairs(opened.search(queries[0], 9))
    assert len(lateint.search(queries[0], 9, index=Index.build(clustered([3]), progress=False))) == 1
    lateint.search(queries[0], index=saved)  # opened for this search alone
    assert len(lateint.search(queries[0], 9)) == 1


def test_the_one_line_form_notices_a_new_index(clustered, tmp_path):
    path, query = tmp_path / "index", clustered([3])[0]
    Index.build(clustered([3, 4]), path, progress=False)
    assert len(lateint.search(query, 9, index=path)) == 2
    assert len(lateint.search(query, 9, index=path)) == 2
    Index.build(clustered([3, 4, 5]), path, overwrite=True, progress=False)
    assert len(lateint.search(query, 9, index=path)) == 3
    with pytest.raises(FileNotFoundError, match="there is no index"):
        lateint.search(query, index=tmp_path / "elsewhere")
