"""LlamaIndex has no standard tests of a vector store: its filters are compared with its newest reading of them."""

import asyncio
import operator
import threading

import pytest

pytest.importorskip("llama_index.core")
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, utils
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from words import Words

from lateint.integrations.llama_index import LateIntVectorStore

METADATA = {
    "a": {"year": 2020, "kind": "plant", "tags": ["x", "y"], "rate": 0.5},
    "b": {"year": 2022, "kind": "air", "tags": ["y"]},
    "c": {"kind": "air 50%_of", "rate": 1.5},
    "d": {},
}
TEXTS = {"a": "red rose", "b": "blue sky", "c": "red sky", "d": "black cat"}


def nodes():
    made = []
    for id, text in TEXTS.items():
        node = TextNode(id_=id, text=text, metadata=METADATA[id])
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="first" if id in "ab" else "second")
        made.append(node)
    return made


@pytest.fixture
def store():
    made = LateIntVectorStore(Words())
    made.add(nodes())
    return made


def ask(store, text, **settings):
    return store.query(VectorStoreQuery(query_str=text, similarity_top_k=4, **settings))


def test_nodes_come_back_as_they_were(store):
    found = ask(store, "red sky")
    assert found.ids[0] == "c"
    assert found.similarities[0] == pytest.approx(2, abs=0.1)
    assert found.nodes[0].text == "red sky"
    assert found.nodes[0].metadata == METADATA["c"]
    assert found.nodes[0].ref_doc_id == "second"
    assert ask(store, "red", node_ids=["b", "none"]).ids == ["b"]
    assert set(ask(store, "red", doc_ids=["first"]).ids) == {"a", "b"}
    assert len(ask(store, "red", doc_ids=[], node_ids=[]).ids) == 4


EQUAL = FilterOperator
CASES = [
    *[("year", test, 2020) for test in (EQUAL.EQ, EQUAL.NE, EQUAL.GT, EQUAL.GTE, EQUAL.LT, EQUAL.LTE)],
    ("rate", EQUAL.GT, 1),
    ("kind", EQUAL.IN, ["plant", "none"]),
    ("kind", EQUAL.NIN, ["plant"]),
    ("tags", EQUAL.CONTAINS, "x"),
    ("tags", EQUAL.ANY, ["x", "z"]),
    ("tags", EQUAL.ALL, ["x", "y"]),
    ("kind", EQUAL.TEXT_MATCH, "50%_"),
    ("kind", EQUAL.TEXT_MATCH, "air"),
    ("year", EQUAL.IS_EMPTY, None),
    ("nowhere", EQUAL.EQ, 1),
    ("nowhere", EQUAL.NE, 1),
]


HOLDS = {
    EQUAL.EQ: operator.eq, EQUAL.NE: operator.ne, EQUAL.GT: operator.gt, EQUAL.GTE: operator.ge,
    EQUAL.LT: operator.lt, EQUAL.LTE: operator.le,
    EQUAL.CONTAINS: operator.contains, EQUAL.TEXT_MATCH: operator.contains,
    EQUAL.IN: lambda value, wanted: value in wanted, EQUAL.NIN: lambda value, wanted: value not in wanted,
    EQUAL.ANY: lambda value, wanted: any(one in value for one in wanted),
    EQUAL.ALL: lambda value, wanted: all(one in value for one in wanted),
}  # fmt: skip
TOGETHER = {FilterCondition.AND: all, FilterCondition.OR: any, FilterCondition.NOT: lambda found: not any(found)}


def holds(metadata, case):
    key, test, wanted = case
    value = metadata.get(key)
    if test == EQUAL.IS_EMPTY:
        return value in (None, "", [])
    return test in (EQUAL.NE, EQUAL.NIN) if value is None else HOLDS[test](value, wanted)


@pytest.mark.parametrize("condition", list(FilterCondition))
@pytest.mark.parametrize("case", range(len(CASES)))
def test_filters_choose_what_llama_index_would(store, case, condition):
    pair = [CASES[case], CASES[(case + 5) % len(CASES)]]
    filters = MetadataFilters(
        filters=[MetadataFilter(key=key, operator=test, value=value) for key, test, value in pair],
        condition=condition,
    )
    expected = [id for id, of in METADATA.items() if TOGETHER[condition]([holds(of, one) for one in pair])]
    if hasattr(utils, "build_metadata_filter_fn"):  # releases before have readings that differ
        assert expected == list(filter(utils.build_metadata_filter_fn(METADATA.get, filters), METADATA))
    assert [node.node_id for node in store.get_nodes(filters=filters)] == expected
    assert sorted(ask(store, "red", filters=filters).ids) == expected


def test_nodes_are_deleted(store):
    store.delete("first")
    assert {node.node_id for node in store.get_nodes()} == {"c", "d"}
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="rate", value=1.5)]))
    assert [node.node_id for node in store.get_nodes(["c", "d"])] == ["d"]
    store.clear()
    assert store.get_nodes() == []


def test_what_is_not_offered_is_refused(store):
    with pytest.raises(ValueError, match="query_str must be given"):
        store.query(VectorStoreQuery(query_embedding=[0.0]))
    with pytest.raises(ValueError, match="mode must be default"):
        ask(store, "red", mode=VectorStoreQueryMode.MMR)
    with pytest.raises(ValueError, match="is not offered"):
        one = MetadataFilter(key="kind", operator=EQUAL.TEXT_MATCH_INSENSITIVE, value="AIR")
        store.get_nodes(filters=MetadataFilters(filters=[one]))


def test_an_index_of_llama_index_on_a_store():
    index = VectorStoreIndex.from_vector_store(LateIntVectorStore(Words()), embed_model=MockEmbedding(1))
    index.insert_nodes(nodes())
    found = index.as_retriever(similarity_top_k=1).retrieve("black cat")
    assert [one.node.node_id for one in found] == ["d"]


def test_asynchronous_calls_do_not_block_the_loop():
    encoder = Words(slow=0.1)
    store = LateIntVectorStore(encoder)

    async def run():
        await store.async_add(nodes())
        return await store.aquery(VectorStoreQuery(query_str="red sky", similarity_top_k=1))

    assert asyncio.run(run()).ids == ["c"]
    assert threading.get_ident() not in encoder.threads
