"""Indexes of xtr-warp-rs (2.0 and 2.1).

Files: ``metadata.json``, ``centroids.npy``, ``bucket_weights.npy``, and for each chunk ``N.codes.npy``,
``N.residuals.npy``, ``N.passage_ids.npy`` and ``doclens.N.npy``. Tokens are not brought to length 1. An updated
passage is there twice, and the later copy counts; ``deleted_pids.npy`` says which passages are gone.
``metadata.duckdb`` is DuckDB's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.converting.compressed import CompressedDocuments, Part, ResidualCodec, lengths_of
from lateint.converting.folder import Folder, natural
from lateint.converting.foreign import Foreign

FLOATS = ("<f2", "<f4")
MOST_CHUNKS = 1 << 20


def found(folder: Folder) -> bool:
    """Whether the folder is such an index."""
    return folder.has("metadata.json") and folder.has("centroids.npy") and folder.has("doclens.0.npy")


def read(folder: Folder, *, texts: bool, metadata: bool) -> Foreign:
    """Its documents, with their metadata where these are wanted; texts are not stored there.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
        ImportError: there are metadata, and duckdb is not installed.
    """
    described, path = folder.json("metadata.json"), folder.path / "metadata.json"
    if not isinstance(described, dict):
        raise ValueError(f"{path} must be an object, as xtr-warp-rs writes it")
    codec = ResidualCodec.of(
        folder.array("centroids.npy", 2, *FLOATS),
        folder.array("bucket_weights.npy", 1, *FLOATS),
        described.get("nbits"),
        folder.path,
        unit=False,
    )
    parts, lengths, names = [], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for chunk in range(natural(described.get("num_chunks"), "num_chunks", path, MOST_CHUNKS)):
        part, counts, ids = _chunk(folder, chunk)
        parts.append(part)
        lengths.append(counts)
        names.append(ids)
    all_lengths, numbers = np.concatenate(lengths), np.concatenate(names)
    kept = _kept(folder, numbers)
    starts = np.cumsum(all_lengths) - all_lengths
    documents = CompressedDocuments(codec, parts, starts[kept], all_lengths[kept])
    fields = _fields(folder, numbers[kept]) if metadata and folder.has("metadata.duckdb") else None
    return Foreign(documents, numbers[kept], metadata=fields)


def _chunk(folder: Folder, chunk: int) -> tuple[Part, NDArray[np.int64], NDArray[np.int64]]:
    """Rows, lengths and ids of a chunk."""
    codes = folder.array(f"{chunk}.codes.npy", 1, "<i8", "<i4")
    part = Part(codes, folder.array(f"{chunk}.residuals.npy", 2, "|u1"), folder.path / f"{chunk}.codes.npy")
    name = f"doclens.{chunk}.npy"
    counts = lengths_of(folder.array(name, 1, "<i8", "<i4"), folder.path / name, len(codes))
    if counts.sum() != len(codes):
        raise ValueError(f"{folder.path / name} must add up to {len(codes):,} tokens, got {counts.sum():,}")
    ids = folder.array(f"{chunk}.passage_ids.npy", 1, "<i8")
    if len(ids) != len(counts):
        raise ValueError(
            f"{folder.path / f'{chunk}.passage_ids.npy'} must name {len(counts):,} passages, got {len(ids):,}"
        )
    return part, counts, np.asarray(ids)


def _kept(folder: Folder, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the last copy of each passage that is not deleted."""
    _, from_the_end = np.unique(numbers[::-1], return_index=True)
    last = np.sort(len(numbers) - 1 - from_the_end)
    if not folder.has("deleted_pids.npy"):
        return last
    deleted = folder.array("deleted_pids.npy", 1, "<i8")
    return last[~np.isin(numbers[last], deleted)]


def _fields(folder: Folder, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Metadata of each passage; a field that is NULL is left out."""
    path = folder.file("metadata.duckdb")
    try:
        import duckdb
    except ImportError:
        raise ImportError(
            f"{path} holds metadata, which duckdb reads: pip install duckdb; metadata=False leaves them out"
        ) from None
    place = {number: row for row, number in enumerate(numbers.tolist())}
    fields: list[dict[str, Any]] = [{} for _ in place]
    settings = {"access_mode": "READ_ONLY", "enable_external_access": "false", "lock_configuration": "true"}
    try:
        with duckdb.connect(str(path), config=settings) as database:
            kinds = database.execute(
                "SELECT table_type FROM information_schema.tables WHERE table_name = 'metadata'"
            ).fetchall()
            if kinds != [("BASE TABLE",)]:
                raise ValueError(f"{path} must have a table metadata")
            rows = database.execute("SELECT * FROM metadata")
            names = [column[0] for column in rows.description]
            if "_passage_id" not in names:
                raise ValueError(f"{path} must have a column _passage_id")
            while some := rows.fetchmany(1024):
                for row in some:
                    values = dict(zip(names, row, strict=True))
                    number = values.pop("_passage_id")
                    if number in place:
                        fields[place[number]] = {name: one for name, one in values.items() if one is not None}
    except duckdb.Error as error:
        raise ValueError(f"{path} is not a readable table of metadata: {str(error).splitlines()[0]}") from None
    return fields
