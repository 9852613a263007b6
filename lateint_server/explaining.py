"""What is asked of a search, and what it gives: hits, and why they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import Document, Explanation, Hits, Index
from lateint.encoders import Places
from lateint.encoders.batches import encoded_queries

RESERVED = "lateint"  # in metadata: where the tokens of a document are


@dataclass(frozen=True)
class Query:
    """Queries of one request, and what holds for all of them.

    Attributes:
        queries: embeddings; or texts, and texts with pictures, to encode; empty where words alone count.
        texts: words, one string a query; None: none.
        sparse: sparse vectors likewise.
        how: keyword arguments of `Index.search`.
        fields: to read for each hit; None: all.
        explain: whether similarities are wanted.
    """

    queries: list[Any]
    texts: list[str] | None
    sparse: list[dict[str, float]] | None
    how: dict[str, Any]
    fields: tuple[str, ...] | None
    explain: bool

    @property
    def group(self) -> str:
        """Queries of one group can be searched for in one call."""
        kinds = (
            self.to_encode,
            not self.queries,
            self.texts is None,
            self.sparse is None,
        )
        return repr((kinds, sorted(self.how.items())))

    @property
    def to_encode(self) -> bool:
        """Whether queries are for an encoder."""
        return bool(self.queries) and not isinstance(self.queries[0], np.ndarray)

    def __len__(self) -> int:
        return len(self.queries or self.texts or self.sparse or ())


@dataclass(frozen=True)
class Found:
    """What a search found, and in which generation of the index.

    Attributes:
        documents: of each hit of each query, where fields were asked for.
        similarities: likewise, ``[Lq, Ld]``, where explanations were.
        spans: likewise, where tokens begin and end in the text; None where that is not known.
        places: of the tokens of each query that was encoded, where the encoder tells.
    """

    hits: list[Hits]
    generation: int
    documents: list[list[Document]] | None = None
    similarities: list[list[NDArray[Any]]] | None = None
    spans: list[list[Any]] | None = None
    places: list[Places | None] | None = None


def found(asked: Query, tokens: list[Any], hits: list[Hits], view: Index) -> Found:
    """What a request gets for its queries, whose tokens these are."""
    documents = None if asked.fields == () else [one.documents(asked.fields) for one in hits]
    if not asked.explain:
        return Found(hits, view.generation, documents)
    similarities = [[view.similarity(query, id) for id, _ in own] for query, own in zip(tokens, hits, strict=True)]
    spans = None
    if documents is not None:
        spans = [
            [_spans(view, document, alike.shape[1]) for document, alike in zip(*pair, strict=True)]
            for pair in zip(documents, similarities, strict=True)
        ]
    places = query_places(view, asked.queries, tokens) if asked.to_encode else None
    return Found(hits, view.generation, documents, similarities, spans, places)


def explained(view: Index, query: Any, id: Any) -> tuple[Explanation, NDArray[np.float32], Places | None]:
    """What `Index.explain` and `Index.similarity` give, and what the tokens of the query stand for."""
    if isinstance(query, np.ndarray) or view.encoder is None:
        return view.explain(query, id), view.similarity(query, id), None
    tokens = encoded_queries(view.encoder, [query])
    (places,) = query_places(view, [query], tokens)
    return view.explain(tokens[0], id), view.similarity(tokens[0], id), places


def query_places(view: Index, queries: list[Any], tokens: list[Any]) -> list[Places | None]:
    """What the tokens of queries stand for, as the encoder says."""
    encoder: Any = view.encoder
    told: list[Places | None] = [None] * len(queries)
    if (tell := getattr(encoder, "query_places", None)) is not None:
        told = list(tell(queries))
    elif (spans := getattr(encoder, "spans", None)) is not None and all(isinstance(one, str) for one in queries):
        told = [Places([text[a:b] for a, b in own]) for text, own in zip(queries, spans(queries), strict=True)]
    return [
        one if one is not None and len(one.words) == len(rows) else None for one, rows in zip(told, tokens, strict=True)
    ]


def _spans(view: Index, document: Document, length: int) -> Any:
    """Where the tokens of a document are in its text: as its metadata say, or else its encoder; None: unknown."""
    stored = document.metadata.get(RESERVED)
    if isinstance(stored, Mapping) and "spans" in stored:
        return stored["spans"] if _fit(stored["spans"], length) else None
    tell = getattr(view.encoder, "spans", None)
    if document.text is None or tell is None:
        return None
    (spans,) = tell([document.text])
    return [[int(first), int(last)] for first, last in spans] if len(spans) == length else None


def _fit(spans: Any, length: int) -> bool:
    if not isinstance(spans, Sequence) or len(spans) != length:
        return False
    return all(isinstance(one, Sequence) and len(one) == 2 and all(type(at) is int for at in one) for one in spans)
