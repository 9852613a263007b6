"""Texts become the terms that a reader would expect, in any script; what cannot be is refused."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lateint.text.analyzer import LONGEST, Analyzer
from lateint.text.postings import postings
from lateint_kernels.text.building import check

CASES = {
    "words, numbers and punctuation": ("State-of-the-art, R2D2 costs 12.50!", "state of the art r2d2 costs 12 50"),
    "underscores part words": ("snake_case _x_", "snake case x"),
    "accents": ("Café ZÜRICH Ελλάδα Ёлка", "cafe zurich ελλαδα елка"),
    "accents written apart": ("Cafe\u0301", "cafe"),
    "one way to write a letter": ("\ufb01nal \uff21\uff22 \u2460", "final ab 1"),
    "soft hyphens and joiners": ("co\u00adoperate", "cooperate"),
    "marks that are vowels": ("हिन्दी भाषा", "हिन्दी भाषा"),
    "Arabic": ("اللغة العربية", "اللغة العربية"),
    "Turkish capital": ("İstanbul", "istanbul"),
    "pairs of Han and kana": ("東京都に行く。", "東京 京都 都に に行 行く"),
    "a single letter": ("A 東 B", "a 東 b"),
    "scripts side by side": ("Python入門3", "python 入門 3"),
    "pairs of Hangul": ("한국어", "한국 국어"),
    "nothing": ("... --- ___", ""),
    "half a surrogate": ("a\ud800b", "a b"),
}


@pytest.mark.parametrize("case", CASES)
def test_terms(case):
    text, terms = CASES[case]
    assert Analyzer().terms(text) == terms.split()


def test_accents_stay_and_scripts_are_not_cut_where_that_is_asked_for():
    assert Analyzer(fold=False).terms("Café") == ["café"]
    assert Analyzer(bigrams=False).terms("東京都に行く。") == ["東京都に行く"]


def test_stop_words():
    assert Analyzer(stopwords="english").terms("the cat and the hat") == ["cat", "hat"]
    assert Analyzer(stopwords=["CAT", "é"]).terms("a cat É e") == ["a", "e"]
    assert Analyzer(stopwords="english").query("The, and") == {}


def test_endings_are_taken_off_after_stop_words_and_before_accents():
    pytest.importorskip("Stemmer")
    assert Analyzer(stem="english").terms("Running runs ran") == ["run", "run", "ran"]
    assert Analyzer(stem="german").terms("Häuser") == ["haus"]
    with pytest.raises(ValueError, match=r"stem must be one of .*english.*, got 'klingon'"):
        Analyzer(stem="klingon").terms("nuqneH")


def test_without_the_stemmer_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(ImportError, match=r"takes english endings off, which needs PyStemmer: pip install 'lateint\["):
        Analyzer.of(Analyzer(stem="english"))
    assert Analyzer().terms("works") == ["works"]


def test_long_words_are_cut_off():
    assert Analyzer().terms("x" * 1_000_000) == ["x" * LONGEST]
    made = postings(Analyzer(), ["y" * 70_000, "y" * LONGEST])
    assert made.posting_documents.tolist() == [0, 1]


def test_query_counts_terms():
    assert Analyzer().query("To be or not to be") == {b"to": 2, b"be": 2, b"or": 1, b"not": 1}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.text(max_size=30) | st.text("ab é東京ก\u0301_", max_size=12), max_size=6))
def test_postings_hold_the_terms_of_each_text(texts):
    analyzer = Analyzer(stopwords=("a",))
    made = postings(analyzer, texts)
    check(made)
    terms = [analyzer.terms(text or "") for text in texts]
    assert made.text_lengths.tolist() == [len(found) for found in terms]
    names = [
        bytes(made.term_bytes[first:last]).decode()
        for first, last in zip(made.term_offsets, made.term_offsets[1:], strict=False)
    ]
    assert names == sorted({term for found in terms for term in found}, key=str.encode)
    for number, name in enumerate(names):
        run = slice(*made.posting_offsets[number : number + 2])
        expected = [(d, found.count(name)) for d, found in enumerate(terms) if name in found]
        found = zip(made.posting_documents[run].tolist(), made.posting_counts[run].tolist(), strict=True)
        assert list(found) == expected


def test_a_manifest_remembers_it():
    for analyzer in (Analyzer(), Analyzer("french", "english", False, False, 2, 1), Analyzer(stopwords=("b", "a"))):
        assert Analyzer.from_json(analyzer.to_json() | {"unknown": 1}) == analyzer


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"stem": 1}, TypeError, "stem must be the name of a language or None, got int"),
        ({"stopwords": "klingon"}, ValueError, "stopwords must be words, or one of english, got 'klingon'"),
        ({"stopwords": 3}, TypeError, "stopwords must be words, or the name of a language, got int"),
        ({"stopwords": [3]}, TypeError, "stopwords must be strings, got int"),
        ({"fold": 1}, TypeError, "fold must be True or False, got int"),
        ({"k1": "1"}, TypeError, "k1 must be a number, got str"),
        ({"k1": -1}, ValueError, "k1 must be from 0 to 1e"),
        ({"b": 1.5}, ValueError, "b must be from 0 to 1, got 1.5"),
        ({"b": float("nan")}, ValueError, "b must be from 0 to 1, got nan"),
    ],
)
def test_settings_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message):
        Analyzer(**settings)


def test_text_search_is_an_analyzer_or_yes_or_no():
    assert Analyzer.of(None) is None
    assert Analyzer.of(False) is None
    assert Analyzer.of(True) == Analyzer()
    assert Analyzer.of(Analyzer(k1=2)).k1 == 2
    with pytest.raises(TypeError, match=r"text_search must be True, False or a lateint\.Analyzer, got str"):
        Analyzer.of("english")


def test_many_documents_have_counts_beyond_a_byte():
    made = postings(Analyzer(), ["a " * 300, None, "a"])
    assert made.posting_counts.tolist() == [255, 1]
    assert made.large_counts.tolist() == [300]
    np.testing.assert_array_equal(made.text_lengths, [300, 0, 1])
