"""The passages of an index as they lie on disk, beside the index, so that a search can show what it found.

========================  ============================================================================
``preflmr.json``          what made the index: model, passages, settings; written last
``passages.jsonl``        one object a line in the order of the index: ``id``, ``text`` and, if any, ``image``
``offsets.npy``           ``[n + 1]`` int64: where the lines begin in that file, and its length
``index/``                the index of lateint, whose ids are positions in that file
========================  ============================================================================

Passages are copied, and checked, before any of them is encoded: the millionth one being empty shows after seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from preflmr.data import rows
from preflmr.data.images import ON_MISSING, Images, MissingImage

PASSAGES, OFFSETS = "passages.jsonl", "offsets.npy"
COLUMNS = (("passage_id", "passage_content"), ("_id", "text"), ("id", "text"))  # of M2KR, of BEIR, and the plain ones


@dataclass(frozen=True)
class Passage:
    """A document to find; ``image`` is the path of its picture."""

    id: str
    text: str
    image: str | None = None


@dataclass(frozen=True)
class Passages:
    """Passages on disk, read one at a time.

    Attributes:
        folder: holds the two files that `copy` wrote.
        offsets: ``[n + 1]``, mapped.
    """

    folder: Path
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> Passages:
        """Raises ValueError if the files do not fit each other."""
        offsets = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
        found = os.path.getsize(folder / PASSAGES)
        if found != offsets[-1]:
            raise ValueError(
                f"{folder / PASSAGES} must have {offsets[-1]} bytes, found {found}; index the passages again"
            )
        return cls(folder, offsets)

    @property
    def texts(self) -> Column:
        return Column(self, "text")

    @property
    def images(self) -> Column:
        return Column(self, "image")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> Passage:
        with (self.folder / PASSAGES).open("rb") as file:
            file.seek(int(self.offsets[position]))
            return Passage(**json.loads(file.readline()))

    def __iter__(self) -> Iterator[Passage]:
        with (self.folder / PASSAGES).open("rb") as file:
            for line in file:
                yield Passage(**json.loads(line))


@dataclass(frozen=True)
class Column:
    """One field of all passages, read from disk each time, with a length for progress bars."""

    passages: Passages
    name: str

    def __len__(self) -> int:
        return len(self.passages)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(passage, self.name) for passage in self.passages)


def copy(
    source: str | os.PathLike[str],
    folder: Path,
    *,
    images: Images | None = None,
    on_missing: str = "error",
    progress: bool = True,
) -> dict[str, Any]:
    """Copies passages into ``folder`` and returns what there is to say about them, for ``preflmr.json``.

    Args:
        source: ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` with ``passage_id``, ``passage_content`` and, if any,
            ``img_path`` (M2KR), or ``_id`` (or ``id``), ``text`` and, if any, ``title`` (BEIR).
        images: where the pictures are; None: pictures are left out.
        on_missing: ``"error"``; ``"skip"`` leaves passages without their picture out; ``"blank"`` keeps their text.

    Raises:
        FileNotFoundError, MissingImage: there is no such file, or a picture is missing.
        ValueError: columns are missing, a passage is empty, or an id comes twice; with the file and the line.
    """
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
    digest, seen, ends, missing, pictures = hashlib.sha256(), set[str](), [0], 0, 0
    lines = tqdm(read(source), desc="read", unit="passage", disable=not progress)
    with (folder / PASSAGES).open("wb") as file, lines:
        for place, passage in lines:
            if passage.id in seen:
                raise ValueError(f"{place}: the id {passage.id!r} comes a second time")
            seen.add(passage.id)
            image = None if images is None else passage.image
            if image is not None and images is not None and image not in images:
                if on_missing == "error":
                    raise MissingImage(f"{place}: image {image!r} is missing: it is not in {images}")
                missing += 1
                if on_missing == "skip":
                    continue
                image = None
            if not passage.text.strip() and image is None:
                raise ValueError(f"{place}: passage {passage.id!r} is empty")
            pictures += image is not None
            row = {"id": passage.id, "text": passage.text, **({} if image is None else {"image": image})}
            try:
                line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            except UnicodeEncodeError:
                raise ValueError(f"{place}: must be text that utf-8 can write, but holds half a character") from None
            file.write(line)
            digest.update(line)
            ends.append(ends[-1] + len(line))
    if len(ends) == 1:
        raise ValueError(f"{source}: must hold at least one passage, found none")
    np.save(folder / OFFSETS, np.array(ends, np.int64))
    return {
        "source": os.fspath(source),
        "count": len(ends) - 1,
        "sha256": digest.hexdigest(),
        "with_picture": pictures,
        "picture_missing": missing,
    }


def read(source: str | os.PathLike[str]) -> Iterator[tuple[str, Passage]]:
    """Every passage of a file, with its place in it."""
    columns: tuple[str, str] | None = None
    for place, row in rows.at(source, "passages").rows(
        (), ("img_path", "title", *(name for names in COLUMNS for name in names))
    ):
        if columns is None or columns[0] not in row or columns[1] not in row:
            columns = _columns(place, row)
        id, text = row[columns[0]], row[columns[1]] or ""
        if not isinstance(id, (str, int)) or not isinstance(text, str):
            raise ValueError(f"{place}: {columns[0]} and {columns[1]} must be strings, got {id!r} and {text!r:.60}")
        title, image = row.get("title"), row.get("img_path")
        if title and columns[1] == "text":
            text = f"{title} {text}".strip()
        yield place, Passage(str(id), text, image or None)


def _columns(place: str, row: Any) -> tuple[str, str]:
    for columns in COLUMNS:
        if columns[0] in row and columns[1] in row:
            return columns
    expected = " or ".join(" and ".join(columns) for columns in COLUMNS)
    raise ValueError(f"{place}: must have the columns {expected}, found {', '.join(row) or 'none'}")
