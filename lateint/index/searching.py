"""The doors through which an index is searched: what was asked is checked, then one call goes down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import alone, positive, thread_count
from lateint.encoders.batches import is_text, words_of
from lateint.index.base import Base
from lateint.retrieval import searching
from lateint.retrieval import texts as text_queries
from lateint.retrieval.answering import Asked, answer
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.hits import Hits
from lateint.retrieval.limits import limits
from lateint.retrieval.planning import SCAN, Plan
from lateint.retrieval.queries import ManyQueries, OneQuery
from lateint.retrieval.selection import Selection, by_query
from lateint.retrieval.texts import Found
from lateint.snapshot import Snapshot, Subset

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lateint.retrieval.settings import RerankSettings, SearchSettings


class Searching(Base):
    """What finds documents."""

    @overload
    def search(self, Q: OneQuery, k: int = 5, **settings: Unpack[SearchSettings]) -> Hits: ...
    @overload
    def search(self, Q: ManyQueries, k: int = 5, **settings: Unpack[SearchSettings]) -> list[Hits]: ...
    @overload
    def search(self, Q: Any, k: int = 5, **settings: Unpack[SearchSettings]) -> Any: ...
    def search(
        self,
        Q: Any,
        k: int = 5,
        *,
        text: Any = None,
        sparse: Any = None,
        alpha: float | None = None,
        fusion: str | None = None,
        rerank: int | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        cells: int | None = None,
        exhaustive: bool = False,
        recall: float | None = None,
        subset: Any = None,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
        mask: Any = None,
        threads: int | None = None,
    ) -> Any:
        """The k documents with the highest MaxSim for each query, or by words, or both together.

        Args:
            Q: one query ``[Lq, dim]``, or a batch: ``[Nq, Lq, dim]``, a list of ``[Lq, dim]``, or a `Ragged`; any float
                dtype. Or a text, or a list of texts, which `encoder` encodes; where it reads pictures, also pairs
                ``(text, picture)`` with a picture of Pillow. None: ``text`` or ``sparse`` alone counts.
            k: how many; fewer come back only where there are fewer, for a search that finds too few widens ``nprobe``.
            text: words to be found, a string for each query, in an index with ``text_search``: alone, documents are
                ordered by BM25. With ``Q``, each score brings its best as candidates, every candidate gets both, and
                what they become together decides (`Hits.parts` has the two). True: the texts in ``Q``. docs/text.md has
                more.
            sparse: instead of ``text``, a sparse vector of the query, or for a batch a list of them or a matrix, as in
                `build`: documents are ordered by the inner product of theirs with it (`Hits.parts` calls it so).
            alpha: how much MaxSim counts beside BM25, from 0 to 1; None: 0.7, and 0.5 with ``fusion="rrf"``.
            fusion: ``"relative"`` (None), by scores, or ``"rrf"``, by ranks; see `lateint.retrieval.fusion.Fusion`.
            rerank: order so many of the best documents by BM25 (or ``sparse``) by MaxSim instead.
            nprobe: centroids that each query token looks into; None: half the square root of their number, from 16 to
                96, and more for k over 10. With some 175,000 centroids or more, the lists that are read are those that
                gain most, and differ in number between tokens (docs/design.md, "Lists that gain most").
            candidates: documents scored on their codes; None: as many as it takes, best first, until what is left can
                hardly be among the best k (docs/design.md, "When to stop"); at most 512 + 4 k.
            cells: of centroids, that each query token looks into; 0: it looks at all centroids. None: 24 if there are
                more than 4,096 centroids, else 0.
            exhaustive: score every document instead; ``nprobe``, ``candidates`` and ``cells`` then do nothing.
            recall: above 0 and below 1: take the cheapest settings with which searches find such a share of the best k,
                on average, as `calibrate` measured it. docs/recall.md says what that promises. With a filter or a
                subset, more centroids are looked into, as always.
            subset: what to choose from: ids; a mask ``[n]`` of bools in the order of `ids`; or what `subset` made of
                either, which costs nothing when it is used again. None: all. For a batch, it may be a list with one of
                these for each query; queries with the same object are searched together.
            filter: a condition on metadata, as a mapping (``{"lang": "en", "year": {"$gte": 2020}}``) or in SQL
                (``"lang = 'en' AND year >= :y"``), which needs sqlglot (``pip install lateint[sql]``). Only documents
                are found for which it holds; docs/filters.md has all of it. With ``subset``, both must hold.
            params: values for the names that a filter in SQL has after a colon.
            mask: ``[Lq]`` or ``[Nq, Lq]``, nonzero where a token of a query counts; None: all do.
            threads: None: as many as the process may use. A batch is spread over queries, a single query over its
                tokens, where centroids are looked for, and over documents, where they are scored.

        Returns:
            `Hits` for one query, a list of them for a batch; `Hits.plan` says how a subset was searched, and with what
            settings. Ties are in the order in which documents were given.

        Raises:
            TypeError, ValueError: the query's dtype or shape is wrong, it is empty or not finite, or k < 1; there is
                neither ``Q`` nor ``text`` nor ``sparse``, or this index has nothing that one of them searches.
            ImportError: the index's analyzer needs PyStemmer, which is not installed.
            UnknownIdError: a KeyError that names the id in ``subset``.
            ValueError: ``subset`` is a list of more or fewer than there are queries.
            FilterError, FieldError: ValueErrors: ``filter`` is no condition, or on a field that no document has.
            ValueError: it cannot be known which settings reach ``recall``; the message says why.
            RuntimeError: the index is damaged, in a part that `open` did not verify.

        Warns:
            UserWarning: the index has changed so much since `calibrate` that ``recall`` may be missed.
        """
        snapshot = self._snapshot
        beside = [name for name, value in (("text", text), ("sparse", sparse)) if value is not None]
        if Q is None and not beside:
            raise ValueError("search needs Q, or text or sparse, or one of them with Q; got none")
        if len(beside) > 1:
            raise ValueError("text and sparse must not both be given, for a search has one of them beside Q")
        fused = Fusion.of(alpha, fusion, rerank, both=Q is not None and bool(beside))
        if text is True:
            if not is_text(Q):
                raise ValueError(
                    "text may be True where Q is a text, or a list of texts; beside tokens, pass the texts"
                )
            text = words_of(Q)
        queries = None if Q is None else self._queries(Q, mask)
        k, workers = positive(k, "k"), thread_count(threads)
        size = {"centroids": snapshot.manifest.centroids, "ncells": snapshot.manifest.cells}
        most = len(snapshot)
        scope = limits(k, nprobe, candidates, cells, **size, documents=most, tokens=snapshot.state.tokens)
        choice = None
        if recall is not None:
            if beside:
                raise ValueError(f"recall is of searches by tokens alone, and {beside[0]} is given")
            alone("recall", nprobe=nprobe, candidates=candidates, cells=cells, exhaustive=exhaustive or None)
            choice = snapshot.choose(recall, k)
        words = None
        if text is not None:
            words = snapshot.words(*text_queries.read(text, queries))
        elif sparse is not None:
            words = snapshot.vectors(*text_queries.read_vectors(sparse, queries))
        asked = Asked(queries, words, min(k, max(1, most)), scope, fused, choice, exhaustive)
        each = None if subset is None else by_query(subset, None if asked.single else len(asked))
        if each is None:
            selection = _selection(snapshot, subset, filter, params)
            found = answer(snapshot.engine, asked, selection, **size, threads=workers)
            hits = [_hits(snapshot, one) for one in found]
            return hits[0] if asked.single else hits
        ordered: list[Any] = [None] * len(asked)
        for part, numbers in each:  # one at a time, for each selection is as long as the index
            selection = _selection(snapshot, part, filter, params)
            found = answer(snapshot.engine, asked.some(numbers), selection, **size, threads=workers)
            for number, one in zip(numbers, found, strict=True):
                ordered[number] = _hits(snapshot, one)
        return ordered

    @overload
    def rerank(
        self, Q: OneQuery, ids: Iterable[Any], k: int | None = None, **settings: Unpack[RerankSettings]
    ) -> Hits: ...
    @overload
    def rerank(
        self, Q: ManyQueries, ids: Iterable[Iterable[Any]], k: int | None = None, **settings: Unpack[RerankSettings]
    ) -> list[Hits]: ...
    @overload
    def rerank(self, Q: Any, ids: Iterable[Any], k: int | None = None, **settings: Unpack[RerankSettings]) -> Any: ...
    def rerank(
        self,
        Q: Any,
        ids: Iterable[Any],
        k: int | None = None,
        *,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
        mask: Any = None,
        threads: int | None = None,
    ) -> Any:
        """Scores the documents ``ids`` on their codes, best first.

        Args:
            Q: one query or a batch, as in `search`.
            ids: documents of this index, and for a batch a list of them for each query; those without tokens are left
                out of the answer.
            k: keep the best k; None: all.
            filter, params: see `search`; documents for which the condition does not hold are left out.
            mask, threads: as in `search`.

        Returns:
            `Hits` for one query, a list of them for a batch.

        Raises:
            UnknownIdError: a KeyError that names the id.
            ValueError: for a batch, there are more or fewer lists of ids than queries.
        """
        snapshot, queries = self._snapshot, self._queries(Q, mask)
        keep, workers = None if k is None else positive(k, "k"), thread_count(threads)
        lists = [ids] if queries.single else list(ids)
        if len(lists) != len(queries):
            raise ValueError(f"ids must be one list for each query, got {len(lists)} for {len(queries)} queries")
        chosen = _selection(snapshot, None, filter, params).chosen
        hits = []
        for number, some in enumerate(lists):
            positions = np.unique(snapshot.ids.positions(some, "ids" if queries.single else f"ids of query {number}"))
            if chosen is not None:
                positions = positions[chosen[positions] != 0]
            most = max(1, len(positions)) if keep is None else keep
            best, scores = searching.score(snapshot.engine, queries[number], positions, most, threads=workers)
            hits.append(_hits(snapshot, Found(best, scores, {"maxsim": scores}, Plan(SCAN, len(positions)))))
        return hits[0] if queries.single else hits

    def subset(self, ids: Any) -> Subset:
        """Ids, or a mask ``[n]`` of bools in the order of `ids`, looked up once, for any number of searches.

        When the index changes, ids are looked up once more; a mask is then refused, for it was one of other documents.

        Raises:
            UnknownIdError: a KeyError that names the id.
            ValueError: the mask is of another length.
        """
        made = Subset(ids)
        made.of(self._snapshot)
        return made

    def count(self, filter: Any, params: Mapping[str, Any] | None = None) -> int:
        """For how many documents a condition holds; see `search` for the arguments and errors."""
        return self._snapshot.filtered(filter, params).documents

    def select(self, filter: Any, params: Mapping[str, Any] | None = None) -> NDArray[Any]:
        """The ids of the documents for which a condition holds, in their order; arguments and errors as of `search`."""
        snapshot = self._snapshot
        return snapshot.ids.at(snapshot.filtered(filter, params).positions)


def _hits(snapshot: Snapshot, found: Found) -> Hits:
    read = partial(snapshot.documents.at, found.positions)
    return Hits(snapshot.ids.at(found.positions), found.scores, found.plan, read, found.parts)


def _selection(snapshot: Snapshot, subset: Any, condition: Any, params: Any) -> Selection:
    """The documents that a search may find."""
    if params is not None and condition is None:
        raise ValueError("params goes with a filter, which is not given")
    if subset is None:
        chosen = snapshot.everything
    else:
        chosen = subset.of(snapshot) if isinstance(subset, Subset) else snapshot.subset(subset)
    return chosen if condition is None else chosen.among(snapshot.filtered(condition, params))
