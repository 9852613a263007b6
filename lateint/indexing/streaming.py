"""Building with a codec from documents that can be read only once: they pass by, and nothing of them is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import Segment
from lateint.disk.store import Store, put
from lateint.indexing import clustering
from lateint.indexing.documents import cut, item_of
from lateint.indexing.encoding import Encoder, check, first_bad_row
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import Operators

SEGMENT = 1 << 22  # tokens of a segment, which is held in memory until it is written


class Passing:
    """Items of an iterator: their tokens, of ``dim`` components, one after another, while lengths are noted."""

    def __init__(self, source: Iterator[Any], dim: int, allow_empty: bool, operators: Operators) -> None:
        self.source, self.dim, self.allow_empty, self.operators = source, dim, allow_empty, operators
        self.count = 0
        self.lengths: list[NDArray[np.int64]] = []

    def tokens(self) -> Iterator[Any]:
        """Those of each item."""
        for item in self.source:
            tokens, lengths = item_of(item, self.count, -1, self.operators, self.allow_empty)
            if (dim := tokens.shape[1]) != self.dim:
                raise ValueError(
                    f"doc_embs must have the dim of the codec, {self.dim}, got {dim} in document {self.count}"
                )
            self.count += len(lengths)
            self.lengths.append(lengths)
            yield tokens

    def all_lengths(self) -> NDArray[np.int64]:
        """``[n]``: tokens of each document so far."""
        self.lengths = [np.concatenate([np.empty(0, np.int64), *self.lengths])]
        return self.lengths[0]


@dataclass
class _Encoded:
    """What became of tokens that no segment has yet."""

    ids: list[NDArray[Any]] = field(default_factory=list)
    codes: list[NDArray[Any]] = field(default_factory=list)
    scales: list[NDArray[Any]] = field(default_factory=list)
    tokens: int = 0

    def add(self, ids: NDArray[Any], codes: NDArray[Any], scales: NDArray[Any]) -> None:
        self.ids.append(ids)
        self.codes.append(codes)
        self.scales.append(scales)
        self.tokens += len(ids)

    def take(self, count: int) -> _Encoded:
        """The first ``count`` tokens, which are then no longer here."""
        taken = _Encoded()
        rows = [np.concatenate(parts) for parts in (self.ids, self.codes, self.scales)]
        taken.add(*(part[:count] for part in rows))
        self.ids, self.codes, self.scales = ([part[count:].copy()] for part in rows)
        self.tokens -= count
        return taken


def encode(
    passing: Passing,
    encoder: Encoder,
    store: Store,
    *,
    carried: Callable[[Segment], Segment],
    chunk: int,
    segment_tokens: int,
) -> tuple[list[Segment], NDArray[np.int64]]:
    """Writes all documents in segments of at most ``segment_tokens`` (a longer document is one by itself).

    Args:
        carried: called with each segment, to write what its documents carry besides tokens.

    Returns:
        The segments, and the tokens of each document.

    Raises:
        ValueError: a token that is zero or not finite; the message names it.
    """
    operators = passing.operators
    nearest = clustering.assigner(encoder.centroids, operators)
    waiting, segments = _Encoded(), list[Segment]()
    documents = read = 0  # in segments already; tokens read
    for part in cut(passing.tokens(), chunk, operators):
        tokens = operators.put(part)
        if first_bad_row(tokens, operators) is not None:
            check(tokens, np.concatenate([[0], np.cumsum(passing.all_lengths())]), operators, read)
        read += len(tokens)
        waiting.add(*encoder.encoded(tokens, nearest))
        while waiting.tokens > segment_tokens and (count := _documents(passing, documents, waiting, segment_tokens)):
            segments.append(carried(_put(waiting, passing, documents, count, encoder, store, len(segments))))
            documents += count
    while documents < passing.count:
        count = _documents(passing, documents, waiting, segment_tokens)
        segments.append(carried(_put(waiting, passing, documents, count, encoder, store, len(segments))))
        documents += count
    return segments, passing.all_lengths()


def _documents(passing: Passing, first: int, waiting: _Encoded, most: int) -> int:
    """How many documents, from ``first``, the next segment has, as `lateint.indexing.builder.cut_into_segments` has it.

    0: more tokens are needed to tell.
    """
    lengths = passing.all_lengths()[first:]
    count = int(np.searchsorted(np.cumsum(lengths + 1), most, side="right"))
    if count == 0 and len(lengths) and lengths[0] <= waiting.tokens:
        return 1
    return count


def _put(
    waiting: _Encoded, passing: Passing, first: int, count: int, encoder: Encoder, store: Store, number: int
) -> Segment:
    lengths = passing.all_lengths()[first : first + count]
    tokens = int(lengths.sum())
    if waiting.tokens == 0:
        part = _Encoded()
        part.add(np.empty(0, np.uint32), np.empty((0, encoder.code_bytes), np.uint8), np.empty(0, np.uint8))
    else:
        part = waiting.take(tokens)
    name = f"segments/{number:06d}"
    put(store, f"{name}/codes", part.codes[0])
    if encoder.nbits < 8:
        put(store, f"{name}/scales", part.scales[0])
    low, high = residual.split_ids(part.ids[0], len(encoder.centroids))
    put(store, f"{name}/centroid_ids", low)
    if high is not None:
        put(store, f"{name}/centroid_high", high)
    encoder.put_lists(part.ids[0], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), store, name)
    return Segment(name, count, tokens)
