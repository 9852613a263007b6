"""The group ``texts``: what each document says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.disk.segment_files import Rows
from lateint.fields import stored
from lateint.fields.records import Given
from lateint.fields.stored import Leaves, Piece

SOURCE = "texts"
MISSING = b"\xff"  # no text, which UTF-8 cannot say


def make(given: Given) -> dict[str, NDArray[Any]]:
    """The arrays of given documents; empty if none has a text."""
    if given.texts is None or all(text is None for text in given.texts):
        return {}
    return stored.packed("text", [MISSING if text is None else text.encode() for text in given.texts])


def join(pieces: Sequence[Piece]) -> dict[str, Rows]:
    """Those of pieces, one after another; empty if none of their documents has a text."""
    if all(piece.leaves is None for piece in pieces):
        return {}
    arrays = stored.joined("text", pieces, MISSING)
    data = arrays["text_bytes"]
    if data.shape[0] == sum(piece.last - piece.first for piece in pieces) and (data.whole() == MISSING[0]).all():
        return {}
    return arrays


def at(leaves: Leaves, row: int) -> str | None:
    """The text of a document.

    Raises:
        FormatError: the index is damaged, in a part that was not verified.
    """
    data = stored.at(leaves, "text", row)
    try:
        return None if data == MISSING else data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"text_bytes must hold UTF-8, but document {row} of a segment has none") from error


def problems(leaves: Leaves, documents: int) -> Iterator[str]:
    """What docs/format.md says otherwise."""
    if (wrong := stored.problem(leaves, "text")) is not None:
        yield wrong
        return
    try:
        for row in range(documents):
            at(leaves, row)
    except FormatError as error:
        yield str(error)
    if documents and np.array_equal(leaves["text_bytes"], np.full(documents, MISSING[0])):
        yield "text_bytes must hold a text"
