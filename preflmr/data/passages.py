"""The documents to find: passages of a table, which stays on disk."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from preflmr.data import rows
from preflmr.data.ids import Digests, Positions, repeats
from preflmr.data.images import ON_MISSING, Images, MissingImage
from preflmr.data.rows import Column, Row, Table


class Columns(NamedTuple):
    """What a table of passages calls their columns."""

    id: str
    text: str
    title: str | None = None


# Of M2KR, of BEIR, and the plain ones, which are those of the passages that lie beside an index.
KNOWN = (
    Columns("passage_id", "passage_content"),
    Columns("_id", "text", "title"),
    Columns("id", "text", "title"),
)
IMAGES = ("img_path", "image")
PASSAGES, OFFSETS = "passages.jsonl", "offsets.npy"
T = TypeVar("T")


@dataclass(frozen=True)
class Passages:
    """The documents to find, by position.

    Attributes:
        ids, texts: lists, or columns that are read from disk each time.
        images: their pictures' paths, None for one without; None if no passage has any.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    images: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, id: str) -> int:
        """Where a passage is.

        Raises:
            KeyError: there is no such passage.
        """
        return self.positions[id]

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return Positions(self.ids)

    @cached_property
    def sha256(self) -> str:
        """The same for the same ids, texts and pictures' paths in the same order, and for no others."""
        found = hashlib.sha256()
        for line in self.lines():
            found.update(line)
        return found.hexdigest()

    def lines(self) -> Iterator[bytes]:
        """Each passage as JSON: ``id``, ``text`` and, if any, ``image``.

        Raises:
            ValueError: a text cannot be written in UTF-8.
        """
        images = self.images or [None] * len(self)
        for id, text, image in zip(self.ids, self.texts, images, strict=True):
            row = {"id": id, "text": text, **({} if image is None else {"image": image})}
            try:
                yield (json.dumps(row, ensure_ascii=False) + "\n").encode()
            except UnicodeEncodeError:
                rule = "must be text that utf-8 can write, but holds half a character"
                raise ValueError(f"passage {id!r}: {rule}") from None

    def write(self, folder: Path) -> None:
        """Writes ``passages.jsonl`` and ``offsets.npy``, where its lines begin and end: ``[n + 1]`` int64."""
        ends = array("q", [0])
        with (folder / PASSAGES).open("wb") as file:
            for line in self.lines():
                file.write(line)
                ends.append(ends[-1] + len(line))
        np.save(folder / OFFSETS, np.frombuffer(ends, np.int64))

    @classmethod
    def open(cls, folder: Path, pictured: bool = True) -> Passages:
        """What `write` wrote.

        Args:
            pictured: whether any passage has a picture.

        Raises:
            ValueError: the files do not fit each other.
        """
        offsets: NDArray[np.int64] = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
        found = os.path.getsize(folder / PASSAGES)
        if found != offsets[-1]:
            raise ValueError(
                f"{folder / PASSAGES} must have {offsets[-1]} bytes, found {found}; index the passages again"
            )
        return _columns(rows.Lines(folder / PASSAGES), offsets[:-1], KNOWN[-1], "image" if pictured else None)

    def without_missing(self, images: Images | None, on_missing: str) -> tuple[Passages, int]:
        """These passages, as far as their pictures are there, and how many pictures are missing.

        Args:
            images: where pictures are; None: pictures are left out, of all passages.
            on_missing: ``"error"``; ``"skip"`` leaves passages without their picture out; ``"blank"`` keeps their text.

        Raises:
            MissingImage: a picture is missing.
            ValueError: a passage without its picture is empty, or ``on_missing`` is none of the three.
        """
        if on_missing not in ON_MISSING:
            raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
        if self.images is None:
            return self, 0
        missing: list[int] = []
        for position, path in enumerate(self.images):
            if path is None or (images is not None and path in images):
                continue
            if images is not None and on_missing == "error":
                where = f"passage {self.ids[position]!r}"
                raise MissingImage(f"{where}: image {path!r} is missing: it is not in {images}")
            if not self.texts[position].strip() and (images is None or on_missing != "skip"):
                raise ValueError(f"passage {self.ids[position]!r} is empty without its picture")
            missing.append(position)
        if images is None:
            return Passages(self.ids, self.texts), 0
        if on_missing == "skip" and missing:
            kept = sorted(set(range(len(self))) - set(missing))
            if not kept:
                raise ValueError(f"passages must have pictures that are there, all {len(missing):,} are missing")
            return Passages(_some(self.ids, kept), _some(self.texts, kept), _some(self.images, kept)), len(missing)
        if not missing:
            return self, 0
        paths = list(self.images)
        for position in missing:
            paths[position] = None
        return Passages(self.ids, self.texts, paths if any(paths) else None), len(missing)


def load_passages(source: str | os.PathLike[str], *, strict: bool = True) -> Passages:
    """The passages of a file (``.jsonl``, ``.jsonl.gz``, ``.parquet``), or of a folder that holds ``passages``.

    Args:
        source: with ``passage_id``, ``passage_content`` and, if any, ``img_path`` (M2KR), or ``_id`` or ``id``,
            ``text`` and, if any, ``title`` and ``img_path`` or ``image`` (BEIR).
        strict: refuse an id that comes twice and an empty passage; else the first counts, and they are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: columns are missing, a value has the wrong type, or as ``strict`` says; with file and row.
    """
    return read(rows.at(source, "passages"), strict, Counter())


def read(table: Table, strict: bool, dropped: Counter[str]) -> Passages:
    """The passages of a table, whose mistakes are refused or counted."""
    columns: Columns | None = None
    keys, digests = array("q"), Digests()
    image, pictured = "", False
    for row in table.rows((), (*(name for one in KNOWN for name in one if name), *IMAGES)):
        if columns is None:
            columns = _known(row)
            image = next((name for name in IMAGES if name in row.columns), IMAGES[0])
        id, text = _checked(row, columns)
        if not text.strip() and not row.columns.get(image):
            refuse(strict, dropped, "empty passages", f"{row.place}: passage {id!r} is empty")
            continue
        pictured |= bool(row.columns.get(image))
        keys.append(row.key)
        digests.add(id)
    if columns is None or not keys:
        raise ValueError(f"{table.name}: must hold at least one passage, found none")
    found = rows.compact(keys)
    del keys
    known = digests.ascending()
    again = repeats(known)
    if len(again):
        key = int(found[again[0]])
        id = _id(columns, table.at(key, columns[:2]))
        message = f"{table.place(key)}: passage {id!r} comes twice" if strict else ""
        for _ in again:
            refuse(strict, dropped, "passages with an id that came before", message)
        found = np.delete(found, again)
    passages = _columns(table, found, columns, image if pictured else None)
    if len(again):
        return passages
    passages.__dict__["positions"] = Positions(passages.ids, known)  # or they would be read once more
    return passages


def _columns(table: Table, keys: NDArray[Any], columns: Columns, image: str | None) -> Passages:
    ids = Column(table, keys, (columns.id,), partial(_id, columns))
    texts = Column(table, keys, tuple(name for name in columns[1:] if name), partial(_text, columns))
    images = None if image is None else Column(table, keys, (image,), partial(_image, image))
    return Passages(ids, texts, images)


def _known(row: Row) -> Columns:
    for columns in KNOWN:
        if columns.id in row.columns and columns.text in row.columns:
            return columns
    expected = " or ".join(f"{columns.id} and {columns.text}" for columns in KNOWN)
    found = ", ".join(row.columns) or "none"
    raise ValueError(f"{row.place}: must have the columns {expected}, found {found}")


def _checked(row: Row, columns: Columns) -> tuple[str, str]:
    missing = [name for name in columns[:2] if name not in row.columns]
    if missing:
        rule = f"must have the columns {columns.id}, {columns.text}; missing {', '.join(missing)}"
        raise ValueError(f"{row.place}: {rule}, found {', '.join(row.columns) or 'none'}")
    id, text = row.columns[columns.id], row.columns[columns.text]
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise ValueError(f"{row.place}: {columns.id!r} must hold strings or integers, got {id!r}")
    if not isinstance(text, str):
        raise ValueError(f"{row.place}: {columns.text!r} must be a string, got {text!r}")
    return str(id), _text(columns, row.columns)


def _id(columns: Columns, row: Mapping[str, Any]) -> str:
    return str(row[columns.id])


def _text(columns: Columns, row: Mapping[str, Any]) -> str:
    title = row.get(columns.title) if columns.title else None
    return f"{title} {row[columns.text]}".strip() if title else str(row[columns.text])


def _image(name: str, row: Mapping[str, Any]) -> str | None:
    return row.get(name) or None


def _some(column: Sequence[T], kept: Sequence[int]) -> Sequence[T]:
    if isinstance(column, Column):
        return Column(column.table, column.keys[kept], column.names, column.value)
    return [column[position] for position in kept]


def refuse(strict: bool, dropped: Counter[str], what: str, message: str) -> None:
    """A mistake in the data: an error, or one more of those that were let pass."""
    if strict:
        raise ValueError(message)
    dropped[what] += 1
