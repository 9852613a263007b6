"""The shards of an index as one that is searched: the doors, where what users pass is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import positive
from lateint.changing.merging import check_ids
from lateint.documents import Document
from lateint.encoders.batches import encoded_queries, is_one, is_text
from lateint.encoders.protocol import adapted
from lateint.ids import listed
from lateint.index import Index, sources
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.hits import Explanation, Hits
from lateint.retrieval.queries import Queries, read
from lateint.retrieval.selection import by_query
from lateint.retrieval.texts import read_vectors
from lateint.sharding import fusing
from lateint.sharding.calling import Call, having, seconds
from lateint.sharding.connecting import connect, grouped
from lateint.sharding.places import Facts
from lateint_kernels import Ragged


class Shards:
    """Indexes with one codec and different documents, searched as one; each where it is, all at once.

    Scores are those of one index, for they depend on codec and tokens only: an exhaustive search finds what it would
    find in `Index.merge` of the shards in this order, bit for bit; other searches find at least about as much, for each
    shard is looked into as an index is.

    Args:
        shards: paths of indexes, urls of indexes of a server (``"http://host:8080/v1/indexes/passages"``, which need
            httpx), or objects with the methods of `Index`: an `Index`, a `lateint.client.RemoteIndex`, a
            `lateint_ray.ActorIndex`.
        replicas: other places with the same documents: for each shard one, a list of them, or None. A request goes to
            the place that answers soonest, to another if it fails, and to a second one if it takes longer than 95 % of
            the last 1,000 did; the first answer counts. At most 5 % more requests are sent for that.
        partial: whether an answer may lack shards; it says so then (`Hits.coverage`, `Hits.lost`).
        timeout: seconds that an answer may take.
        encoder: of queries that are texts, see `lateint.encoders`.

    Documents must differ between shards. This is checked at once where all shards are in this process, and otherwise of
    the documents that a search finds and of those that are named.

    Any number of threads may search at once.

    Raises:
        TypeError, ValueError: ``shards`` are not of one codec, or hold a document twice, or replicas differ.
        LostError: a shard does not answer, unless ``partial``.
    """

    def __init__(
        self,
        shards: Iterable[Any],
        *,
        replicas: Iterable[Any] | None = None,
        partial: bool = False,
        timeout: float = 10.0,
        encoder: Any = None,
    ) -> None:
        self.partial, self.timeout = partial, seconds(timeout)
        self._encoder = None if encoder is None else adapted(encoder)
        self._shards = grouped(shards, replicas, self.timeout)
        try:
            self._facts = connect(self._shards, self.partial)
            self._check_documents()
        except BaseException:
            self.close()
            raise

    def search(
        self,
        Q: Any,
        k: int = 5,
        *,
        sparse: Any = None,
        alpha: float | None = None,
        fusion: str | None = None,
        rerank: int | None = None,
        subset: Iterable[Any] | None = None,
        mask: Any = None,
        partial: bool | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> Any:
        """The k documents with the highest MaxSim for each query, or by sparse vectors, or both, of all shards.

        Args:
            Q, k, mask: see `Index.search`. Texts need an ``encoder``.
            sparse, alpha, fusion, rerank: see `Index.search`; each shard must have sparse vectors. Queries of a batch
                are asked for one after the other, and beside ``Q`` each is asked for twice: for candidates, then for
                the scores that they lack.
            subset: ids to choose from; for a batch also a list of them for each query, which are asked for one after
                the other. None: all.
            partial, timeout: None: as `Shards` was given.
            settings: the others of `Index.search`, for each shard; those that a place does not know are refused. A
                ``filter`` may name fields only that each shard has. There is no ``text``: what a word weighs depends on
                all documents, which no shard knows.

        Returns:
            `Hits` for one query, a list of them for a batch. Ties are in the order of shards, then of documents.

        Raises:
            LostError: a shard did not answer, unless ``partial``; or none did.
            TypeError, ValueError, UnknownIdError: as `Index.search`; or a document is in two shards.
        """
        if "text" in settings:
            raise TypeError("text cannot be searched over shards: what a word weighs depends on all documents")
        fused = Fusion.of(alpha, fusion, rerank, both=Q is not None and sparse is not None)
        if sparse is not None:
            how = {"subset": subset, "partial": partial, "timeout": timeout, **settings}
            return self._with_sparse(None if Q is None else self._queries(Q, mask), sparse, k, fused, how)
        queries, k = self._queries(Q, mask), positive(k, "k")
        if not len(queries):
            return []
        each = None if subset is None else by_query(subset, None if queries.single else len(queries))
        if each is not None:
            hits: list[Any] = [None] * len(queries)
            for part, numbers in each:
                some = [queries[number] for number in numbers]
                found = self.search(some, k, subset=part, partial=partial, timeout=timeout, **settings)
                for number, one in zip(numbers, found, strict=True):
                    hits[number] = one
            return hits
        tokens = queries.tokens if queries.single else Ragged(queries.tokens, queries.offsets)
        call = self._call(partial, timeout)
        answers = call.ask({n: _searching(tokens, k, how) for n, how in self._each(call, subset, settings).items()})
        merged = [call.merged(answers if queries.single else _of(answers, i), k) for i in range(len(queries))]
        return merged[0] if queries.single else merged

    def rerank(
        self,
        Q: Any,
        ids: Iterable[Any],
        k: int | None = None,
        *,
        mask: Any = None,
        partial: bool | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> Any:
        """Scores the documents ``ids`` on their codes, best first; see `Index.rerank`, and `search` for the rest."""
        queries, keep = self._queries(Q, mask), None if k is None else positive(k, "k")
        lists = [listed(ids, "ids")] if queries.single else [listed(one, "ids") for one in ids]
        if len(lists) != len(queries):
            raise ValueError(f"ids must be one list for each query, got {len(lists)} for {len(queries)} queries")
        hits = []
        for number, names in enumerate(lists):
            call = self._call(partial, timeout)
            asked = {
                shard: _reranking(queries[number], [names[row] for row in rows], keep, settings)
                for shard, rows in call.owners(names, "ids").items()
            }
            hits.append(call.merged(call.ask(asked), max(1, len(names)) if keep is None else keep))
        return hits[0] if queries.single else hits

    def get(self, ids: Iterable[Any], fields: Iterable[str] | None = None) -> list[Document]:
        """Texts and metadata of documents, in the order of ``ids``; see `Index.get`.

        Raises:
            UnknownIdError: a KeyError that names the id.
            LostError: a shard that may have one of them did not answer.
        """
        names, call = listed(ids, "ids"), self._call(False, None)
        wanted = None if fields is None else list(fields)
        owners = call.owners(names, "ids")
        found = call.ask({n: _getting([names[row] for row in rows], wanted) for n, rows in owners.items()})
        documents = {
            row: document for number, some in found.items() for row, document in zip(owners[number], some, strict=True)
        }
        return [documents[row] for row in range(len(names))]

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best; see `Index.explain`."""
        explanation: Explanation = self._of_owner(id, _explaining(self._one(Q, "explain"), id))
        return explanation

    def similarity(self, Q: Any, id: Any) -> NDArray[np.float32]:
        """Inner products ``[Lq, Ld]`` of all tokens of a query with all of document ``id``."""
        similarity: NDArray[np.float32] = self._of_owner(id, _comparing(self._one(Q, "similarity"), id))
        return similarity

    def has(self, ids: Iterable[Any]) -> NDArray[np.bool_]:
        """``[n]``: which of these ids a document has."""
        names, call = listed(ids, "ids"), self._call(False, None)
        there = np.zeros(len(names), bool)
        for found in call.ask({n: having(names) for n in range(len(self._shards))}).values():
            there |= found
        return there

    def count(self, filter: Any, params: Mapping[str, Any] | None = None) -> int:
        """For how many documents a condition holds; see `Index.count`."""
        call = self._call(False, None)
        return sum(call.ask({n: lambda index: index.count(filter, params) for n in range(len(self._shards))}).values())

    def refresh(self) -> None:
        """Takes up what others have committed, where shards are in this process, and how many documents there are now.

        Servers look for themselves.

        Raises:
            LostError: a shard did not answer, unless ``partial``.
        """
        connect(self._shards, self.partial, _refreshed)

    def __len__(self) -> int:
        call = self._call(False, None)
        return sum(call.ask({n: len for n in range(len(self._shards))}).values())

    def __contains__(self, id: object) -> bool:
        return bool(self.has([id])[0])

    @property
    def names(self) -> list[str]:
        """Of the shards: each is that of its first place."""
        return [shard.name for shard in self._shards]

    @property
    def dim(self) -> int:
        """Components of a token."""
        return self._facts.dim

    def stats(self) -> dict[str, Any]:
        """What was found out about shards: plain numbers, fit for JSON.

        For each shard ``requests``, how many were sent on top of them (``extra``) and ``late``, the seconds after which
        a second place is asked.
        """
        return {
            "shards": [
                {
                    "name": shard.name,
                    "documents": shard.documents,
                    "places": {
                        place.name: {"seconds": place.seconds, "failed": place.failed} for place in shard.places
                    },
                    "requests": shard.requests,
                    "extra": shard.extra,
                    "late": shard.late,
                }
                for shard in self._shards
            ],
            "documents": sum(shard.documents or 0 for shard in self._shards),
            "dim": self._facts.dim,
            "ids": self._facts.ids,
            "codec": self._facts.codec,
        }

    def close(self) -> None:
        """Ends its threads and connections."""
        for shard in self._shards:
            for place in shard.places:
                place.close()

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Shards({len(self._shards)} of about {sum(shard.documents or 0 for shard in self._shards):,} documents)"

    def _call(self, partial: bool | None, timeout: float | None) -> Call:
        chosen = self.partial if partial is None else partial
        return Call(self._shards, self._facts, chosen, self.timeout if timeout is None else seconds(timeout))

    def _each(self, call: Call, subset: Any, settings: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
        """Settings of a search for each shard that is asked."""
        if subset is None:
            return dict.fromkeys(range(len(self._shards)), settings)
        if getattr(subset, "dtype", None) == np.dtype(bool):
            raise TypeError("subset must be ids, not a mask, for shards have no order of documents")
        ids = listed(subset, "subset")
        owners = call.owners(ids, "subset")
        return {number: {**settings, "subset": [ids[row] for row in rows]} for number, rows in owners.items()}

    def _with_sparse(
        self,
        queries: Queries | None,
        sparse: Any,
        k: int,
        fused: Fusion,
        how: dict[str, Any],
    ) -> Any:
        """`search` with sparse vectors, one query after the other."""
        (terms, single), k = read_vectors(sparse, queries), positive(k, "k")
        subset, partial, timeout = (how.pop(name) for name in ("subset", "partial", "timeout"))
        each = None if subset is None else by_query(subset, None if single else len(terms))
        subsets = [subset] * len(terms)
        for part, numbers in each or ():
            for number in numbers:
                subsets[number] = part
        found = []
        for number, weights in enumerate(terms):
            call = self._call(partial, timeout)
            asked = self._each(call, subsets[number], how)
            vector = {term.decode(): weight for term, weight in weights.items()}
            if queries is None:
                found.append(fusing.search(call, asked, vector, k))
            else:
                found.append(fusing.search_both(call, asked, queries[number], vector, k, fused, self.get))
        return found[0] if single else found

    def _queries(self, Q: Any, mask: Any) -> Queries:
        if not is_text(Q):
            return read(Q, self.dim, mask)
        if self._encoder is None:
            raise ValueError("Q is text, and Shards has no encoder: give encoder=, see lateint.encoders")
        if mask is not None:
            raise ValueError("mask goes with tokens, and Q is text")
        found = encoded_queries(self._encoder, [Q] if is_one(Q) else Q)
        return read(found[0] if is_one(Q) else found, self.dim)

    def _one(self, Q: Any, what: str) -> NDArray[np.float32]:
        queries = self._queries(Q, None)
        if not queries.single:
            raise ValueError(f"{what} takes one query [Lq, dim], got a batch")
        return queries.tokens

    def _of_owner(self, id: Any, question: Callable[[Any], Any]) -> Any:
        call = self._call(False, None)
        (number,) = call.owners([id], "id")
        return call.ask({number: question})[number]

    def _check_documents(self) -> None:
        indexes = [shard.places[0].index for shard in self._shards]
        if all(isinstance(index, Index) for index in indexes):
            check_ids(sources(indexes), "shards")


def _of(found: Mapping[int, Sequence[Hits]], number: int) -> dict[int, Hits]:
    return {shard: hits[number] for shard, hits in found.items()}


def _searching(tokens: Any, k: int, settings: Mapping[str, Any]) -> Callable[[Any], Any]:
    return lambda index: index.search(tokens, k, **settings)


def _reranking(tokens: Any, ids: list[Any], k: int | None, settings: Mapping[str, Any]) -> Callable[[Any], Any]:
    return lambda index: index.rerank(tokens, ids, k, **settings)


def _getting(ids: list[Any], fields: list[str] | None) -> Callable[[Any], Any]:
    return lambda index: index.get(ids, fields)


def _explaining(tokens: Any, id: Any) -> Callable[[Any], Any]:
    return lambda index: index.explain(tokens, id)


def _comparing(tokens: Any, id: Any) -> Callable[[Any], Any]:
    return lambda index: index.similarity(tokens, id)


def _refreshed(index: Any) -> Facts:
    if callable(refresh := getattr(index, "refresh", None)):
        refresh()
    facts: Facts = Facts.of(index)
    return facts
