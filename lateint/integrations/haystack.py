"""A document store of Haystack and its retriever: ``pip install lateint haystack-ai``.

>>> store = LateIntDocumentStore(encoder, "passages")  # doctest: +SKIP
>>> store.write_documents([Document(content="Vaccines train the immune system.")])  # doctest: +SKIP
>>> LateIntRetriever(store).run(query="how do vaccines work?", top_k=3)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.core.serialization import import_class_by_name
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
except ImportError:
    raise ImportError('haystack-ai is not installed: pip install "lateint[haystack]"') from None

from lateint.documents import Document as Stored
from lateint.integrations.haystack_filters import condition
from lateint.integrations.store import TextStore

BESIDES = ("blob", "embedding", "sparse_embedding")  # kept, but never searched


class LateIntDocumentStore:
    """Documents found by MaxSim over the tokens of their content.

    Args:
        encoder: an `lateint.encoders.Encoder`, or a model of PyLate or sentence-transformers; or the full name of a
            class, as a string, which a pipeline that is saved needs.
        path: the folder of the index; None keeps it in memory.
        encoder_options: keyword arguments of the class that ``encoder`` names.
        settings: for `lateint.Index.build` or `lateint.Index.open`.
    """

    def __init__(
        self,
        encoder: Any,
        path: str | None = None,
        encoder_options: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.arguments = dict(encoder=encoder, path=path, encoder_options=encoder_options, settings=settings)
        model = import_class_by_name(encoder)(**(encoder_options or {})) if isinstance(encoder, str) else encoder
        self.store = TextStore(model, path, **(settings or {}))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` makes such a store of."""
        if not isinstance(self.arguments["encoder"], str):
            raise ValueError("encoder must be the full name of a class for a store that is saved")
        return dict(default_to_dict(self, **self.arguments))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The store that `to_dict` described."""
        return default_from_dict(cls, data)

    def count_documents(self) -> int:
        """How many documents there are."""
        return len(self.store)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """All documents for which a filter holds."""
        return [_document(stored) for stored in self.store.matching(condition(filters))]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Adds documents; without a policy, an id that is there is an error. Returns how many were added."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("documents must be a list of Haystack's documents")
        if policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            if there := self.store.there([one.id for one in documents]):
                raise DuplicateDocumentError(f"a document with the id {there[0]!r} is there already")
        elif policy == DuplicatePolicy.SKIP:
            there = self.store.there([one.id for one in documents])
            documents = [one for one in documents if one.id not in set(there)]
        for one in documents:
            if one.content is None:
                raise ValueError(f"document {one.id!r} has no content, and only texts can be encoded")
        metadata = [_metadata(one) for one in documents]
        self.store.add([one.id for one in documents], [one.content or "" for one in documents], metadata)
        return len(documents)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Deletes those that are there."""
        self.store.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Deletes all documents."""
        self.store.clear()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Deletes the documents for which a filter holds; returns how many."""
        return self.store.delete([stored.id for stored in self.store.matching(condition(filters))])

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """For how many documents a filter holds."""
        return len(self.store.matching(condition(filters)))


@component
class LateIntRetriever:
    """Finds the documents of a `LateIntDocumentStore` for a query; the store's encoder encodes it.

    Args:
        document_store: the store.
        top_k: how many documents.
        filters: that a query without filters has.
    """

    def __init__(
        self, document_store: LateIntDocumentStore, top_k: int = 10, filters: dict[str, Any] | None = None
    ) -> None:
        self.document_store, self.top_k, self.filters = document_store, top_k, filters

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None) -> dict[str, Any]:
        """``documents``, best first, with their MaxSim as ``score``."""
        k, chosen = self.top_k if top_k is None else top_k, filters if filters else self.filters
        found = self.document_store.store.search(query, k, condition(chosen))
        return {"documents": [_document(stored, score) for stored, score in found]}

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` makes such a retriever of."""
        store = self.document_store.to_dict()
        return dict(default_to_dict(self, document_store=store, top_k=self.top_k, filters=self.filters))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The retriever that `to_dict` described."""
        arguments = dict(data["init_parameters"])
        store = arguments["document_store"]
        if not isinstance(store, LateIntDocumentStore):
            arguments["document_store"] = LateIntDocumentStore.from_dict(store)
        return default_from_dict(cls, {**data, "init_parameters": arguments})


def _metadata(document: Document) -> dict[str, Any]:
    """What is kept besides the content; filters of Haystack say ``meta.name``. Lists of lists are no fields."""
    every = document.to_dict(flatten=False)
    besides = {name: [[every[name]]] for name in BESIDES if every.get(name) is not None}
    return {**({"meta": document.meta} if document.meta else {}), **besides}


def _document(stored: Stored, score: float | None = None) -> Document:
    kept = {name: value[0][0] for name, value in stored.metadata.items() if name in BESIDES}
    meta = stored.metadata.get("meta", {})
    return Document.from_dict({"id": stored.id, "content": stored.text, "meta": meta, "score": score, **kept})
