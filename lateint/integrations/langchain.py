"""A vector store of LangChain: ``pip install lateint langchain-core``.

>>> store = LateIntVectorStore(encoder, "passages")  # doctest: +SKIP
>>> store.add_texts(["Vaccines train the immune system."], metadatas=[{"lang": "en"}])  # doctest: +SKIP
>>> store.similarity_search("how do vaccines work?", k=3, filter={"lang": "en"})  # doctest: +SKIP
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

try:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore
except ImportError:
    raise ImportError('langchain-core is not installed: pip install "lateint[langchain]"') from None

from lateint.documents import Document as Stored
from lateint.integrations.store import TextStore

NO_VECTORS = "a late-interaction index has a vector for each token and none for a text, so that {} cannot be offered"


class LateIntVectorStore(VectorStore):  # type: ignore[misc]
    """Documents found by MaxSim over their tokens.

    Scores are MaxSim: sums over the tokens of the query, not bounded by 1. Asynchronous methods run these in a thread.

    Args:
        encoder: an `lateint.encoders.Encoder`, or a model of PyLate or sentence-transformers. LangChain's `Embeddings`
            make one vector of a text, and will not do.
        path: the folder of the index; None keeps it in memory.
        settings: for `lateint.Index.build` or `lateint.Index.open`.
    """

    def __init__(self, encoder: Any, path: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        self.store = TextStore(encoder, path, **settings)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts, or replaces those with the same ids; returns their ids."""
        listed = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(listed):
                raise ValueError(f"{name} must have one for each of the {len(listed)} texts, got {len(values)}")
        names = [id or str(uuid.uuid4()) for id in (ids or [None] * len(listed))]
        self.store.add(names, listed, metadatas)
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Deletes those of ``ids`` that are there; None: all documents."""
        if ids is None:
            self.store.clear()
        else:
            self.store.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those that are there."""
        return [_document(stored) for stored in self.store.get(ids)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The best ``k`` documents; see `similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The best ``k`` documents with their MaxSim, best first.

        Args:
            filter: on metadata, as `lateint.Index.search` takes it: ``{"year": {"$gte": 2020}}``.
            kwargs: for `lateint.Index.search`, such as ``exhaustive``.
        """
        condition = filter if filter else True
        return [(_document(stored), score) for stored, score in self.store.search(query, k, condition, **kwargs)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Not offered."""
        raise NotImplementedError(NO_VECTORS.format("a search by one vector"))

    def max_marginal_relevance_search(self, *args: Any, **kwargs: Any) -> list[Document]:
        """Not offered."""
        raise NotImplementedError(NO_VECTORS.format("maximal marginal relevance"))

    def _select_relevance_score_fn(self) -> Any:
        raise NotImplementedError("MaxSim has no upper bound, so that relevance from 0 to 1 cannot be offered")

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Any,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> LateIntVectorStore:
        """A store of these texts; ``embedding`` is the encoder."""
        store = cls(embedding, path, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _document(stored: Stored) -> Document:
    return Document(id=stored.id, page_content=stored.text or "", metadata=stored.metadata)
