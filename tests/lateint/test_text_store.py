"""What the stores of all frameworks share: an index that the first texts make, and conditions in two truth values."""

import sys
from importlib import import_module
from itertools import product

import pytest
from words import Words

from lateint import Index
from lateint.integrations.conditions import EVERYTHING, NOTHING, all_of, any_of, compare, known, negated
from lateint.integrations.store import TextStore

METADATA = [{"year": 2020, "kind": "a"}, {"year": 2022}, {"kind": "b", "none": None}, {}]
TEXTS = ["red rose", "blue sky", "red sky", "black cat"]


@pytest.fixture
def store():
    made = TextStore(Words())
    made.add(["a", "b", "c", "d"], TEXTS, METADATA)
    return made


def ids(found):
    return [document.id for document in found]


def test_a_store_begins_empty_and_is_found_again(tmp_path):
    store = TextStore(Words(), tmp_path / "index", nbits=8)
    assert (len(store), store.get(["a"]), store.search("red", 3), store.matching(), store.delete(["a"])) == (
        0, [], [], [], 0
    )  # fmt: skip
    store.add([], [])
    assert store.index is None
    store.add(["a", "b", "a"], ["red rose", "blue sky", "red sky"])
    assert ids(store.get(["b", "none", "a"])) == ["b", "a"]
    again = TextStore(Words(), tmp_path / "index")
    assert again.index.nbits == 8
    assert [(document.id, document.text) for document, _ in again.search("red sky", 1)] == [("a", "red sky")]
    again.clear()
    assert len(again) == 0 and again.search("red", 3) == []
    again.add(["z"], ["red"])
    assert ids(document for document, _ in again.search("red", 3)) == ["z"]


def test_a_store_that_grows_learns_its_codec_again_from_its_texts():
    store, texts = TextStore(Words(dim=32), nbits=2), [f"w{i} w{i + 1} w{i + 2}" for i in range(0, 300, 3)]
    for row, text in enumerate(texts):
        store.add([str(row)], [text])
    trained = store.index.codec.training.tokens
    assert store.index.tokens < 4 * trained
    whole = Index.build(texts=texts, encoder=Words(dim=32), nbits=2, progress=False)
    for store_of in (store.index, whole):
        found = [store_of.search(text, 1).ids[0] for text in texts]
        assert sum(str(row) == str(one) for row, one in enumerate(found)) >= 98


def truth(year, kind):
    return {
        "year_after_2020": year is not None and year > 2020,
        "kind_a": kind == "a",
        "no_year": year is None,
        "not_kind_b": kind != "b",
    }


NAMED = {
    "year_after_2020": compare("year", "$gt", 2020),
    "kind_a": compare("kind", "$eq", "a"),
    "no_year": {"year": {"$exists": False}},
    "not_kind_b": compare("kind", "$ne", "b"),
}


@pytest.mark.parametrize("names", list(product(NAMED, NAMED)))
def test_conditions_have_two_truth_values(store, names):
    conditions = [NAMED[name] for name in names]
    values = [[truth(of.get("year"), of.get("kind"))[name] for name in names] for of in METADATA]

    def chosen(holds):
        return [id for id, of in zip("abcd", values, strict=True) if holds(of)]

    assert ids(store.matching(all_of(conditions))) == chosen(all)
    assert ids(store.matching(any_of(conditions))) == chosen(any)
    assert ids(store.matching(negated(all_of(conditions)))) == chosen(lambda of: not all(of))
    assert ids(store.matching(negated(any_of([conditions[0], negated(conditions[1])])))) == chosen(
        lambda of: not of[0] and of[1]
    )


def test_fields_that_no_document_has_hold_nothing(store):
    assert store.matching(compare("nowhere", "$gt", 1)) == []
    assert len(store.matching(compare("nowhere", "$nin", [1]))) == 4
    assert store.search("red", 2, all_of([compare("nowhere", "$eq", 1), NAMED["kind_a"]])) == []
    some = any_of([compare("nowhere", "$eq", 1), NAMED["kind_a"]])
    assert ids(document for document, _ in store.search("sky", 2, some)) == ["a"]
    assert known(negated(negated(compare("nowhere", "$eq", 1))), {"year"}) is NOTHING


def test_everything_and_nothing_disappear():
    one = compare("year", "$eq", 1)
    assert all_of([]) is EVERYTHING and any_of([]) is NOTHING
    assert all_of([EVERYTHING, one]) == one and any_of([NOTHING, one]) == one
    assert all_of([NOTHING, one]) is NOTHING and any_of([EVERYTHING, one]) is EVERYTHING
    assert negated(EVERYTHING) is NOTHING


def test_get_takes_a_filter(store):
    index = store.index
    assert ids(index.get(filter={"year": {"$gte": 2021}})) == ["b"]
    assert index.get(filter="year < :y", params={"y": 0}) == []
    for wrong in ({}, {"ids": ["a"], "filter": {"year": 1}}):
        with pytest.raises(ValueError, match="get needs ids or filter, and not both"):
            index.get(**wrong)


@pytest.mark.parametrize(
    ("module", "package"), [("langchain", "langchain_core"), ("llama_index", "llama_index"), ("haystack", "haystack")]
)
def test_a_framework_that_is_missing_is_named(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"lateint.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=rf'is not installed: pip install "lateint\[{module.replace("_", "-")}\]"'):
        import_module(f"lateint.integrations.{module}")
