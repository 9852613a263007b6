"""The group ``postings``: which documents have which terms, for searches by text."""

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
from lateint.text.postings import postings
from lateint_kernels.text import building
from lateint_kernels.text.segment_text import SegmentText

SOURCE = "texts"


def make(given: Given) -> dict[str, NDArray[Any]]:
    """The arrays of given documents; empty if no text has a term, or texts are not searched.

    Raises:
        ImportError: see `lateint.Analyzer`.
    """
    if given.analyzer is None or given.texts is None:
        return {}
    return _leaves(postings(given.analyzer, given.texts))


def join(pieces: Sequence[Piece]) -> dict[str, Rows]:
    """Those of pieces, one after another: nothing is analysed again. Empty if none of their documents has a term."""
    places, count = stored.places(pieces)
    if not places:
        return {}
    try:
        made = building.join([of(leaves, len(rows)) for leaves, rows in places], [rows for _, rows in places], count)
    except RuntimeError as error:
        raise FormatError(str(error)) from error
    return {leaf: Rows.of(array) for leaf, array in _leaves(made).items()}


def of(leaves: Leaves | None, documents: int) -> SegmentText:
    """The postings of a segment, as engines take them; without the group, no document has a term."""
    if leaves is not None:
        return SegmentText(**leaves)
    empty, start = np.empty(0, np.uint8), np.zeros(1, np.int64)
    counts = np.empty(0, np.uint32)
    lengths = np.zeros(documents, np.uint32)
    return SegmentText(lengths, empty, start, start, counts, empty, np.empty(0, np.int64), counts)


def problems(leaves: Leaves, documents: int) -> Iterator[str]:
    """What docs/format.md says otherwise."""
    try:
        building.check(of(leaves, documents))
    except RuntimeError as error:
        yield str(error).removeprefix("the index is damaged: ")
        return
    if not len(leaves["posting_documents"]):
        yield "posting_documents must hold a document"
    try:
        leaves["term_bytes"].tobytes().decode()
    except UnicodeDecodeError:
        yield "term_bytes must hold UTF-8"


def _leaves(made: SegmentText) -> dict[str, NDArray[Any]]:
    return made._asdict() if len(made.posting_documents) else {}
