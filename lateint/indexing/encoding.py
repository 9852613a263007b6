"""The encoding pass of a build: all tokens once more, checked, turned into codes and lists, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.store import Store, put
from lateint.indexing import clustering
from lateint.indexing.codec import Codec
from lateint.timings import Timings
from lateint.warning import warn
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import Operators

TOLERATED_OVERFLOW = 1.25  # by how much a component may exceed the step's reach before a build warns


def first_bad_row(tokens: Any, operators: Operators) -> tuple[int, str] | None:
    """A row that no score can be made of, and why."""
    nonfinite, zero = operators.bad_rows(tokens)
    if nonfinite is not None:
        return nonfinite, "holds a NaN or an infinity"
    return None if zero is None else (zero, "is all zero, as padding is")


def check(tokens: Any, offsets: NDArray[np.int64], operators: Operators, first: int) -> None:
    """Refuses rows that no score can be made of. ``first`` is the number of the first row in the stream."""
    if bad := first_bad_row(tokens, operators):
        row, what = first + bad[0], bad[1]
        document = int(np.searchsorted(offsets, row, side="right")) - 1
        raise ValueError(
            f"doc_embs must be finite and not zero, but token {row - offsets[document]} of document {document} {what}"
        )


class Overflow:
    """Counts tokens with components that a byte cannot hold, which are cut."""

    def __init__(self) -> None:
        self.tokens, self.most = 0, 1.0

    def add(self, peaks: NDArray[np.float32]) -> None:
        """Counts tokens whose largest components these are."""
        self.tokens += len(peaks)
        self.most = max(self.most, float(peaks.max(initial=0)) / 127)

    def warn(self, total: int) -> None:
        """Says how many there were."""
        if self.tokens:
            warn(
                f"{self.tokens:,} of {total:,} tokens have components up to {self.most:.3g} times what codes can hold "
                "and were cut, so scores with them come out too small; embeddings of about equal norms avoid this"
            )


class Stream:
    """All tokens of a build once more, put where operators compute, in pieces of any size, checked as they pass."""

    def __init__(
        self, lengths: NDArray[np.int64], chunks: Iterator[Any], operators: Operators, *, skipped: int = 0
    ) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.chunks, self.operators = _after(chunks, skipped), operators
        self.held: Any = ()
        self.passed = skipped

    def take(self, most: int) -> Any:
        """The next tokens, at least one and at most ``most``."""
        if len(self.held) == 0:
            held = next(self.chunks, None)
            if held is None:
                raise ValueError("doc_embs gave fewer tokens the last time than the first")
            self.held = self.operators.put(held)
            check(self.held, self.offsets, self.operators, self.passed)
            self.passed += len(self.held)
        part, self.held = self.held[:most], self.held[most:]
        return part

    def close(self) -> None:
        """Runs the stream to its end, which checks that it has no more documents than it said."""
        for _ in self.chunks:
            raise ValueError("doc_embs gave more tokens the last time than the first")


def _after(chunks: Iterator[Any], skipped: int) -> Iterator[Any]:
    """The chunks without so many tokens at their front."""
    for chunk in chunks:
        if skipped < len(chunk):
            yield chunk[skipped:]
        skipped = max(0, skipped - len(chunk))


class Encoder:
    """Turns the stream into segments, a chunk at a time.

    Args:
        nearest: `clustering.assigner` of the codec's centroids; None: it is made for each segment.
        measure: called with bytes ``[n, depth]`` and centroids ``[n]`` of all tokens, where operators compute.
    """

    def __init__(
        self,
        codec: Codec,
        operators: Operators,
        timings: Timings,
        *,
        nearest: Callable[[Any], Any] | None = None,
        measure: Callable[[Any, Any], None] | None = None,
    ) -> None:
        rotation = codec.rotation
        self.rotate = operators.rotation(rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
        self.centroids = codec.centroids.on_place(operators)
        self.nbits, self.code_bytes = codec.nbits, rotation.width * codec.nbits // 8
        self.nearest, self.measure = nearest, measure
        self.operators, self.timings = operators, timings
        self.overflow = Overflow()

    def segment(
        self,
        lengths: NDArray[np.int64],
        stream: Stream,
        store: Store,
        name: str,
        *,
        ids: NDArray[np.uint32] | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Writes the documents of these lengths, which come next in the stream.

        Args:
            ids: centroids of the first tokens, which are written already; the stream goes on behind them.
            report: called with how many tokens are written.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens, timings = int(offsets[-1]), self.timings
        with timings.of("assign"):
            nearest = self.nearest or clustering.assigner(self.centroids, self.operators)
        centroid_ids = np.empty(tokens, np.uint32)
        done = 0 if ids is None else len(ids)
        centroid_ids[:done] = 0 if ids is None else ids
        codes = store.create(f"{name}/codes", np.uint8, (tokens, self.code_bytes))
        scales = store.create(f"{name}/scales", np.uint8, (tokens,)) if self.nbits < 8 else None
        low = store.create(f"{name}/centroid_ids", np.uint16, (tokens,))
        high = store.create(f"{name}/centroid_high", np.uint8, (tokens,)) if self._long_ids else None
        while done < tokens:
            with timings.of("input"):
                part = stream.take(tokens - done)
            found, code, scale = self.encoded(part, nearest)
            with timings.of("write"):
                codes.write(code)
                if scales is not None:
                    scales.write(scale)
                lower, upper = residual.split_ids(found, len(self.centroids))
                low.write(lower)
                if high is not None and upper is not None:
                    high.write(upper)
            centroid_ids[done : done + len(part)] = found
            done += len(part)
            report(done)
        self.put_lists(centroid_ids, offsets, store, name)

    @property
    def _long_ids(self) -> bool:
        return residual.split_ids(np.empty(0, np.uint32), len(self.centroids))[1] is not None

    def encoded(self, tokens: Any, nearest: Callable[[Any], Any]) -> list[NDArray[Any]]:
        """Ids, codes and scales of tokens, which are waited for before the clock is read."""
        operators, timings = self.operators, self.timings
        with timings.of("rotate"):
            scaled = self.rotate(tokens)
            rows = operators.to_bytes(scaled)
            self.overflow.add(operators.peaks(rows, scaled, 127 * TOLERATED_OVERFLOW))
        with timings.of("assign"):
            ids = nearest(rows)
            host_ids = operators.host(ids)
            if self.measure is not None:
                self.measure(rows, ids)
        with timings.of("encode"):
            coded = operators.encode(scaled, ids, self.centroids.rows, self.nbits)
            return [host_ids, *map(operators.host, coded)]

    def put_lists(self, centroid_ids: NDArray[np.uint32], offsets: NDArray[np.int64], store: Store, name: str) -> None:
        """Writes offsets and inverted lists of a segment."""
        count = len(self.centroids)
        with self.timings.of("lists"):
            list_offsets, list_documents = self.operators.invert(centroid_ids, offsets, count)
        with self.timings.of("write"):
            put(store, f"{name}/offsets", offsets)
            put(store, f"{name}/list_offsets", list_offsets)
            put(store, f"{name}/list_documents", list_documents)
