"""What can be asked of the indexes of a server."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from lateint import Document, Index
from lateint.encoders import Places
from lateint.fields.values import as_json
from lateint_server import explaining, messages
from lateint_server.arrays import written
from lateint_server.explaining import Found, Query
from lateint_server.serving import Served
from lateint_server.settings import Settings
from lateint_server.wire import Route, WriteRoute, answer, bearer, wants_binary

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": messages.Problem, "description": meaning}
    for status, meaning in {
        401: "no key, or none that is known",
        403: "a key that may not do this",
        404: "no such index or document",
        408: "the request did not arrive in time",
        413: "the body, or the picture of a query, is too large",
        422: "something in the request is wrong",
        429: "too much waits already; Retry-After says when to come back",
        503: "another process writes, or the disk fails",
        504: "no answer in time",
    }.items()
}
PREFIX = "/v1/indexes"
reading = APIRouter(
    prefix=PREFIX, route_class=Route, responses=PROBLEMS, dependencies=[Depends(bearer)], tags=["search"]
)
writing = APIRouter(
    prefix=PREFIX, route_class=WriteRoute, responses=PROBLEMS, dependencies=[Depends(bearer)], tags=["change"]
)
HOW = ("k", "nprobe", "candidates", "exhaustive", "recall", "subset", "filter", "params")


def _documented(name: Annotated[str, Path(description="of an index")]) -> None:
    """What FastAPI documents for an index; `wire.Route` finds it."""


At = Annotated[Served, Depends(_documented)]
By = Annotated[Settings, Depends(lambda: None)]


@reading.get("", summary="All indexes", response_model=messages.IndexList)
async def indexes(request: Request) -> Response:
    return answer(
        request, {"indexes": [_described(one.name, one.view()) for one in request.app.state.indexes.values()]}
    )


@reading.get(
    "/{name}", summary="An index: sizes, generation, and whether its codec fits", response_model=messages.Stats
)
async def stats(request: Request, at: At, by: By) -> Response:
    return answer(request, await at.read(lambda view: _stats(at.name, view), by.timeout))


@reading.post("/{name}/search", summary="The documents that match a query best", response_model=messages.Hits)
async def search(request: Request, at: At, by: By, data: messages.Search) -> Response:
    if data.query is None and ((data.text is None and data.sparse is None) or data.explain):
        raise HTTPException(422, "query must be given" + (", for explain" if data.explain else ", or text or sparse"))
    found = await at.search(_query(_listed(data.query) or [], data, by), _timeout(data, by))
    content = {"hits": _hits(found, 0, request), "generation": found.generation}
    if found.places is not None:
        content |= _places(found.places[0])
    return answer(request, content)


@reading.post("/{name}/search/batch", summary="The same for many queries", response_model=messages.HitsBatch)
async def search_batch(request: Request, at: At, by: By, data: messages.SearchBatch) -> Response:
    _at_most(len(data.queries), by.max_queries, "queries")
    found = await at.search(_query(data.queries, data, by), _timeout(data, by))
    results = [_hits(found, number, request) for number in range(len(data.queries))]
    return answer(request, {"results": results, "generation": found.generation})


@reading.post("/{name}/rerank", summary="Scores of documents that you name", response_model=messages.Hits)
async def rerank(request: Request, at: At, by: By, data: messages.Rerank) -> Response:
    _at_most(len(data.ids), by.max_documents, "ids")
    by.pictures.check(data.query)

    def scored(view: Index) -> Found:
        query = at.opened(data.query)
        return Found([view.rerank(query, data.ids, data.k, filter=data.filter, params=data.params)], view.generation)

    found = await at.read(scored, by.timeout)
    return answer(request, {"hits": _hits(found, 0, request), "generation": found.generation})


@reading.post(
    "/{name}/explain", summary="Which tokens of a document a query matches", response_model=messages.Explanation
)
async def explain(request: Request, at: At, by: By, data: messages.Explain) -> Response:
    binary = wants_binary(request)
    by.pictures.check(data.query)

    def explained(view: Index) -> dict[str, Any]:
        explanation, similarity, places = explaining.explained(view, at.opened(data.query), data.id)
        return {
            "tokens": explanation.tokens.tolist(),
            "scores": explanation.scores.tolist(),
            "similarity": written(similarity, binary=binary),
            "generation": view.generation,
            **_places(places),
        }

    return answer(request, await at.read(explained, by.timeout))


@reading.post("/{name}/count", summary="How many documents a filter leaves", response_model=messages.Counted)
async def count(request: Request, at: At, by: By, data: messages.Condition) -> Response:
    def counted(view: Index) -> dict[str, Any]:
        return {"documents": view.count(data.filter, data.params), "generation": view.generation}

    return answer(request, await at.read(counted, by.timeout))


@reading.get("/{name}/documents/{id:path}", summary="A document", response_model=messages.StoredDocument)
async def document(request: Request, at: At, by: By, id: str) -> Response:
    def looked_up(view: Index) -> dict[str, Any]:
        known = _known_id(view, id)
        (one,) = view.get([known])
        tokens = len(view.reconstruct(known))
        return {**_document(one), "id": known, "tokens": tokens, "generation": view.generation}

    return answer(request, await at.read(looked_up, by.timeout))


@reading.post("/{name}/documents/get", summary="Documents by their ids", response_model=messages.StoredDocuments)
async def get(request: Request, at: At, by: By, data: messages.Wanted) -> Response:
    _at_most(len(data.ids), by.max_documents, "ids")
    fields = None if "*" in data.fields else data.fields

    def read(view: Index) -> dict[str, Any]:
        found = [{"id": one.id, **_document(one)} for one in view.get(data.ids, fields)]
        return {"documents": found, "generation": view.generation}

    return answer(request, await at.read(read, by.timeout))


@reading.post("/{name}/documents/has", summary="Which ids a document has", response_model=messages.There)
async def has(request: Request, at: At, by: By, data: messages.Ids) -> Response:
    _at_most(len(data.ids), by.max_documents, "ids")

    def looked_up(view: Index) -> dict[str, Any]:
        return {"there": view.has(data.ids).tolist(), "generation": view.generation}

    return answer(request, await at.read(looked_up, by.timeout))


@writing.post("/{name}/documents", summary="Add documents; ids must be new", response_model=messages.Written)
async def add(request: Request, at: At, by: By, data: messages.Documents) -> Response:
    return await _add(request, at, by, data, "raise")


@writing.put("/{name}/documents", summary="Add documents, or replace those there", response_model=messages.Written)
async def upsert(request: Request, at: At, by: By, data: messages.Documents) -> Response:
    return await _add(request, at, by, data, "replace")


@writing.patch(
    "/{name}/documents", summary="Change texts, metadata and sparse vectors alone", response_model=messages.Written
)
async def update(request: Request, at: At, by: By, data: messages.BesidesOfDocuments) -> Response:
    _at_most(len(data.documents), by.max_documents, "documents")
    given = {frozenset(one.model_fields_set - {"id"}) for one in data.documents}
    if len(given) != 1 or given == {frozenset()}:
        raise HTTPException(
            422, "documents must all have the same of text, metadata and sparse, and one of them at least"
        )
    names = next(iter(given))

    def change(index: Index) -> int:
        texts = [one.text for one in data.documents] if "text" in names else None
        metadata = [one.metadata for one in data.documents] if "metadata" in names else None
        sparse = [one.sparse for one in data.documents] if "sparse" in names else None
        index.update([one.id for one in data.documents], texts=texts, metadata=metadata, sparse=sparse)
        return len(data.documents)

    return await _written(request, at, by, change)


@writing.delete("/{name}/documents", summary="Delete documents", response_model=messages.Written)
async def delete(request: Request, at: At, by: By, data: messages.Which) -> Response:
    _at_most(len(data.ids or ()), by.max_documents, "ids")
    if (data.ids is None) == (data.filter is None):
        raise HTTPException(422, "either ids must be given, or a filter")
    return await _written(request, at, by, lambda index: index.delete(data.ids, filter=data.filter, params=data.params))


@writing.post("/{name}/compact", summary="Join segments, which makes searches faster", response_model=messages.Written)
async def compact(request: Request, at: At, by: By, data: messages.Compact) -> Response:
    def change(index: Index) -> int:
        index.compact(full=data.full)
        return 0

    return await _written(request, at, by, change)


async def _add(request: Request, at: Served, by: Settings, data: messages.Documents, on_duplicate: str) -> Response:
    documents = data.documents
    _at_most(len(documents), by.max_documents, "documents")
    ids = _all([one.id for one in documents], "an id")
    embeddings = _all([one.embedding for one in documents], "an embedding")

    def change(index: Index) -> int:
        index.add(
            embeddings,
            ids=ids,
            texts=_any([one.text for one in documents]),
            metadata=_any([one.metadata for one in documents]),
            sparse=_any([one.sparse for one in documents]),
            on_duplicate=on_duplicate,
        )
        return len(documents)

    return await _written(request, at, by, change)


async def _written(request: Request, at: Served, by: Settings, change: Any) -> Response:
    changed, generation, documents = await at.write(change, by.write_timeout)
    return answer(request, {"generation": generation, "documents": documents, "changed": changed})


def _how(data: messages.HowToSearch, by: Settings) -> dict[str, Any]:
    _at_most(data.k, by.max_k, "k")
    _at_most(len(data.subset or ()), by.max_documents, "subset")
    return {name: getattr(data, name) for name in HOW}


def _query(queries: list[Any], data: messages.HowToSearch, by: Settings) -> Query:
    for query in queries:
        by.pictures.check(query)
    if len({isinstance(query, np.ndarray) for query in queries}) > 1:
        raise HTTPException(422, "queries must all be texts, or none of them")
    fields = None if "*" in data.fields else tuple(data.fields)
    if not isinstance(data, messages.Search):
        return Query(queries, None, None, _how(data, by), fields, data.explain)
    how = _how(data, by) | {"alpha": data.alpha, "fusion": data.fusion, "rerank": data.rerank}
    return Query(queries, _listed(data.text), _listed(data.sparse), how, fields, data.explain)


def _listed(value: Any) -> list[Any] | None:
    return None if value is None else [value]


def _all(values: list[Any], name: str) -> list[Any] | None:
    there = sum(value is not None for value in values)
    if 0 < there < len(values):
        raise HTTPException(422, f"documents must all have {name}, or none of them")
    return values if there else None


def _any(values: list[Any]) -> list[Any] | None:
    return None if all(value is None for value in values) else values


def _timeout(data: messages.HowToSearch, by: Settings) -> float:
    return by.timeout if data.timeout_ms is None else min(by.timeout, data.timeout_ms / 1000)


def _at_most(value: int, most: int, name: str) -> None:
    if value > most:
        raise HTTPException(422, f"{name} must be at most {most:,}, got {value:,}")


def _hits(found: Found, number: int, request: Request) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = [{"id": id, "score": score} for id, score in found.hits[number]]
    if found.documents is not None:
        for hit, document in zip(hits, found.documents[number], strict=True):
            hit |= _document(document)
    if found.similarities is not None:
        binary = wants_binary(request)
        for hit, similarity in zip(hits, found.similarities[number], strict=True):
            hit["similarity"] = written(similarity, binary=binary)
    if found.spans is not None:
        for hit, spans in zip(hits, found.spans[number], strict=True):
            if spans is not None:
                hit["spans"] = spans
    return hits


def _places(places: Places | None) -> dict[str, Any]:
    """What an answer says of the tokens of its query."""
    if places is None:
        return {}
    told: dict[str, Any] = {"query_tokens": list(places.words)}
    if places.grid is not None:
        told["query_picture"] = {"grid": list(places.grid), "first": places.first, "box": list(places.box)}
    return told


def _document(document: Document) -> dict[str, Any]:
    return {"text": document.text, "metadata": as_json(document.metadata)}


def _described(name: str, view: Index) -> dict[str, Any]:
    return {
        "name": name,
        "generation": view.generation,
        "documents": len(view),
        "tokens": view.tokens,
        "dim": view.dim,
        "nbits": view.nbits,
        "text_search": view.analyzer is not None,
        "encoder": view.encoder is not None,
        "query_pictures": bool(getattr(view.encoder, "query_pictures", False)),
    }


def _stats(name: str, view: Index) -> dict[str, Any]:
    sizes, drift = view.stats(), view.drift()
    return {
        **_described(name, view),
        **{
            part: sizes[part] for part in ("codec", "ids", "centroids", "cells", "segments", "bytes", "bytes_per_token")
        },
        "residual_ratio": drift.residual_ratio,
        "growth": drift.growth,
        "advice": drift.advice,
    }


def _known_id(view: Index, text: str) -> Any:
    """The id that a path names, where numbers look like strings."""
    number = text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20
    return int(text) if number and view.ids.dtype != object else text
