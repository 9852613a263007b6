"""Searches by text, alone and with tokens, find what the definitions say, through all changes of an index."""

import sys
from collections import Counter

import numpy as np
import pytest

from lateint import Analyzer, Index
from lateint.retrieval.fusion import Fusion
from lateint_kernels.reference import bm25

WORDS = ["red", "fox", "blue", "hen", "old", "barn", "über", "東京都"]


def corpus(rng, count):
    """Tokens and texts; some documents have no tokens, no words or no text."""
    tokens = [rng.standard_normal((int(rng.integers(0, 6)), 16)).astype(np.float32) for _ in range(count)]
    texts = [None if rng.random() < 0.1 else " ".join(rng.choice(WORDS, int(rng.integers(0, 9)))) for _ in range(count)]
    return tokens, texts


def built(tokens, texts, path=None, **settings):
    settings = {"text_search": True} | settings
    return Index.build(tokens, path, texts=texts, allow_empty=True, progress=False, ncentroids=8, **settings)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    tokens, texts = corpus(rng, 300)
    return built(tokens, texts), texts


def reference(texts, text):
    analyzer = Analyzer()
    return np.array(bm25(Counter(analyzer.terms(text)), [analyzer.terms(one or "") for one in texts]))


def test_text_alone_is_bm25(made):
    index, texts = made
    for text in ("red fox", "fox fox barn", "UBER 京都", "red fox blue hen old barn"):
        hits, scores = index.search(None, 20, text=text), reference(texts, text)
        np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][: len(hits)], rtol=3e-7)
        np.testing.assert_allclose(hits.scores, scores[hits.ids], rtol=3e-7)
        assert hits.parts["bm25"] is hits.scores and set(hits.parts) == {"bm25"}
        assert hits.plan.kind == "words"
        assert hits.documents()[0].text == texts[hits.ids[0]]
    assert len(index.search(None, 300, text="red")) == np.count_nonzero(reference(texts, "red"))


def test_a_subset_for_each_text(made):
    index, _ = made
    texts, subsets = ["red fox", "red fox", "old barn"], [range(50), [60, 61, 62], None]
    subsets[0] = list(subsets[0])
    tokens = list(np.random.default_rng(2).standard_normal((3, 2, 16)).astype(np.float32))
    for queries in (None, tokens):
        found = index.search(queries, 9, text=texts, subset=subsets)
        for number, hits in enumerate(found):
            query = None if queries is None else queries[number]
            alone = index.search(query, 9, text=texts[number], subset=subsets[number])
            assert list(hits) == list(alone) and hits.plan == alone.plan


def test_a_text_without_words_of_the_index_finds_nothing(made):
    index, _ = made
    for text in ("", "...", "nowhere to be seen"):
        assert len(index.search(None, 5, text=text)) == 0
    query = np.ones((2, 16), np.float32)
    alone, both = index.search(query, 5, exhaustive=True), index.search(query, 5, text="...", exhaustive=True)
    np.testing.assert_array_equal(alone.ids, both.ids)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.3}, {"alpha": 0}, {"alpha": 1}, {"fusion": "rrf"}])
def test_both_scores_of_every_candidate(made, settings):
    index, texts = made
    rng = np.random.default_rng(1)
    for k in (5, 60):
        query, text = rng.standard_normal((3, 16)).astype(np.float32), "red barn"
        hits = index.search(query, k, text=text, exhaustive=True, **settings)
        depth = max(k, 40)
        tokens, words = index.search(query, depth, exhaustive=True), index.search(None, depth, text=text)
        union = np.union1d(tokens.ids, words.ids)
        every = dict(index.search(query, 300, exhaustive=True))
        maxsim = np.array([every.get(i, -np.inf) for i in union.tolist()], np.float32)
        words = reference(texts, text)[union].astype(np.float32)
        fused = Fusion.of(settings.get("alpha"), settings.get("fusion"), None, both=True).fused(maxsim, words)
        np.testing.assert_allclose(hits.scores, np.sort(fused)[::-1][:k], rtol=1e-6, atol=1e-7)
        where = {int(i): n for n, i in enumerate(union)}
        rows = [where[i] for i in hits.ids.tolist()]
        np.testing.assert_array_equal(hits.parts["maxsim"], maxsim[rows])
        np.testing.assert_allclose(hits.parts["bm25"], words[rows], rtol=3e-7)
        assert (np.diff(hits.scores) <= 0).all()


def test_rerank_orders_the_best_by_words_by_maxsim(made):
    index, _ = made
    query = np.random.default_rng(2).standard_normal((3, 16)).astype(np.float32)
    hits = index.search(query, 10, text="blue hen", rerank=30)
    words = index.search(None, 30, text="blue hen")
    expected = index.rerank(query, words.ids.tolist(), 10)
    np.testing.assert_array_equal(hits.ids, expected.ids)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    assert dict(zip(hits.ids, hits.parts["bm25"], strict=True)).items() <= dict(words).items()


def test_a_smaller_k_gives_the_first_of_a_larger(made):
    index, _ = made
    query = np.random.default_rng(3).standard_normal((3, 16)).astype(np.float32)
    for settings in ({}, {"fusion": "rrf"}, {"rerank": 50}):
        more = index.search(query, 40, text="old fox", exhaustive=True, **settings)
        few = index.search(query, 7, text="old fox", exhaustive=True, **settings)
        np.testing.assert_array_equal(few.ids, more.ids[:7])
        np.testing.assert_array_equal(few.scores, more.scores[:7])


def test_a_batch_is_its_queries_one_by_one(made):
    index, _ = made
    queries = np.random.default_rng(4).standard_normal((4, 3, 16)).astype(np.float32)
    texts = ["red", "nothing", "fox hen", ""]
    for settings in ({}, {"rerank": 20}, {"exhaustive": True}):
        for i, hits in enumerate(index.search(queries, 6, text=texts, **settings)):
            one = index.search(queries[i], 6, text=texts[i], **settings)
            np.testing.assert_array_equal(hits.ids, one.ids)
            np.testing.assert_array_equal(hits.scores, one.scores)
    assert [len(hits) for hits in index.search(None, 3, text=texts)] == [3, 0, 3, 0]


def test_filters_and_subsets_hold_for_both():
    rng = np.random.default_rng(5)
    tokens, texts = corpus(rng, 200)
    index = built(tokens, texts, metadata=[{"year": int(i % 4)} for i in range(200)])
    query = rng.standard_normal((2, 16)).astype(np.float32)
    for settings in ({}, {"text": "red fox"}):
        for Q in (query, None):
            if Q is None and not settings:
                continue
            hits = index.search(Q, 10, filter={"year": 3}, subset=range(100), **settings)
            assert len(hits) and all(i % 4 == 3 and i < 100 for i in hits.ids.tolist())
    whole = dict(index.search(None, 200, text="red fox"))
    some = index.search(None, 200, text="red fox", filter={"year": 3})
    assert dict(some) == {i: score for i, score in whole.items() if i % 4 == 3}


@pytest.mark.parametrize("seed", range(6))
def test_changes_give_what_a_build_gives(tmp_path, seed):
    """A third deleted, some updated with and without tokens, compacted or not: the same bits as made at once."""
    rng = np.random.default_rng(seed)
    tokens, texts = corpus(rng, 120)
    index = built(tokens[:50], texts[:50], None if seed % 2 else tmp_path / "index")
    live = dict(zip(range(50), zip(tokens, texts, strict=True), strict=False))
    for first in range(50, 100, 10):
        rows = range(first, first + 10)
        index.add([tokens[i] for i in rows], ids=rows, texts=[texts[i] for i in rows], allow_empty=True)
        live |= {i: (tokens[i], texts[i]) for i in rows}
    gone = [int(i) for i in rng.choice(100, 33, replace=False)]
    index.delete(gone)
    for i in gone:
        del live[i]
    changed = [int(i) for i in rng.permutation(list(live))[:8]]
    index.update(changed[:4], texts=[texts[100 + n] for n in range(4)])
    index.update(changed[4:], [tokens[104 + n] for n in range(4)], allow_empty=True)
    for n, i in enumerate(changed):
        before = live.pop(i)
        live[i] = (before[0], texts[100 + n]) if n < 4 else (tokens[100 + n], before[1])
    if seed % 3:
        index.compact(full=seed % 3 == 2)
    expected = Index.build(
        [one for one, _ in live.values()],
        texts=[text for _, text in live.values()],
        ids=list(live),
        codec=index.codec,
        text_search=True,
        allow_empty=True,
        progress=False,
    )
    query = rng.standard_normal((3, 16)).astype(np.float32)
    for settings in ({"Q": None}, {"Q": query}, {"Q": query, "rerank": 20}, {"Q": query, "fusion": "rrf"}):
        for text in ("red fox", "über barn 東京", "hen hen old"):
            one = index.search(k=30, text=text, exhaustive=True, **settings)
            other = expected.search(k=30, text=text, exhaustive=True, **settings)
            np.testing.assert_array_equal(one.ids, other.ids)
            assert one.scores.tobytes() == other.scores.tobytes()
    if index.path is not None:
        assert Index.verify(index.path).problems == []
        reopened = Index.open(index.path, verify=True)
        assert reopened.analyzer == Analyzer()
        np.testing.assert_array_equal(reopened.search(None, 9, text="fox").ids, index.search(None, 9, text="fox").ids)


def test_parts_are_merged_if_they_have_the_same_analyzer(tmp_path):
    rng = np.random.default_rng(6)
    tokens, texts = corpus(rng, 40)
    whole = built(tokens, texts)
    for number, rows in enumerate((range(15), range(15, 40))):
        Index.build(
            [tokens[i] for i in rows],
            tmp_path / str(number),
            ids=rows,
            texts=[texts[i] for i in rows],
            text_search=True,
            codec=whole.codec,
            allow_empty=True,
            progress=False,
        )
    merged = Index.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "merged")
    one, other = merged.search(None, 20, text="red hen"), whole.search(None, 20, text="red hen")
    np.testing.assert_array_equal(one.ids, other.ids)
    assert one.scores.tobytes() == other.scores.tobytes()
    Index.build(tokens[:1], tmp_path / "2", ids=[99], codec=whole.codec, allow_empty=True, progress=False)
    with pytest.raises(ValueError, match="parts must have the same analyzer of texts, but that of part 1"):
        Index.merge([tmp_path / "0", tmp_path / "2"], tmp_path / "none")


def test_texts_are_kept_and_not_searched_unless_that_is_asked_for(tmp_path):
    index = Index.build([np.ones((1, 8))], tmp_path / "index", texts=["red"], progress=False)
    assert index.analyzer is None and index.get([0])[0].text == "red"
    with pytest.raises(ValueError, match="text needs an index whose texts are searched: build it with texts= and"):
        index.search(None, 1, text="red")
    assert '"analyzer"' not in (tmp_path / "index" / "index.json").read_text()


def test_the_analyzer_is_kept_where_no_document_has_a_word(tmp_path):
    index = Index.build(
        [np.ones((1, 8))], tmp_path / "index", text_search=Analyzer(stopwords="english", k1=2), progress=False
    )
    index.add([np.ones((1, 8))], texts=["the fox"])
    again = Index.open(tmp_path / "index")
    assert again.analyzer == Analyzer(stopwords="english", k1=2)
    assert again.search(None, 5, text="the fox").ids.tolist() == [1]
    again.rebuild()
    assert again.search(None, 5, text="fox").ids.tolist() == [1]


def test_an_index_that_asks_for_a_stemmer_says_so_where_there_is_none(tmp_path, monkeypatch):
    pytest.importorskip("Stemmer")
    tokens = [np.ones((1, 8), np.float32)]
    Index.build(tokens, tmp_path / "index", texts=["foxes"], text_search=Analyzer(stem="english"), progress=False)
    index = Index.open(tmp_path / "index")
    assert index.search(None, 1, text="fox").ids.tolist() == [0]
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    for call in (lambda: index.search(None, 1, text="fox"), lambda: index.add(tokens, texts=["hens"])):
        with pytest.raises(ImportError, match="needs PyStemmer: pip install"):
            call()
    assert len(index.search(tokens[0], 1)) == 1 and len(index) == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"Q": None}, ValueError, "search needs Q, or text or sparse, or one of them with Q; got none"),
        ({"Q": None, "text": 3}, TypeError, "text must be a string, or a list of strings for a batch, got int"),
        ({"Q": None, "text": ["a", 3]}, TypeError, "text must hold strings, got int"),
        ({"Q": None, "text": "a", "alpha": 0.5}, ValueError, "alpha goes with both Q and text"),
        ({"fusion": "rrf"}, ValueError, "fusion goes with both Q and text"),
        ({"rerank": 5}, ValueError, "rerank goes with both Q and text"),
        ({"text": "a", "alpha": 2}, ValueError, "alpha must be from 0 to 1, got 2"),
        ({"text": "a", "alpha": float("nan")}, ValueError, "alpha must be from 0 to 1, got nan"),
        ({"text": "a", "alpha": "x"}, TypeError, "alpha must be a number from 0 to 1, got str"),
        ({"text": "a", "fusion": "sum"}, ValueError, "fusion must be one of relative, rrf, got 'sum'"),
        ({"text": "a", "rerank": 0}, ValueError, "rerank must be at least 1, got 0"),
        ({"text": "a", "rerank": 5, "alpha": 0.5}, ValueError, "alpha cannot be given with it"),
        ({"text": ["a"]}, ValueError, "text must be one string for one query, got a list of 1"),
        ({"Q": np.ones((2, 1, 16)), "text": "a"}, ValueError, "text must be a list of 2 strings for a batch, got one"),
    ],
)
def test_what_cannot_be_is_refused(made, settings, error, message):
    with pytest.raises(error, match=message):
        made[0].search(**{"Q": np.ones((1, 16)), "k": 3} | settings)


def test_fusion_of_equal_scores():
    same = np.ones(3, np.float32)
    assert Fusion(alpha=0.25).fused(same, 0 * same).tolist() == [0.25] * 3
    assert Fusion(alpha=0.25).fused(same * -np.inf, same).tolist() == [0.75] * 3


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_texts_become_searchable_later(kind, tmp_path):
    tokens, texts = corpus(np.random.default_rng(7), 30)
    path = tmp_path / "index" if kind == "disk" else None
    index = Index.build(
        tokens[:20],
        path,
        texts=texts[:20],
        metadata=[{"n": i} for i in range(20)],
        sparse=[{"a": i + 1} for i in range(20)],
        allow_empty=True,
        progress=False,
        ncentroids=8,
    )
    index.add(tokens[20:22], allow_empty=True)  # a segment without texts stays
    index.delete([0, 3, 21])
    files = {one.name for one in (tmp_path / "index").rglob("*.seg")}
    before, old = list(index.search(np.ones((2, 16), np.float32), 30, exhaustive=True)), Index.__copy__(index)
    with index.transaction():
        index.set_text_search(Analyzer(stopwords=("red",)))
        index.add(tokens[22:], texts=texts[22:], allow_empty=True)
    generation = index.generation
    index.set_text_search(Analyzer(stopwords=("red",)))
    assert index.generation == generation  # nothing has changed
    there = [i for i in range(30) if i not in (0, 3, 21)]
    given = [None if i == 20 else texts[i] for i in there]

    def check(one, analyzer):
        expect = built([tokens[i] for i in there], given, ids=there, codec=one.codec, **analyzer)
        for text in ("red fox", "blue hen barn", "fox"):
            for Q in (None, np.ones((2, 16), np.float32)):
                assert list(one.search(Q, 30, text=text)) == list(expect.search(Q, 30, text=text))

    check(index, {"text_search": Analyzer(stopwords=("red",))})
    index.set_text_search()
    check(index, {"text_search": True})
    assert index.search(None, 2, sparse={"a": 1}).ids.tolist() == [19, 18]
    assert index.count({"n": {"$gte": 10}}) == 10
    if kind == "disk":
        assert files & {one.name for one in path.rglob("*.seg")}
        assert Index.verify(path) and Index.open(path, verify=True).analyzer == Analyzer()
        check(Index.open(path), {"text_search": True})
    index.set_text_search(False)
    assert index.analyzer is None and index.get([1])[0].text == texts[1]
    assert not any("/term_bytes" in name for name in index._snapshot.state.arrays)
    with pytest.raises(ValueError, match="text needs an index whose texts are searched"):
        index.search(None, 3, text="red")
    with pytest.raises(ValueError, match="text needs an index whose texts are searched"):
        old.search(None, 3, text="red")
    assert list(old.search(np.ones((2, 16), np.float32), 30, exhaustive=True)) == before
    with pytest.raises(TypeError, match="text_search must be True, False or a lateint"):
        index.set_text_search("english")


def test_a_segment_whose_documents_are_all_deleted_goes_away_with_its_words():
    index = Index.build([np.ones((1, 8))] * 2, texts=["red", "fox"], progress=False)
    index.add([np.ones((1, 8))] * 2, texts=["red", "hen"])
    index.delete([2, 3])
    index.set_text_search()
    assert index.search(None, 5, text="red hen").ids.tolist() == [0]
