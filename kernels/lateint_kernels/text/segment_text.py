"""The postings of a segment, of texts or sparse vectors, as engines take them; docs/format.md says what they hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SegmentText(NamedTuple):
    """Which of n documents have which of U terms, and how often.

    Attributes:
        text_lengths: ``[n]`` uint32: terms of each document, repeated ones included.
        term_bytes: ``[B]`` uint8: the terms in UTF-8, ascending by bytes, end to end.
        term_offsets: ``[U + 1]`` int64: where each begins.
        posting_offsets: ``[U + 1]`` int64: where the postings of each begin.
        posting_documents: ``[P]`` uint32: the documents that have a term, ascending.
        posting_counts: ``[P]`` uint8: how often they have it; 255: see ``large_counts``.
        large_postings: ``[W]`` int64: the postings with such a count, ascending.
        large_counts: ``[W]`` uint32: their counts.
    """

    text_lengths: NDArray[np.uint32]
    term_bytes: NDArray[np.uint8]
    term_offsets: NDArray[np.int64]
    posting_offsets: NDArray[np.int64]
    posting_documents: NDArray[np.uint32]
    posting_counts: NDArray[np.uint8]
    large_postings: NDArray[np.int64]
    large_counts: NDArray[np.uint32]


class SegmentSparse(NamedTuple):
    """Which of n documents have which of U terms, and with what weight; the first fields are as in `SegmentText`.

    Attributes:
        documents: n.
        posting_weights: ``[P]`` uint16: the bits of a float16, above 0 and finite.
    """

    documents: int
    term_bytes: NDArray[np.uint8]
    term_offsets: NDArray[np.int64]
    posting_offsets: NDArray[np.int64]
    posting_documents: NDArray[np.uint32]
    posting_weights: NDArray[np.uint16]
