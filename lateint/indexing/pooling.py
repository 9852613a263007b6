"""Documents with fewer tokens: those that are alike become one, before anything is learned or encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lateint.indexing.documents import Documents, kept
from lateint.indexing.encoding import check
from lateint_kernels import Ragged, as_array, pool, to_float32
from lateint_kernels.codes.building import HostOperators, Operators

CHUNK = 1 << 15  # tokens read at a time


def pooled(documents: Documents, factor: int, *, threads: int, spool: Path | None, operators: Operators) -> Documents:
    """Documents of which one token of ``factor`` is left, see `lateint_kernels.pool`; made once, and kept on the host.

    Raises:
        ValueError: a token that is zero or not finite; the message names its document.
    """
    return kept(_pooled(documents, factor, threads), spool, operators)


def _pooled(documents: Documents, factor: int, threads: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    offsets = np.concatenate([[0], np.cumsum(documents.lengths)])
    host = HostOperators(threads)
    held: list[NDArray[np.float32]] = []  # of the documents that have begun
    first = read = 0  # document, token
    for chunk in documents.chunks(CHUNK):
        tokens = to_float32(as_array(chunk, "doc_embs"))
        check(np.ascontiguousarray(tokens), offsets, host, read)
        read += len(tokens)
        held.append(tokens.copy())  # a source may use its memory again
        last = int(np.searchsorted(offsets, read, side="right")) - 1
        if last > first:
            rows = np.concatenate(held)
            whole = int(offsets[last] - offsets[first])
            lengths = documents.lengths[first:last]
            done = pool(Ragged.from_lengths(rows[:whole], lengths, allow_empty=True), factor, threads=threads)
            yield done.tokens, done.lengths
            held, first = [rows[whole:]], last
