"""How postings are made, joined and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText


def invert(terms: Sequence[bytes], numbers: NDArray[np.uint32], offsets: NDArray[np.int64]) -> SegmentText:
    """The postings of documents that are runs of terms.

    Args:
        terms: ``[U]`` all terms, in any order, each once; those that no document has are left out.
        numbers: ``[T]``, numbers of terms: document d is ``numbers[offsets[d]:offsets[d + 1]]``.
        offsets: ``[n + 1]``, from 0 to T.

    Raises:
        ValueError: a number is too large, offsets do not rise from 0 to T, or a term comes twice.

    >>> made = invert([b"b", b"a"], np.array([0, 1, 0], np.uint32), np.array([0, 1, 3]))
    >>> bytes(made.term_bytes), made.posting_offsets.tolist(), made.posting_documents.tolist()
    (b'ab', [0, 1, 3], [1, 0, 1])
    """
    names, ranks, offsets = _ranked(terms, numbers, offsets)
    made = _cpu.invert_text(ranks, offsets, len(names))
    return SegmentText(text_lengths=np.diff(offsets).astype(np.uint32), **(made | _packed(names)))


def invert_sparse(
    terms: Sequence[bytes], numbers: NDArray[np.uint32], weights: NDArray[np.float16], offsets: NDArray[np.int64]
) -> SegmentSparse:
    """The postings of documents that are sparse vectors.

    Args:
        terms, numbers, offsets: as in `invert`; no document has a term twice.
        weights: ``[T]``, of each number, above 0 and finite.

    Raises:
        ValueError: as `invert`; or there are not as many weights as numbers.
    """
    names, ranks, offsets = _ranked(terms, numbers, offsets)
    made = _cpu.invert_sparse(ranks, np.ascontiguousarray(weights, np.float16).view(np.uint16), offsets, len(names))
    return SegmentSparse(documents=len(offsets) - 1, **(made | _packed(names)))


def _ranked(
    terms: Sequence[bytes], numbers: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> tuple[list[bytes], NDArray[np.uint32], NDArray[np.int64]]:
    """The terms that are used, ascending; numbers that count these; and offsets, checked."""
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(numbers) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to {len(numbers)}")
    if len(numbers) and int(numbers.max()) >= len(terms):
        raise ValueError(f"numbers must be less than {len(terms)}, found {int(numbers.max())}")
    used = np.flatnonzero(np.bincount(numbers, minlength=len(terms)))
    order = sorted(used.tolist(), key=terms.__getitem__)
    names = [terms[number] for number in order]
    if len(set(names)) < len(names):
        raise ValueError("terms must each come once")
    ranks = np.zeros(len(terms), np.uint32)
    ranks[order] = np.arange(len(order), dtype=np.uint32)
    return names, ranks[numbers], np.ascontiguousarray(offsets, np.int64)


def _packed(names: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    return {
        "term_bytes": np.frombuffer(b"".join(names), np.uint8),
        "term_offsets": np.cumsum([0, *map(len, names)], dtype=np.int64),
    }


def join(segments: Sequence[SegmentText], places: Sequence[NDArray[np.int64]], documents: int) -> SegmentText:
    """The postings of documents of several segments, as if they had been made together.

    Args:
        places: of each segment ``[n]``, the number that each of its documents gets, -1 where it is left out.
        documents: how many there are then; those that get no number have no terms.

    Raises:
        ValueError: a number is too large, or given twice.
        RuntimeError: an array is damaged.
    """
    _check_places(places, documents)
    lengths = np.zeros(documents, np.uint32)
    for segment, rows in zip(segments, places, strict=True):
        lengths[rows[rows >= 0]] = segment.text_lengths[rows >= 0]
    made = _cpu.join_text(segments, [rows.astype(np.uint32) for rows in places])
    return SegmentText(text_lengths=lengths, **made)


def join_sparse(
    segments: Sequence[SegmentSparse], places: Sequence[NDArray[np.int64]], documents: int
) -> SegmentSparse:
    """As `join`, of sparse vectors."""
    _check_places(places, documents)
    made = _cpu.join_sparse(segments, [rows.astype(np.uint32) for rows in places])
    return SegmentSparse(documents=documents, **made)


def _check_places(places: Sequence[NDArray[np.int64]], documents: int) -> None:
    taken = np.zeros(documents, bool)
    for rows in places:
        kept = rows[rows >= 0]
        if int(kept.max(initial=-1)) >= documents or taken[kept].any() or len(np.unique(kept)) < len(kept):
            raise ValueError(f"places must be different numbers below {documents}")
        taken[kept] = True


def check(segment: SegmentText) -> None:
    """Reads all of it. Raises RuntimeError where it is not as docs/format.md says."""
    _cpu.check_text(segment)


def check_sparse(segment: SegmentSparse) -> None:
    """As `check`, of sparse vectors."""
    _cpu.check_sparse(segment)
