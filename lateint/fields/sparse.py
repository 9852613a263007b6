"""The group ``sparse``: a sparse vector of each document, as postings of their terms."""

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
from lateint.text.vectors import Vector, encoded, read
from lateint_kernels.text import building
from lateint_kernels.text.segment_text import SegmentSparse

SOURCE = "sparse"
PREFIX = "sparse_"  # of the names of arrays; a group of texts has them without


def make(given: Given) -> dict[str, NDArray[Any]]:
    """The arrays of given documents; empty if none has a weight.

    Raises:
        TypeError, ValueError: see `lateint.text.vectors.read`.
    """
    found = [read(one, f"sparse of document {given.first + i}") for i, one in enumerate(given.sparse or ())]
    return _leaves(inverted(found))


def inverted(vectors: Sequence[Vector | None]) -> SegmentSparse:
    """The postings of vectors; what is too small for float16 is left out."""
    numbers: dict[bytes, int] = {}
    lengths, terms, weights = [0], [np.empty(0, np.uint32)], [np.empty(0, np.float16)]
    columns = [one.terms for one in vectors if one is not None and isinstance(one.terms, np.ndarray)]
    used = np.unique(np.concatenate([np.empty(0, np.int64), *columns]))
    ranks = np.array([numbers.setdefault(term, len(numbers)) for term in encoded(used)], np.uint32)
    for one in vectors:
        if one is None:
            lengths.append(0)
            continue
        if isinstance(one.terms, np.ndarray):
            those = ranks[np.searchsorted(used, one.terms)]
        else:
            those = np.array([numbers.setdefault(term, len(numbers)) for term in encoded(one.terms)], np.uint32)
        rounded = one.weights.astype(np.float16)
        terms.append(those[rounded > 0])
        weights.append(rounded[rounded > 0])
        lengths.append(len(weights[-1]))
    offsets = np.cumsum(lengths, dtype=np.int64)
    return building.invert_sparse(list(numbers), np.concatenate(terms), np.concatenate(weights), offsets)


def join(pieces: Sequence[Piece]) -> dict[str, Rows]:
    """Those of pieces, one after another. Empty if none of their documents has a weight.

    Raises:
        FormatError: a segment is damaged.
    """
    places, count = stored.places(pieces)
    if not places:
        return {}
    segments = [of(leaves, len(rows)) for leaves, rows in places]
    try:
        made = building.join_sparse(segments, [rows for _, rows in places], count)
    except RuntimeError as error:
        raise FormatError(str(error)) from error
    return {leaf: Rows.of(array) for leaf, array in _leaves(made).items()}


def of(leaves: Leaves | None, documents: int) -> SegmentSparse:
    """The postings of a segment, as engines take them; without the group, no document has a vector."""
    if leaves is None:
        empty, start = np.empty(0, np.uint8), np.zeros(1, np.int64)
        return SegmentSparse(documents, empty, start, start, np.empty(0, np.uint32), np.empty(0, np.uint16))
    arrays = {leaf.removeprefix(PREFIX): array for leaf, array in leaves.items()}
    arrays["posting_weights"] = arrays["posting_weights"].view(np.uint16)
    return SegmentSparse(documents, **arrays)


def problems(leaves: Leaves, documents: int) -> Iterator[str]:
    """What docs/format.md says otherwise."""
    try:
        building.check_sparse(of(leaves, documents))
    except RuntimeError as error:
        yield PREFIX + str(error).removeprefix("the index is damaged: ")
        return
    if not len(leaves["sparse_posting_documents"]):
        yield "sparse_posting_documents must hold a document"
    try:
        leaves["sparse_term_bytes"].tobytes().decode()
    except UnicodeDecodeError:
        yield "sparse_term_bytes must hold UTF-8"


def _leaves(made: SegmentSparse) -> dict[str, NDArray[Any]]:
    if not len(made.posting_documents):
        return {}
    arrays = made._asdict()
    del arrays["documents"]
    arrays["posting_weights"] = made.posting_weights.view(np.float16)
    return {PREFIX + name: array for name, array in arrays.items()}
