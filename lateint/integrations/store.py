"""What the stores of all frameworks have in common: texts with metadata, found through an encoder.

A framework begins with an empty store and hands over documents as they come. An index begins with documents, of which
it learns its codec; so the first ones make the index, and while it is small its codec is learned anew now and then.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lateint.documents import Document
from lateint.encoders.protocol import Encoder, adapted
from lateint.index import Index
from lateint.integrations.conditions import EVERYTHING, NOTHING, Condition, known

FEW = 1 << 11  # tokens; a codec that was learned from fewer is learned again whenever documents are added,
GROWTH = 4  # and another one when there are so many times the tokens,
MOST = 1 << 18  # unless it was learned from so many: from there on, see `Index.drift`
BATCH = 256  # documents that are encoded together then


class TextStore:
    """Texts with string ids and metadata in an index, which the first documents make.

    Args:
        encoder: an `lateint.encoders.Encoder`, or a model of PyLate or sentence-transformers.
        path: the folder of the index, opened if it is there; None: in memory.
        settings: for `Index.build`, such as ``nbits``, or for `Index.open`, such as ``device``.
    """

    def __init__(self, encoder: Any, path: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        self.encoder: Encoder = adapted(encoder)
        self.path = None if path is None else Path(path)
        self.settings = {"progress": False, **settings}
        self.index: Index | None = None
        self._lock = threading.RLock()
        if self.path is not None and (self.path / "index.json").exists():
            devices = {name: settings[name] for name in ("device", "device_memory") if name in settings}
            self.index = Index.open(self.path, encoder=self.encoder, **devices)

    def __len__(self) -> int:
        return 0 if self.index is None else len(self.index)

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        on_duplicate: str = "replace",
    ) -> None:
        """Adds documents; see `Index.add`. Of an id that comes twice, the last document counts."""
        last = {id: row for row, id in enumerate(ids)}
        rows = sorted(last.values())
        names, kept = [ids[row] for row in rows], [texts[row] for row in rows]
        fields = None if metadata is None else [metadata[row] for row in rows]
        if not names:
            return
        with self._lock:
            if self.index is None:
                self.index = Index.build(
                    texts=kept, ids=names, metadata=fields, encoder=self.encoder, path=self.path, **self.settings
                )
                return
            training = self.index.codec.training
            trained = MOST if training is None else training.tokens
            with warnings.catch_warnings():
                if trained < FEW:
                    warnings.filterwarnings("ignore", ".*tokens have components up to")
                self.index.add(texts=kept, ids=names, metadata=fields, on_duplicate=on_duplicate)
            growth = self.index.drift().growth or 1
            if trained < FEW or (trained < MOST and growth >= GROWTH):
                self.index.rebuild(self._embeddings())

    def _embeddings(self) -> Iterator[Any]:
        """Those of all documents, encoded again."""
        assert self.index is not None
        documents = self.index.documents
        for first in range(0, len(documents), BATCH):
            yield from self.encoder.encode_document([one.text or "" for one in documents[first : first + BATCH]])

    def delete(self, ids: Iterable[str]) -> int:
        """Deletes those that are there; returns how many."""
        with self._lock:
            found = self.there(dict.fromkeys(ids))
            return self.index.delete(found) if self.index is not None and found else 0

    def clear(self) -> None:
        """Deletes all documents."""
        if self.index is not None:
            self.delete(self.index.ids.tolist())

    def there(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that there is a document of."""
        index = self.index
        return [] if index is None else [id for id in ids if id in index]

    def get(self, ids: Iterable[str]) -> list[Document]:
        """Those that are there, in the order of ``ids``."""
        index = self.index
        return [] if index is None else index.get(self.there(ids))

    def search(
        self, query: str, k: int, condition: Condition = EVERYTHING, **settings: Any
    ) -> list[tuple[Document, float]]:
        """The best ``k`` documents for which a condition holds, with their scores."""
        index, condition = self.index, self._known(condition)
        if index is None or len(index) == 0 or condition is NOTHING or k < 1:
            return []
        if condition is not EVERYTHING:
            settings["filter"] = condition
        hits = index.search(query, k, **settings)
        return list(zip(hits.documents(), hits.scores.tolist(), strict=True))

    def matching(self, condition: Condition = EVERYTHING) -> list[Document]:
        """All documents for which a condition holds, in their order."""
        index, condition = self.index, self._known(condition)
        if index is None or condition is NOTHING:
            return []
        return list(index.documents) if condition is EVERYTHING else index.get(filter=condition)

    def _known(self, condition: Condition) -> Condition:
        return condition if self.index is None else known(condition, self.index.documents.fields)
