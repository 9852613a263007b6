"""Searches by sparse vectors, alone and with tokens, find what inner products say, through all changes of an index."""

import itertools
import json
import runpy
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from lateint import Index
from lateint.retrieval.fusion import Fusion
from lateint.text.vectors import Matrix
from lateint_kernels.reference import sparse_product

TERMS = ["red", "fox", "\u00fcber", "7", "1000"]


def corpus(rng, count):
    """Tokens and vectors; some documents have no tokens, no weights or no vector."""
    tokens = [rng.standard_normal((int(rng.integers(0, 6)), 16)).astype(np.float32) for _ in range(count)]
    vectors = [
        None if rng.random() < 0.1 else {term: float(rng.gamma(1, 1)) for term in TERMS if rng.random() < 0.5}
        for _ in range(count)
    ]
    return tokens, vectors


def built(tokens, vectors, path=None, **settings):
    return Index.build(tokens, path, sparse=vectors, allow_empty=True, progress=False, ncentroids=8, **settings)


def kept(vectors):
    """What an index keeps of vectors: their weights as float16."""
    return [{term: float(np.float16(weight)) for term, weight in (one or {}).items()} for one in vectors]


@pytest.fixture(scope="module")
def made():
    tokens, vectors = corpus(np.random.default_rng(0), 200)
    return built(tokens, vectors), vectors


def test_sparse_alone_is_the_inner_product(made):
    index, vectors = made
    for query in ({"red": 1.0}, {"fox": 0.3, "\u00fcber": 2, 7: 1.5}, {"1000": 0.01, "nowhere": 4}):
        hits = index.search(None, 20, sparse=query)
        named = {str(term): weight for term, weight in query.items()}
        scores, exact = (
            np.array(sparse_product(named, kept(vectors))),
            sparse_product(named, [v or {} for v in vectors]),
        )
        np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][: len(hits)], rtol=2e-7)
        np.testing.assert_allclose(hits.scores, scores[hits.ids], rtol=2e-7)
        np.testing.assert_allclose(hits.scores, np.array(exact)[hits.ids], rtol=2**-11 + 2e-7)  # as float16 rounds
        assert hits.parts["sparse"] is hits.scores and set(hits.parts) == {"sparse"} and hits.plan.kind == "words"
        assert len(index.search(None, 200, sparse=query)) == np.count_nonzero(scores)


def test_with_tokens_every_candidate_gets_both_scores(made):
    index, vectors = made
    rng = np.random.default_rng(1)
    queries = [rng.standard_normal((3, 16)).astype(np.float32) for _ in range(4)]
    asked = [{"red": 1.0}, {"fox": 1.0, "7": 0.5}, {"\u00fcber": 3.0}, {"nowhere": 1.0}]
    for settings in ({}, {"alpha": 0.2}, {"fusion": "rrf"}):
        for Q, query, hits in zip(queries, asked, index.search(queries, 200, sparse=asked, **settings), strict=True):
            exact = dict(index.search(Q, 200, exhaustive=True))
            products = sparse_product(query, kept(vectors))
            np.testing.assert_array_equal(hits.parts["maxsim"], [exact.get(i, -np.inf) for i in hits.ids])
            np.testing.assert_allclose(hits.parts["sparse"], [products[i] for i in hits.ids], rtol=2e-7)
            order = np.argsort(hits.ids)
            fused = Fusion.of(settings.get("alpha"), settings.get("fusion"), None, both=True).fused(
                hits.parts["maxsim"][order], hits.parts["sparse"][order]
            )
            np.testing.assert_array_equal(hits.scores[order], fused)
    best = index.search(None, 5, sparse=asked[1]).ids.tolist()
    reranked = index.search(queries[1], 5, sparse=asked[1], rerank=5)
    assert list(reranked) == list(index.rerank(queries[1], best))
    np.testing.assert_array_equal(
        index.search(queries[1], 3, sparse=asked[1], subset=best[:3]).ids.tolist().sort(), best[:3].sort()
    )


def test_vectors_come_in_many_forms():
    scipy = pytest.importorskip("scipy.sparse")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    dense = rng.random((6, 30)).astype(np.float32) * (rng.random((6, 30)) < 0.3)
    tokens = [rng.standard_normal((2, 8)).astype(np.float32) for _ in dense]

    class Made:  # as FastEmbed and Qdrant have it
        def __init__(self, row):
            self.indices, self.values = np.flatnonzero(row), row[row > 0]

    doubled = scipy.coo_matrix(
        (np.tile(dense[dense > 0], 2) / 2, tuple(np.tile(axis, 2) for axis in np.nonzero(dense))), dense.shape
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is in beta
        csr = torch.tensor(dense).to_sparse_csr()
    forms = [
        scipy.csr_matrix(dense),
        scipy.csr_array(dense),
        doubled,
        torch.tensor(dense).to_sparse(),
        csr,
        [{int(term): row[term] for term in np.flatnonzero(row)} for row in dense],
        [{str(term): float(row[term]) for term in np.flatnonzero(row)[::-1]} for row in dense],
        [(np.flatnonzero(row), row[row > 0]) for row in dense],
        [([str(term) for term in np.flatnonzero(row)], row[row > 0].tolist()) for row in dense],
        [torch.tensor(row).to_sparse() for row in dense],
        [Made(row) for row in dense],
        [scipy.csr_matrix(row) for row in dense],
        iter([{int(term): row[term] for term in range(30)} for row in dense]),
    ]
    first, *others = (
        [index._snapshot.state.arrays[name].tobytes() for name in sorted(index._snapshot.state.arrays)]
        for index in (Index.build(tokens, sparse=form, progress=False) for form in forms)
    )
    assert all(other == first for other in others)

    index = Index.build(tokens, sparse=forms[0], progress=False)
    right = [list(hits) for hits in index.search(None, 6, sparse=forms[5])]
    for form in (forms[0], forms[3], forms[7], forms[10]):
        assert [list(hits) for hits in index.search(None, 6, sparse=form)] == right
    assert list(index.search(None, 6, sparse=forms[9][2])) == right[2]
    one = index.search(tokens[0], 6, sparse=forms[0][:1])  # a matrix of one row for one query
    assert list(one) == list(index.search(tokens[0], 6, sparse=forms[5][0]))


def test_rows_of_a_matrix_are_a_sequence():
    scipy = pytest.importorskip("scipy.sparse")
    rows = Matrix.of(scipy.csr_matrix([[0, 1.0], [2.0, 3.0], [0, 0]]))
    assert [[part.tolist() for part in row] for row in rows] == [[[1], [1.0]], [[0, 1], [2.0, 3.0]], [[], []]]
    assert rows[-2][0].tolist() == [0, 1] and len(rows[1:]) == 2
    with pytest.raises(IndexError):
        rows[3]


def test_a_change_is_what_a_build_would_give(tmp_path):
    tokens, vectors = corpus(np.random.default_rng(3), 40)
    index = built(tokens[:20], vectors[:20], tmp_path / "index")
    index.add(tokens[20:], sparse=vectors[20:], allow_empty=True)
    index.add(tokens[:2], ids=[100, 101], allow_empty=True)  # without vectors
    index.update([3], sparse=[{"red": 9.0}])
    index.update([4, 5], sparse=[None, {}])
    index.update([6], metadata=[{"a": 1}])  # its vector stays
    index.delete([0, 7])
    there = [i for i in range(40) if i not in (0, 3, 4, 5, 6, 7)]
    expect = built(
        [*(tokens[i] for i in there), *tokens[:2], *(tokens[i] for i in (3, 4, 5, 6))],
        [*(vectors[i] for i in there), None, None, {"red": 9.0}, None, None, vectors[6]],
        ids=[*there, 100, 101, 3, 4, 5, 6],
        codec=index.codec,
    )
    query = {"red": 1.0, "fox": 0.5, "1000": 0.1}
    for full in (None, False, True):
        if full is not None:
            index.compact(full=full)
        reopened = Index.open(tmp_path / "index", verify=True)
        for Q in (None, tokens[22] if len(tokens[22]) else np.ones((1, 16), np.float32)):
            for one in (index, reopened):
                assert list(one.search(Q, 50, sparse=query)) == list(expect.search(Q, 50, sparse=query))
        assert Index.verify(tmp_path / "index")
    assert index.stats()["bytes_per_token"]["sparse"] > 0


def test_parts_are_merged(tmp_path):
    tokens, vectors = corpus(np.random.default_rng(4), 30)
    one = built(tokens[:15], vectors[:15], tmp_path / "one")
    built(tokens[15:25], vectors[15:25], tmp_path / "two", ids=range(15, 25), codec=one.codec)
    Index.build(tokens[25:], tmp_path / "three", ids=range(25, 30), codec=one.codec, allow_empty=True, progress=False)
    merged = Index.merge([tmp_path / name for name in ("one", "two", "three")], tmp_path / "merged")
    expect = built(tokens, vectors[:25] + [None] * 5, codec=one.codec)
    query = {"red": 1.0, "7": 2.0}
    assert list(merged.search(None, 30, sparse=query)) == list(expect.search(None, 30, sparse=query))


def test_a_build_goes_on_with_the_same_vectors_only(tmp_path):
    tokens, vectors = corpus(np.random.default_rng(5), 10)
    index = built(tokens, vectors, tmp_path / "index", resume=True)
    assert list(index.search(None, 5, sparse={"red": 1})) == list(
        built(tokens, vectors).search(None, 5, sparse={"red": 1})
    )


def test_filters_and_texts_go_with_it():
    tokens = [np.eye(4, 8, dtype=np.float32)] * 4
    index = Index.build(
        tokens,
        sparse=[{"a": 1.0}, {"a": 2.0}, {"b": 1.0}, {"a": 3.0}],
        texts=["red", "fox", "red", "hen"],
        metadata=[{"n": i} for i in range(4)],
        text_search=True,
        progress=False,
    )
    assert index.search(None, 4, sparse={"a": 1}, filter={"n": {"$lt": 3}}).ids.tolist() == [1, 0]
    assert index.search(None, 4, text="red").ids.tolist() == [0, 2]
    with pytest.raises(ValueError, match="text and sparse must not both be given"):
        index.search(None, 4, text="red", sparse={"a": 1})


def test_without_vectors_there_is_nothing_to_search(tmp_path):
    index = Index.build([np.ones((1, 8))] * 3, tmp_path / "index", progress=False)
    with pytest.raises(ValueError, match="sparse needs an index whose documents have sparse vectors"):
        index.search(None, 5, sparse={"a": 1})
    index.add([np.ones((1, 8))], sparse=[{"a": 1}])
    assert index.search(None, 5, sparse={"a": 1}).ids.tolist() == [3]
    index.delete([3])
    with pytest.raises(ValueError, match="sparse needs an index whose documents have sparse vectors"):
        index.search(None, 5, sparse={"a": 1})
    assert built([np.ones((1, 8))] * 2, [None, {"a": 0, "b": 1e-9}]).search is not None


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"a": -1.0}, ValueError, r"sparse of document 1 must have weights from 0 to 65504, but that of a is -1\.0"),
        ({"a": float("nan")}, ValueError, "weights from 0 to 65504, but that of a is nan"),
        ({"a": 65505}, ValueError, "weights from 0 to 65504"),
        ({"a": "x"}, TypeError, "sparse of document 1 must have numbers as weights"),
        ({"": 1}, ValueError, "terms of 1 to 1000 bytes, got one of 0"),
        ({"a" * 1001: 1}, ValueError, "terms of 1 to 1000 bytes, got one of 1001"),
        ({"\ud800": 1}, ValueError, "terms that utf-8 can write"),
        ({-3: 1}, ValueError, "terms from 0, got -3"),
        ({1.5: 1}, TypeError, "strings or numbers from 0 as terms, got float"),
        ({True: 1}, TypeError, "strings or numbers from 0 as terms, got bool"),
        ({7: 1, "7": 2}, ValueError, "each term once"),
        (([1, 1], [1.0, 2.0]), ValueError, "each term once"),
        ((np.array([1, 1]), [1.0, 2.0]), ValueError, "each term once"),
        ((np.array([-1]), [1.0]), ValueError, "terms from 0, got -1"),
        (([1, 2], [1.0]), ValueError, r"one weight for each term, got \(1,\) for 2 terms"),
        (("ab", [1.0, 2.0]), TypeError, "a list of terms, got str"),
        (
            "fox",
            TypeError,
            "must be a mapping of terms to weights, a pair .* or a row of a sparse matrix, or None, got str",
        ),
        ([1, 2], TypeError, "must be a mapping of terms to weights"),
    ],
)
def test_vectors_that_cannot_be_are_refused(given, error, match):
    tokens = [np.ones((1, 8))] * 2
    with pytest.raises(error, match=match):
        Index.build(tokens, sparse=[None, given], progress=False)
    index = Index.build(tokens, sparse=[{"a": 1}, None], progress=False)
    with pytest.raises(
        error, match=match.replace("sparse of document 1", "sparse of document 0").replace("65504", ".*")
    ):
        index.add(tokens[:1], sparse=[given])
    assert len(index) == 2
    if not isinstance(given, list) and given != {"a": 65505}:
        with pytest.raises(error, match="sparse must"):
            index.search(None, 3, sparse=given)


def test_searches_that_cannot_be_are_refused():
    index = built([np.ones((1, 8))] * 3, [{"a": 1}] * 3)
    query = np.ones((1, 8), np.float32)
    for Q, given, match in [
        (query, [{"a": 1}], "sparse must be one vector for one query, got 1"),
        ([query, query], {"a": 1}, "sparse must be a list of 2 vectors, or a matrix, for a batch, got one"),
        ([query, query], [{"a": 1}] * 3, "sparse must be a list of 2 vectors, or a matrix, for a batch, got 3"),
    ]:
        with pytest.raises(ValueError, match=match):
            index.search(Q, 3, sparse=given)
    with pytest.raises(TypeError, match=r"sparse of query 1 must be a mapping .*, got None"):
        index.search(None, 3, sparse=[{"a": 1}, None])
    with pytest.raises(ValueError, match="recall is of searches by tokens alone, and sparse is given"):
        index.search(query, 3, sparse={"a": 1}, recall=0.9)
    with pytest.raises(ValueError, match="update needs doc_embs, texts, metadata or sparse"):
        index.update([0])
    with pytest.raises(ValueError, match="sparse must be one for each document, got 1 for 2"):
        index.add([np.ones((1, 8))] * 2, sparse=[{"a": 1}])
    with pytest.raises(TypeError, match="sparse must be a list with one for each document, got dict"):
        index.add([np.ones((1, 8))], sparse={"a": 1})


def test_an_empty_vector_finds_nothing(made):
    index, _ = made
    assert [len(hits) for hits in index.search(None, 5, sparse=[{}, {"red": 0}])] == [0, 0]


def test_the_golden_index_with_words_and_vectors(tmp_path):
    """Written once by tests/golden/make.py, and read for ever."""
    folder = Path(__file__).parents[1] / "golden" / "index-v3-terms"
    expected = json.loads(folder.with_name("index-v3-terms.json").read_text(encoding="utf-8"))
    make = runpy.run_path(str(folder.with_name("make.py")))
    shutil.copytree(folder, tmp_path / "copy")
    for index in (Index.open(folder, verify=True), Index.open(tmp_path / "copy")):
        if index.path == tmp_path / "copy":
            index.compact(full=True)
        for name, asked in (("text", "WORDS"), ("sparse", "VECTORS")):
            found = [[list(hit) for hit in hits] for hits in index.search(None, 50, **{name: make[asked]})]
            assert found == expected["words" if name == "text" else "vectors"]
    assert all(expected["vectors"]) and Index.verify(tmp_path / "copy").problems == []


def test_names_are_what_the_format_says(made, tmp_path):
    index, vectors = made
    index.save(tmp_path / "index")
    arrays = {
        name.rpartition("/")[2]: array
        for name, array in Index.open(tmp_path / "index")._snapshot.state.arrays.items()
        if "/sparse_" in name
    }
    text, cuts = arrays["sparse_term_bytes"].tobytes(), arrays["sparse_term_offsets"]
    terms = [text[first:last].decode() for first, last in itertools.pairwise(cuts)]
    assert terms == sorted(TERMS, key=str.encode)
    ends, found = arrays["sparse_posting_offsets"], [{} for _ in vectors]
    for term, (first, last) in zip(terms, itertools.pairwise(ends), strict=True):
        for document, weight in zip(
            arrays["sparse_posting_documents"][first:last], arrays["sparse_posting_weights"][first:last], strict=True
        ):
            found[document][term] = float(weight)
    assert found == kept(vectors)
