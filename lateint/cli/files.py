"""Texts, JSON and arrays in files that options name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.documents import Document
from lateint.fields.values import flattened
from lateint.quality.collection import json_object, lines


def read_texts(path: Path, *, counted: bool = False) -> tuple[list[str], list[Any] | None]:
    """Texts of a file, and their ids where they have any.

    A line is a text; with the ending .jsonl it is an object; with .tsv it is id, text and perhaps title, with tabs
    between them, as ColBERT reads it. Empty lines are left out; where lines are ``counted``, they are refused.

    Raises:
        ValueError: a line is not what it must be; the message begins with file and line.
    """
    rows = list(lines(path))
    if path.suffix == ".tsv":
        return _columns(rows)
    if counted and (empty := next((i for i, (place, _) in enumerate(rows, 1) if place != f"{path}, line {i}"), None)):
        raise ValueError(f"{path}, line {empty}: must not be empty, for each line is of one document")
    if ".jsonl" not in path.suffixes:
        return [line for _, line in rows], None
    texts, ids = [], []
    for place, line in rows:
        row = json_object(place, line)
        if not isinstance(row.get("text"), str):
            raise ValueError(f"{place}: 'text' must be a string, got {row.get('text')!r}")
        texts.append(f"{row.get('title') or ''} {row['text']}".strip())
        ids.append(row.get("_id", row.get("id")))
    if all(id is None for id in ids):
        return texts, None
    if None in ids:
        raise ValueError(f"{rows[ids.index(None)][0]}: must have '_id' or 'id', as other lines have")
    return texts, ids


def _columns(rows: list[tuple[str, str]]) -> tuple[list[str], list[Any]]:
    """Texts and ids, numbers if all of them are."""
    texts, ids = [], list[Any]()
    for place, line in rows:
        columns = line.split("\t")
        if len(columns) not in (2, 3):
            raise ValueError(f"{place}: must be id, text and perhaps title, got {len(columns)} columns")
        ids.append(columns[0])
        texts.append(" ".join([*columns[2:], columns[1]]).strip())
    return texts, [int(id) for id in ids] if all(id.isdecimal() for id in ids) else ids


def read_json(path: str, option: str) -> Any:
    """What a file holds."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{option}: {path} is not JSON: {error}") from None


def load(path: str) -> NDArray[Any]:
    """A saved array, mapped, not read."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from None
    return array


def check_writable(path: Path, option: str) -> None:
    """Refuses now what would fail when the work is done."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise OSError(f"{option}: {path} cannot be written")


def as_json(document: Document) -> dict[str, Any]:
    """Text and metadata, dates as ``{"$date": ...}``."""
    return {"text": document.text, "metadata": json.loads(flattened(document.metadata, 0).text or "{}")}


def read_carried(path: str | None) -> dict[str, Any]:
    """Texts, metadata and sparse vectors of a file of JSON lines, as `lateint.Index.build` takes them."""
    if path is None:
        return {}
    found: dict[str, list[Any]] = {"texts": [], "metadata": [], "sparse": []}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                unknown = sorted(row.keys() - {"id", "text", "metadata", "sparse"})
            except (ValueError, AttributeError, RecursionError) as error:
                raise ValueError(f"--documents: line {number} of {path} is no JSON object: {error}") from None
            if unknown:
                raise ValueError(
                    f"--documents: line {number} of {path} must have text, metadata and sparse only, got "
                    f"{unknown[0][:64]!r}"
                )
            for name, values in found.items():
                values.append(row.get("text" if name == "texts" else name))
    return {name: values for name, values in found.items() if any(value is not None for value in values)}
