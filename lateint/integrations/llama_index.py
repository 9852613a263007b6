"""A vector store of LlamaIndex: ``pip install lateint llama-index-core``.

>>> store = LateIntVectorStore(encoder, "passages")  # doctest: +SKIP
>>> index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(1))  # doctest: +SKIP
>>> index.insert_nodes(nodes)  # doctest: +SKIP
>>> index.as_retriever(similarity_top_k=3).retrieve("how do vaccines work?")  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

try:
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError:
    raise ImportError('llama-index-core is not installed: pip install "lateint[llama-index]"') from None
from pydantic import PrivateAttr

from lateint.documents import Document
from lateint.integrations.conditions import EVERYTHING, Condition, all_of
from lateint.integrations.llama_index_filters import condition
from lateint.integrations.store import TextStore


class LateIntVectorStore(BasePydanticVectorStore):  # type: ignore[misc]
    """Nodes found by MaxSim over the tokens of their text.

    Queries come as text and are encoded here; embeddings of nodes are not looked at, so that ``MockEmbedding(1)`` will
    do as LlamaIndex's own. Similarities are MaxSim: sums over the tokens of the query, not bounded by 1.

    Args:
        encoder: an `lateint.encoders.Encoder`, or a model of PyLate or sentence-transformers.
        path: the folder of the index; None keeps it in memory.
        settings: for `lateint.Index.build` or `lateint.Index.open`.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _store: TextStore = PrivateAttr()

    def __init__(self, encoder: Any, path: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        super().__init__()
        self._store = TextStore(encoder, path, **settings)

    @classmethod
    def class_name(cls) -> str:
        """Of the component."""
        return "LateIntVectorStore"

    @property
    def client(self) -> Any:
        """The `lateint.Index`; None before the first nodes."""
        return self._store.index

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Adds nodes, or replaces those with the same ids."""
        ids = [node.node_id for node in nodes]
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        self._store.add(ids, texts, [node_to_metadata_dict(node, remove_text=True) for node in nodes])
        return ids

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a document."""
        self._store.delete([node.id for node in self._store.matching({"ref_doc_id": {"$eq": ref_doc_id}})])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Deletes the nodes that have one of these ids and for which the filters hold."""
        self._store.delete([node.id for node in self._chosen(node_ids, filters)])

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that have one of these ids and for which the filters hold."""
        return [_node(one) for one in self._chosen(node_ids, filters)]

    def clear(self) -> None:
        """Deletes all nodes."""
        self._store.clear()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes for ``query.query_str``."""
        if query.query_str is None:
            raise ValueError("query_str must be given: a late-interaction index is not searched by one vector")
        if query.mode != VectorStoreQueryMode.DEFAULT:
            raise ValueError(f"mode must be default, got {query.mode}")
        of_documents: Condition = {"ref_doc_id": {"$in": query.doc_ids}} if query.doc_ids else EVERYTHING
        chosen = all_of([condition(query.filters), of_documents])
        if query.node_ids:  # an empty list stands for all
            kwargs["subset"] = self._store.there(query.node_ids)
        found = self._store.search(query.query_str, query.similarity_top_k, chosen, **kwargs)
        return VectorStoreQueryResult(
            nodes=[_node(one) for one, _ in found],
            similarities=[score for _, score in found],
            ids=[one.id for one, _ in found],
        )

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _chosen(self, ids: list[str] | None, filters: MetadataFilters | None) -> list[Document]:
        if ids is None:
            return self._store.matching(condition(filters))
        if filters is None:
            return self._store.get(ids)
        wanted = set(ids)
        return [one for one in self._store.matching(condition(filters)) if one.id in wanted]


def _node(stored: Document) -> BaseNode:
    return metadata_dict_to_node(stored.metadata, text=stored.text)
