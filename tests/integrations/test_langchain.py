"""LangChain's standard tests of a vector store, and what they leave out."""

import asyncio
import threading

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests
from words import Words

from lateint.integrations.langchain import LateIntVectorStore

TEXTS = ["red rose", "blue sky", "red sky at night"]
METADATA = [{"year": 2020, "kind": "plant"}, {"year": 2022, "kind": "air"}, {"year": 2024, "kind": "air"}]


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return LateIntVectorStore(Words())


def store(path=None):
    return LateIntVectorStore.from_texts(TEXTS, Words(), METADATA, ids=["a", "b", "c"], path=path)


def test_filters_choose():
    found = store().similarity_search_with_score("red sky", k=3, filter={"year": {"$gte": 2022}})
    assert [document.id for document, _ in found] == ["c", "b"]
    assert found[0][1] == pytest.approx(2, abs=0.1)
    assert store().similarity_search("red", filter={"no_such_field": 1}) == []
    retriever = store().as_retriever(search_kwargs={"k": 1, "filter": {"kind": "plant"}})
    assert [document.page_content for document in retriever.invoke("sky")] == ["red rose"]


def test_a_store_is_found_again(tmp_path):
    store(tmp_path / "index").add_texts(["black cat"], ids=["d"])
    again = LateIntVectorStore(Words(), tmp_path / "index")
    assert [document.id for document in again.similarity_search("black cat", k=1)] == ["d"]
    assert again.get_by_ids(["a"])[0].metadata == METADATA[0]
    again.delete()
    assert again.similarity_search("red") == []


def test_what_needs_one_vector_is_refused():
    with pytest.raises(NotImplementedError, match="a search by one vector"):
        store().similarity_search_by_vector([0.0])
    with pytest.raises(NotImplementedError, match="maximal marginal relevance"):
        store().max_marginal_relevance_search("red")
    with pytest.raises(NotImplementedError, match="no upper bound"):
        store().similarity_search_with_relevance_scores("red")
    with pytest.raises(ValueError, match="metadatas must have one for each of the 1 texts, got 2"):
        store().add_texts(["x"], [{}, {}])


def test_asynchronous_calls_do_not_block_the_loop():
    encoder = Words(slow=0.2)

    async def run():
        made = await LateIntVectorStore.afrom_texts(TEXTS, encoder, METADATA)
        return await made.asimilarity_search("red", k=1)

    assert len(asyncio.run(run())) == 1
    assert threading.get_ident() not in encoder.threads
