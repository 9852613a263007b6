"""The group ``metadata``: a JSON object for each document, and the same as columns of fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.disk.segment_files import Rows
from lateint.fields import columns, stored
from lateint.fields.columns import Column, Key
from lateint.fields.records import Given
from lateint.fields.stored import Leaves, Piece
from lateint.fields.values import flattened, from_json

SOURCE = "metadata"


def make(given: Given) -> dict[str, NDArray[Any]]:
    """The arrays of given documents; empty if none has metadata."""
    texts, collector = list[bytes](), columns.Collector()
    for number, one in enumerate(given.metadata or (), given.first):
        text, entries = flattened(one, number)
        texts.append(text.encode())
        collector.add(entries)
    if not any(texts):
        return {}
    return stored.packed("metadata", texts) | columns.written(collector.columns())


def join(pieces: Sequence[Piece]) -> dict[str, Rows]:
    """Those of pieces, one after another; empty if none of their documents has metadata."""
    arrays = stored.joined("metadata", pieces, b"")
    if arrays["metadata_bytes"].shape[0] == 0:
        return {}
    places, count = stored.places(pieces)
    found = columns.joined([(columns_of(leaves, len(rows)), rows) for leaves, rows in places], count)
    return arrays | {name: Rows.of(array) for name, array in columns.written(found).items()}


def columns_of(leaves: Leaves, documents: int) -> dict[Key, Column]:
    """The columns of a segment.

    Raises:
        FormatError: there is something else.
    """
    return columns.read(leaves["field_table"], leaves["field_data"], documents)


def at(leaves: Leaves, row: int) -> dict[str, Any]:
    """The metadata of a document.

    Raises:
        FormatError: the index is damaged, in a part that was not verified.
    """
    data = stored.at(leaves, "metadata", row)
    try:
        return from_json(data.decode()) if data else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(
            f"metadata_bytes must hold JSON, but document {row} of a segment has other: {error}"
        ) from error


def problems(leaves: Leaves, documents: int) -> Iterator[str]:
    """What docs/format.md says otherwise."""
    if (wrong := stored.problem(leaves, "metadata")) is not None:
        yield wrong
        return
    try:
        found = columns_of(leaves, documents)
        for one in found.values():
            _ = one.checked
        entries = (flattened(at(leaves, row), row).entries for row in range(documents))
        expected = columns.written(columns.of_entries(entries))
    except (FormatError, TypeError, ValueError) as error:
        yield str(error)
        return
    if any(not np.array_equal(expected[name], leaves[name]) for name in expected):
        yield "field_table and field_data must hold what the metadata say"
