"""Indexes of fast-plaid (1.2 to 1.7), those that PyLate makes included.

Files: ``metadata.json``, ``centroids.npy``, ``bucket_weights.npy``, ``doclens.N.json`` for each chunk, and its rows
either in ``N.codes.npy`` and ``N.residuals.npy`` or in ``merged_codes.npy`` and ``merged_residuals.npy``, which end
with a few rows of padding. Documents are numbered anew whenever some are deleted. ``metadata.db`` is SQLite.
``embeddings.npy``, which is pickled, is not read."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from lateint.converting.compressed import CompressedDocuments, Part, ResidualCodec, lengths_of
from lateint.converting.folder import LARGE_JSON, Folder, natural
from lateint.converting.foreign import Foreign

FLOATS = ("<f2", "<f4")
MOST_CHUNKS = 1 << 20
ROW = 1 << 24  # bytes of a value in a table


def found(folder: Folder) -> bool:
    """Whether the folder is such an index."""
    return folder.has("metadata.json") and folder.has("centroids.npy") and folder.has("doclens.0.json")


def read(folder: Folder, *, texts: bool, metadata: bool) -> Foreign:
    """Its documents, with their metadata where these are wanted; texts are not stored there.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
    """
    described, path = folder.json("metadata.json"), folder.path / "metadata.json"
    if not isinstance(described, dict):
        raise ValueError(f"{path} must be an object, as fast-plaid writes it")
    codec = ResidualCodec.of(
        folder.array("centroids.npy", 2, *FLOATS),
        folder.array("bucket_weights.npy", 1, *FLOATS),
        described.get("nbits"),
        folder.path,
        unit=True,
    )
    chunks = natural(described.get("num_chunks"), "num_chunks", path, MOST_CHUNKS)
    parts, lengths = _parts(folder, chunks)
    documents = CompressedDocuments(codec, parts, np.cumsum(lengths) - lengths, lengths)
    numbers = np.arange(len(lengths))
    fields = _fields(folder, len(lengths)) if metadata and folder.has("metadata.db") else None
    return Foreign(documents, numbers, metadata=fields)


def _parts(folder: Folder, chunks: int) -> tuple[list[Part], NDArray[np.int64]]:
    """The rows of all chunks, padding left out, and the lengths of their documents."""
    merged = _merged(folder)
    parts, lengths, first = [], [np.empty(0, np.int64)], 0
    for chunk in range(chunks):
        name = f"doclens.{chunk}.json"
        path, values = folder.path / name, folder.json(name, LARGE_JSON)
        if folder.has(f"{chunk}.codes.npy"):
            part = _part(folder, str(chunk), ".")
            counts = lengths_of(values, path, len(part.codes))
            if counts.sum() != len(part.codes):
                raise ValueError(f"{path} must add up to {len(part.codes):,} tokens, got {counts.sum():,}")
        elif merged is None:
            raise FileNotFoundError(f"{folder.path / f'{chunk}.codes.npy'} is missing")
        else:
            counts = lengths_of(values, path, len(merged.codes) - first)
            last = first + int(counts.sum())
            part = Part(merged.codes[first:last], merged.residuals[first:last], merged.path)
        first += _rows_before_merging(folder, chunk, int(counts.sum()))
        parts.append(part)
        lengths.append(counts)
    return parts, np.concatenate(lengths)


def _merged(folder: Folder) -> Part | None:
    return _part(folder, "merged", "_") if folder.has("merged_codes.npy") else None


def _part(folder: Folder, prefix: str, joint: str) -> Part:
    codes = folder.array(f"{prefix}{joint}codes.npy", 1, "<i8", "<i4")
    residuals = folder.array(f"{prefix}{joint}residuals.npy", 2, "|u1")
    if len(codes) != len(residuals):
        raise ValueError(
            f"{folder.path / f'{prefix}{joint}residuals.npy'} must have {len(codes):,} rows, got {len(residuals):,}"
        )
    return Part(codes, residuals, folder.path / f"{prefix}{joint}codes.npy")


def _rows_before_merging(folder: Folder, chunk: int, rows: int) -> int:
    """How many rows of the merged file are those of a chunk: as many as it has, or had before a change not merged."""
    if not folder.has(f"{chunk}.codes.npy") or not folder.has("merged_codes.manifest.json"):
        return rows
    manifest = folder.json("merged_codes.manifest.json")
    entry = manifest.get(f"{chunk}.codes.npy") if isinstance(manifest, dict) else None
    before = entry.get("rows", rows) if isinstance(entry, dict) else 0
    return natural(before, f"rows of chunk {chunk}", folder.path / "merged_codes.manifest.json", 1 << 40)


def _fields(folder: Folder, documents: int) -> list[dict[str, Any]]:
    """Metadata of each document; a field that is NULL is left out."""
    path = folder.file("metadata.db")
    if folder.has("metadata.db-wal") and folder.file("metadata.db-wal").stat().st_size:
        raise ValueError(f"{path} is being written, or was not closed: open it once with sqlite3 first")
    fields: list[dict[str, Any]] = [{} for _ in range(documents)]
    try:
        for number, row in _rows(f"file:{quote(str(path))}?mode=ro&immutable=1"):
            if isinstance(number, int) and 0 <= number < documents:
                fields[number] = row
    except (sqlite3.Error, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable table of metadata: {error}") from None
    return fields


def _rows(uri: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Rows of a plain table: a view or a computed column might compute anything."""
    with closing(sqlite3.connect(uri, uri=True)) as database:
        if sys.version_info >= (3, 11):
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")
        made = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'METADATA'").fetchone()
        columns = database.execute("SELECT name, hidden FROM pragma_table_xinfo('METADATA')").fetchall()
        if made is None or made[0] != "table" or "_subset_" not in [name for name, _ in columns]:
            raise sqlite3.DatabaseError("there is no table METADATA with a column _subset_")
        if "VIRTUAL" in made[1].upper().split()[:2] or any(hidden for _, hidden in columns):
            raise sqlite3.DatabaseError("the table METADATA must be a plain one")
        names = [name for name, _ in columns if name != "_subset_"]
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in ["_subset_", *names])
        for number, *values in database.execute(f"SELECT {quoted} FROM METADATA"):
            yield number, {name: value for name, value in zip(names, values, strict=True) if value is not None}
