"""What a block of rows says about its documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.fields.values import as_json


@dataclass(frozen=True)
class Columns:
    """Where ids, texts, embeddings and metadata are in a row; a column that is not there is left out."""

    id: str = "id"
    text: str = "text"
    embedding: str = "embedding"
    metadata: tuple[str, ...] = ()
    sparse: str | None = None

    def check(self, names: Sequence[str], encoded: bool) -> None:
        """Refuses rows that lack what an index needs.

        Raises:
            ValueError: names the column.
        """
        wanted = [self.id, self.text if encoded else self.embedding, *self.metadata]
        wanted += [] if self.sparse is None else [self.sparse]
        for name in wanted:
            if name not in names:
                why = ", which encoder encodes" if encoded and name == self.text else ""
                raise ValueError(f"source must have a column {name!r}{why}, got {', '.join(names)}")


@dataclass(frozen=True)
class Rows:
    """The documents of a block, in its order: as `lateint.Index.build` takes them."""

    ids: list[Any]
    texts: list[Any] | None
    embeddings: list[NDArray[Any]] | None
    metadata: list[dict[str, Any]] | None
    sparse: list[dict[str, float] | None] | None = None

    @classmethod
    def of(cls, block: Mapping[str, NDArray[Any]], columns: Columns) -> Rows:
        """Those of a block in the form "numpy" of Ray Data."""
        texts = block[columns.text].tolist() if columns.text in block else None
        embeddings = None
        if columns.embedding in block:
            embeddings = [_matrix(one) for one in block[columns.embedding]]
        metadata = None
        if columns.metadata:
            values = [_plain(block[name]) for name in columns.metadata]
            metadata = [dict(zip(columns.metadata, row, strict=True)) for row in zip(*values, strict=True)]
        sparse = None if columns.sparse is None else [_vector(one) for one in block[columns.sparse].tolist()]
        return cls(block[columns.id].tolist(), texts, embeddings, metadata, sparse)

    def fingerprint(self, *settings: Any) -> str:
        """A name for what an index of these documents with these settings is."""
        digest = hashlib.sha256()
        besides = [] if self.sparse is None else [self.sparse]
        for part in (*settings, self.ids, self.texts, self.metadata, *besides):
            digest.update(json.dumps(as_json(part), sort_keys=True, default=str).encode() + b"\0")
        for tokens in self.embeddings or ():
            digest.update(f"{tokens.dtype.str} {tokens.shape}\0".encode() + np.ascontiguousarray(tokens).tobytes())
        return digest.hexdigest()[:16]


def _matrix(tokens: Any) -> NDArray[Any]:
    if isinstance(tokens, list) or tokens.dtype == object:  # a list of lists
        return np.stack([np.asarray(row, np.float32) for row in tokens])
    matrix: NDArray[Any] = tokens
    return matrix


def _vector(given: Any) -> dict[str, float] | None:
    """A sparse vector of a row: an object, its JSON, or pairs; a column of objects has None for terms of other rows."""
    if isinstance(given, str):
        given = json.loads(given)
    if given is None or given != given:  # pandas has NaN for nothing
        return None
    return {str(term): weight for term, weight in dict(given).items() if weight is not None}


def _plain(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "M":
        return list(values.astype("datetime64[us]").tolist())
    return list(values.tolist())
