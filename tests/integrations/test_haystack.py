"""Haystack's standard tests of a document store, and of its retriever in a pipeline."""

import pytest

pytest.importorskip("haystack")
from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.errors import FilterError
from haystack.testing.document_store import DocumentStoreBaseTests
from words import Words

from lateint.integrations.haystack import LateIntDocumentStore, LateIntRetriever


class TestStandard(DocumentStoreBaseTests):
    @pytest.fixture
    def document_store(self):
        return LateIntDocumentStore(Words())

    def test_write_documents(self, document_store):
        document = Document(content="red rose")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError, match="is there already"):
            document_store.write_documents([document])


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    """Newer releases make no object of a class that is not on this list, by its name."""
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "words,lateint")


def filled(path=None):
    store = LateIntDocumentStore("words.Words", path, {"dim": 16})
    meta = [{"year": 2020}, {"year": 2022, "tags": ["x"]}, {}]
    store.write_documents([Document(content=text, meta=of, id=text[0]) for text, of in zip(
        ["a red rose", "b blue sky", "c red sky"], meta, strict=True)])  # fmt: skip
    return store


def test_a_retriever_in_a_pipeline_that_was_saved(tmp_path):
    pipeline = Pipeline()
    pipeline.add_component("retriever", LateIntRetriever(filled(str(tmp_path / "index")), top_k=2))
    again = Pipeline.loads(pipeline.dumps())
    documents = again.run({"retriever": {"query": "red sky"}})["retriever"]["documents"]
    assert len(documents) == 2 and documents[0].id == "c"
    assert documents[0].score == pytest.approx(2, abs=0.1)
    filters = {"field": "meta.year", "operator": ">", "value": 2019}
    documents = again.run({"retriever": {"query": "red sky", "filters": filters, "top_k": 9}})["retriever"]["documents"]
    assert {document.id for document in documents} == {"a", "b"}


def test_negations_include_documents_without_the_field():
    store = filled()
    year = {"field": "meta.year", "operator": ">", "value": 2021}
    assert [one.id for one in store.filter_documents({"operator": "NOT", "conditions": [year]})] == ["a", "c"]
    assert store.count_documents_by_filter({"field": "year", "operator": "not in", "value": [2020, None]}) == 1
    assert store.delete_by_filter({"operator": "OR", "conditions": [year]}) == 1
    store.delete_all_documents()
    assert store.count_documents() == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="has no content, and only texts can be encoded"):
        filled().write_documents([Document(blob=ByteStream(b"x"))])
    with pytest.raises(FilterError, match="field must be one of meta, got 'content'"):
        filled().filter_documents({"field": "content", "operator": "==", "value": "x"})
    with pytest.raises(FilterError, match="operator must be AND, OR or NOT, got 'XOR'"):
        filled().filter_documents({"operator": "XOR", "conditions": []})
    with pytest.raises(ValueError, match="encoder must be the full name of a class"):
        LateIntDocumentStore(Words()).to_dict()
