"""Bytes of each document, end to end: how texts and metadata are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError
from lateint.disk.segment_files import Rows

Leaves = Mapping[str, NDArray[Any]]  # the arrays of one group of a segment, by their names there


class Piece(NamedTuple):
    """Documents ``first`` to ``last - 1`` of a segment.

    Attributes:
        leaves: of one group; None: the segment does not have it.
        documents: of the segment.
    """

    leaves: Leaves | None
    documents: int
    first: int
    last: int


def packed(name: str, items: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays ``NAME_offsets`` and ``NAME_bytes``."""
    offsets = np.zeros(len(items) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, items), np.int64, len(items)), out=offsets[1:])
    return {f"{name}_offsets": offsets, f"{name}_bytes": np.frombuffer(b"".join(items), np.uint8)}


def at(leaves: Leaves, name: str, row: int) -> bytes:
    """Those of a document.

    Raises:
        FormatError: where they begin and end cannot be.
    """
    data = leaves[f"{name}_bytes"]
    first, last = leaves[f"{name}_offsets"][row : row + 2].tolist()
    if not 0 <= first <= last <= len(data):
        raise FormatError(f"{name}_offsets cannot lead from {first} to {last}; the index is damaged")
    return data[first:last].tobytes()


def joined(name: str, pieces: Sequence[Piece], missing: bytes) -> dict[str, Rows]:
    """The arrays of several pieces, one after another; ``missing`` stands for what a segment does not have.

    Raises:
        FormatError: see `at`.
    """
    lengths = [np.empty(0, np.int64), *(_lengths(name, piece, len(missing)) for piece in pieces)]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)

    def parts() -> Iterator[NDArray[np.uint8]]:
        for leaves, _, first, last in pieces:
            if leaves is None:
                yield np.frombuffer(missing * (last - first), np.uint8)
            else:
                begin, end = leaves[f"{name}_offsets"][[first, last]].tolist()
                yield leaves[f"{name}_bytes"][begin:end]

    data = Rows(np.dtype(np.uint8), (int(offsets[-1]),), parts)
    return {f"{name}_offsets": Rows.of(offsets), f"{name}_bytes": data}


def _lengths(name: str, piece: Piece, missing: int) -> NDArray[np.int64]:
    if piece.leaves is None:
        return np.full(piece.last - piece.first, missing, np.int64)
    offsets = piece.leaves[f"{name}_offsets"][piece.first : piece.last + 1]
    lengths = np.diff(offsets)
    if (lengths < 0).any() or offsets[0] < 0 or offsets[-1] > len(piece.leaves[f"{name}_bytes"]):
        raise FormatError(f"{name}_offsets must not decrease; the index is damaged")
    return lengths


def places(pieces: Sequence[Piece]) -> tuple[list[tuple[Leaves, NDArray[np.int64]]], int]:
    """Where the documents of pieces come: of each segment, ``[n]`` the new number of each of its documents, -1 where it
    is left out; and how many there are. Segments without the group are left out."""
    found: dict[int, tuple[Leaves, NDArray[np.int64]]] = {}
    at = 0
    for leaves, documents, first, last in pieces:
        if leaves is not None:
            if id(leaves) not in found:
                found[id(leaves)] = leaves, np.full(documents, -1, np.int64)
            found[id(leaves)][1][first:last] = np.arange(at, at + last - first)
        at += last - first
    return list(found.values()), at


def problem(leaves: Leaves, name: str) -> str | None:
    """What is wrong with where documents begin and end; None: nothing."""
    offsets, data = leaves[f"{name}_offsets"], leaves[f"{name}_bytes"]
    if offsets[0] != 0 or offsets[-1] != len(data):
        return f"{name}_offsets must run from 0 to {len(data)}, found {offsets[0]} to {offsets[-1]}"
    if (offsets[1:] < offsets[:-1]).any():
        return f"{name}_offsets must not decrease"
    return None
