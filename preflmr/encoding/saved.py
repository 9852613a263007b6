"""Embeddings on disk as `lateint build` reads them: tokens.npy ``[T, dim]``, lengths.npy ``[n]``, ids.json ``[n]``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lateint.disk import whole

TOKENS, LENGTHS, IDS = "tokens.npy", "lengths.npy", "ids.json"


def save(stream: Iterable[tuple[NDArray[Any], NDArray[np.int64]]], ids: Sequence[str], folder: Path) -> tuple[int, int]:
    """Writes a stream of (tokens, lengths) as it comes; returns how many documents and tokens there were.

    Raises:
        ValueError: there are not as many documents as ids, or none. No tokens.npy is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lengths: list[NDArray[np.int64]] = []
    first: NDArray[Any] | None = None
    with whole.file(folder / TOKENS) as part, part.open("wb") as file:
        for tokens, counts in stream:
            if first is None:
                first = tokens[:0]
                start = _header(file, first, 0)
            file.write(np.ascontiguousarray(tokens).tobytes())
            lengths.append(counts)
        every = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        if first is None or len(every) != len(ids):
            raise ValueError(f"ids must name each document once, got {len(ids)} ids for {len(every)} documents")
        file.seek(0)
        if _header(file, first, int(every.sum())) != start:
            raise AssertionError("numpy leaves room in a header for its number of rows to grow")
        np.save(folder / LENGTHS, every)
        (folder / IDS).write_text(json.dumps(list(ids), ensure_ascii=False) + "\n", encoding="utf-8")
    return len(every), int(every.sum())


def _header(file: BinaryIO, array: NDArray[Any], rows: int) -> int:
    """Writes the header of an array of ``rows`` rows like ``array``'s; returns where the rows begin."""
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *array.shape[1:])})
    return file.tell()
