"""Indexes of ColBERT (PLAID, 0.2) and of RAGatouille, which keeps ids, texts and metadata beside one.

Files: ``metadata.json`` with ``config``, ``centroids.pt``, ``buckets.pt`` (cutoffs and weights), and for each chunk
``N.codes.pt``, ``N.residuals.pt`` and ``doclens.N.json``. A document that was removed has no tokens left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lateint.converting.compressed import CompressedDocuments, Part, ResidualCodec, lengths_of
from lateint.converting.folder import LARGE_JSON, Folder, natural
from lateint.converting.foreign import Foreign

FLOATS = ("<f2", "<f4")
MOST_CHUNKS = 1 << 20
COLLECTION = 1 << 30  # bytes of texts or metadata that are read at once


def found(folder: Folder) -> bool:
    """Whether the folder is such an index."""
    return folder.has("metadata.json") and folder.has("centroids.pt")


def read(folder: Folder, *, texts: bool, metadata: bool) -> Foreign:
    """Its documents, with the texts and the metadata beside them where these are wanted.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
        ImportError: torch is not installed.
    """
    described, path = folder.json("metadata.json"), folder.path / "metadata.json"
    config = described.get("config") if isinstance(described, dict) else None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must have a config, as ColBERT writes it")
    buckets = folder.tensors("buckets.pt")
    if not isinstance(buckets, (tuple, list)) or len(buckets) != 2:
        raise ValueError(f"{folder.path / 'buckets.pt'} must hold cutoffs and weights")
    codec = ResidualCodec.of(
        folder.tensor("centroids.pt", 2, *FLOATS),
        folder.tensor("buckets.pt", 1, *FLOATS, of=buckets[1]),
        config.get("nbits"),
        folder.path,
        unit=True,
    )
    parts, lengths = [], []
    for chunk in range(natural(described.get("num_chunks"), "num_chunks", path, MOST_CHUNKS)):
        codes = folder.tensor(f"{chunk}.codes.pt", 1, "<i4", "<i8")
        parts.append(Part(codes, folder.tensor(f"{chunk}.residuals.pt", 2, "|u1"), folder.path / f"{chunk}.codes.pt"))
        name = f"doclens.{chunk}.json"
        lengths.append(lengths_of(folder.json(name, LARGE_JSON), folder.path / name, len(codes)))
        if lengths[-1].sum() != len(codes):
            raise ValueError(f"{folder.path / name} must add up to {len(codes):,} tokens, got {lengths[-1].sum():,}")
    counts = np.concatenate([np.empty(0, np.int64), *lengths])
    kept = np.flatnonzero(counts)
    documents = CompressedDocuments(codec, parts, (np.cumsum(counts) - counts)[kept], counts[kept])
    return _named(folder, documents, kept, len(counts), texts, metadata)


def _named(
    folder: Folder, documents: CompressedDocuments, kept: Any, total: int, texts: bool, metadata: bool
) -> Foreign:
    """The documents with what RAGatouille stored: a document id may be that of several passages."""
    names = _names(folder, kept) if folder.has("pid_docid_map.json") else None
    contents = _contents(folder, kept, total) if texts and folder.has("collection.json") else None
    fields: list[dict[str, Any]] | None = None
    if names is not None and metadata:
        path = folder.path / "docid_metadata_map.json"
        known = folder.json(path.name, COLLECTION) or {} if folder.has(path.name) else {}
        if not isinstance(known, dict):
            raise ValueError(f"{path} must be an object with an entry for each document")
        of = [known.get(name) or {} for name in names]
        if not all(isinstance(one, dict) for one in of):
            raise ValueError(f"{path} must have an object for each document")
        fields = [{"document_id": name, **one} for name, one in zip(names, of, strict=True)]
    unique = names is not None and len(set(names)) == len(names)
    return Foreign(documents, kept, names if unique else None, contents, fields)


def _names(folder: Folder, kept: Any) -> list[str]:
    path = folder.path / "pid_docid_map.json"
    names = folder.json(path.name, COLLECTION)
    if not isinstance(names, dict):
        raise ValueError(f"{path} must be an object with an entry for each passage")
    found = [names.get(str(number)) for number in kept.tolist()]
    for number, name in zip(kept.tolist(), found, strict=True):
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise ValueError(f"{path} must name each passage, but {number} has {str(name)[:50]}")
    return [str(name) for name in found]


def _contents(folder: Folder, kept: Any, total: int) -> list[str]:
    """RAGatouille leaves the texts of removed passages out, so that the others move up."""
    path = folder.path / "collection.json"
    texts = folder.json(path.name, COLLECTION)
    if not isinstance(texts, list) or len(texts) not in (total, len(kept)):
        raise ValueError(f"{path} must be a list with a text for each of {len(kept):,} passages")
    if len(texts) == total:
        texts = [texts[number] for number in kept.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path} must hold texts")
    return texts
