"""The doors through which single documents of an index are read: what they carry, their tokens, and why they match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.documents import Document, Documents
from lateint.ids import UnknownIdError
from lateint.index.base import Base
from lateint.retrieval import searching
from lateint.retrieval.hits import Explanation


class Reading(Base):
    """What is known of a document."""

    def get(
        self,
        ids: Iterable[Any] | None = None,
        fields: Iterable[str] | None = None,
        *,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Texts and metadata of documents, in the order of ``ids``, or of the index for a ``filter``.

        Args:
            ids: of documents of this index.
            fields: names of fields to read, with dots where they are nested, and ``"text"`` for the text; None: all.
            filter, params: instead of ids, a condition on metadata, see `search`.

        Raises:
            UnknownIdError: a KeyError that names the id.
            FieldError: a ValueError that names a field that no document has.
        """
        if (ids is None) == (filter is None):
            raise ValueError("get needs ids or filter, and not both")
        snapshot = self._snapshot
        if ids is not None:
            return snapshot.documents.at(snapshot.ids.positions(ids, "ids"), fields)
        chosen = snapshot.filtered(filter, params).chosen
        assert chosen is not None
        return snapshot.documents.at(np.flatnonzero(chosen), fields)

    @property
    def documents(self) -> Documents:
        """All documents that are there now, as a sequence, as columns (``index.documents["year"]``), or as a table of
        Arrow (``index.documents.arrow()``)."""
        return self._snapshot.documents

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best, and their inner product."""
        snapshot, query = self._snapshot, self._one(Q, "explain")
        rows = snapshot.decoded(id)
        if len(rows) == 0:
            raise ValueError(f"document {id!r} has no tokens to explain")
        return searching.explain(snapshot.engine, query, rows, snapshot.codec.rotation.mean)

    def similarity(self, Q: Any, id: Any) -> NDArray[np.float32]:
        """Inner products ``[Lq, Ld]`` of all tokens of a query with all of document ``id``, as its codes remember them.

        The largest of each row are the scores that `explain` gives; `lateint.heatmap` draws them.

        Raises:
            UnknownIdError: a KeyError that names the id.
        """
        snapshot, query = self._snapshot, self._one(Q, "similarity")
        return searching.similarity(snapshot.engine, query, snapshot.decoded(id), snapshot.codec.rotation.mean)

    def reconstruct(self, id: Any) -> NDArray[np.float32]:
        """The tokens of document ``id`` as its codes remember them: ``[Ld, dim]`` on the original scale."""
        return self._snapshot.codec.rotation.invert(self._snapshot.decoded(id))

    def has(self, ids: Iterable[Any]) -> NDArray[np.bool_]:
        """``[n]``: which of these ids a document has."""
        ours = self._snapshot.ids
        _, keys, fit = ours.keys(ids, "ids")
        return fit & (ours.find(keys) >= 0)

    def __contains__(self, id: object) -> bool:
        """Whether there is a document of this id."""
        try:
            self._snapshot.ids.positions([id], "id")
        except UnknownIdError:
            return False
        return True
