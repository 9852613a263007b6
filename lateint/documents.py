"""Documents as users hand them over, seen as one stream of tokens that can be read again.

Whatever comes in (a list of arrays, a flat array with lengths, a padded batch, an iterable of either), building needs
three things of it: how long each document is, a sample of tokens, and all tokens in order, a chunk at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import lateint_kernels
from lateint_kernels import Ragged

Tokens = NDArray[Any]

LARGEST_DIM = 4096


class Documents(Protocol):
    """Documents with known lengths whose tokens can be streamed any number of times."""

    lengths: NDArray[np.int64]  # [n]
    dim: int

    def chunks(self, most: int) -> Iterator[Tokens]:
        """All tokens in order, ``[at most `most`, dim]`` at a time."""
        ...

    def pilot(self, most: int) -> Tokens:
        """About ``most`` tokens spread over all documents, ``[m, dim]``."""
        ...


def read(source: Any, lengths: Any, *, allow_empty: bool, spool: Path | None) -> Documents:
    """Makes `Documents` of whatever `Index.build` accepts.

    An iterator that can be run only once is written to the file ``spool`` first, or kept in memory without one.
    """
    documents = _read(source, lengths, allow_empty=allow_empty, spool=spool)
    if len(documents.lengths) == 0 or documents.lengths.sum() == 0:
        raise ValueError(f"doc_embs must hold at least one token, got {len(documents.lengths)} documents without any")
    if not 1 <= documents.dim <= LARGEST_DIM:
        raise ValueError(f"doc_embs must have a dim from 1 to {LARGEST_DIM}, got {documents.dim}")
    return documents


def _read(source: Any, lengths: Any, *, allow_empty: bool, spool: Path | None) -> Documents:
    if isinstance(source, Ragged) and lengths is None:
        return _Flat(source, allow_empty)
    if _is_array(source):
        array = lateint_kernels.as_array(source, "doc_embs")
        if array.ndim == 3:
            return _Flat(Ragged.from_padded(array, lengths, allow_empty=True), allow_empty)
        if array.ndim != 2:
            raise ValueError(f"doc_embs must be [T, dim] with lengths, or [n, L, dim], got {array.shape}")
        if lengths is None:
            raise ValueError("doc_embs is one [T, dim] array: say with lengths= where its documents end")
        return _Flat(Ragged.from_lengths(array, lengths, allow_empty=True), allow_empty)
    if lengths is not None:
        raise ValueError("lengths goes with a single array of tokens; these documents have lengths of their own")
    if isinstance(source, (list, tuple)) and not (source and _is_chunk(source[0])):
        return _Listed(source, allow_empty)
    if not isinstance(source, Iterable) or isinstance(source, (str, bytes, dict)):
        raise TypeError(f"doc_embs must be arrays, a list or an iterable of arrays, got {type(source).__name__}")
    if iter(source) is source:
        return _spooled(source, allow_empty, spool)
    return _Streamed(source, allow_empty)


def _is_array(source: Any) -> bool:
    return hasattr(source, "__dlpack__") or hasattr(source, "__array__")


def _is_chunk(item: Any) -> bool:
    """Whether an item of a stream is several documents: a Ragged, or (tokens, lengths)."""
    return isinstance(item, Ragged) or (isinstance(item, tuple) and len(item) == 2 and _is_array(item[0]))


def _check_lengths(lengths: NDArray[np.int64], allow_empty: bool, first: int = 0) -> None:
    empty = np.flatnonzero(lengths == 0)
    if empty.size and not allow_empty:
        raise ValueError(
            f"document {first + int(empty[0])} has no tokens; pass allow_empty=True to keep such documents"
        )


class _Flat:
    """All tokens in one array, perhaps memory-mapped."""

    def __init__(self, ragged: Ragged, allow_empty: bool) -> None:
        _check_lengths(ragged.lengths, allow_empty)
        lateint_kernels.as_array(ragged.tokens, "doc_embs")  # refuses int8, which a Ragged may hold
        self.tokens, self.lengths, self.dim = ragged.tokens, ragged.lengths, ragged.dim

    def chunks(self, most: int) -> Iterator[Tokens]:
        for start in range(0, len(self.tokens), most):
            yield np.ascontiguousarray(self.tokens[start : start + most])

    def pilot(self, most: int) -> Tokens:
        return np.ascontiguousarray(self.tokens[_spread(len(self.tokens), most)])


class _Listed:
    """A list of ``[Ld, dim]`` arrays."""

    def __init__(self, items: list[Any] | tuple[Any, ...], allow_empty: bool) -> None:
        self.items = items
        self.dim, self.lengths = -1, np.zeros(len(items), np.int64)
        for i, item in enumerate(items):
            tokens = _document(item, i, self.dim)
            self.dim, self.lengths[i] = tokens.shape[1], len(tokens)
        _check_lengths(self.lengths, allow_empty)

    def chunks(self, most: int) -> Iterator[Tokens]:
        return _cut((_document(item, i, self.dim) for i, item in enumerate(self.items)), most)

    def pilot(self, most: int) -> Tokens:
        few = max(1, most // len(self.items))
        step = max(1, len(self.items) // most)
        parts = [
            _document(self.items[i], i, self.dim)[:: max(1, int(self.lengths[i]) // few)][:few]
            for i in range(0, len(self.items), step)
        ]
        return np.concatenate([lateint_kernels.to_float32(part) for part in parts])


class _Streamed:
    """An iterable that starts afresh each time: of ``[Ld, dim]`` documents, of (tokens, lengths), or of Ragged."""

    def __init__(self, source: Iterable[Any], allow_empty: bool) -> None:
        self.source = source
        self.dim = -1
        lengths: list[NDArray[np.int64]] = []
        self._pilot: list[NDArray[np.float32]] = []  # up to 64 tokens of every `stride`-th item
        documents, stride = 0, 1
        for number, item in enumerate(source):
            tokens, counts = _item(item, documents, self.dim)
            _check_lengths(counts, allow_empty, documents)
            self.dim = tokens.shape[1]
            lengths.append(counts)
            documents += len(counts)
            if number % stride == 0:
                rows = _spread(len(tokens), 64)
                self._pilot.append(lateint_kernels.to_float32(tokens[rows]).copy())
            if len(self._pilot) == 4096:
                self._pilot, stride = self._pilot[::2], 2 * stride
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)

    def chunks(self, most: int) -> Iterator[Tokens]:
        return _cut(self._tokens(), most)

    def _tokens(self) -> Iterator[Tokens]:
        documents = 0
        for item in self.source:
            tokens, counts = _item(item, documents, self.dim)
            expected = self.lengths[documents : documents + len(counts)]
            if not np.array_equal(counts, expected):
                raise ValueError(f"doc_embs must give the same documents each time, but document {documents} changed")
            documents += len(counts)
            yield tokens
        if documents != len(self.lengths):
            raise ValueError(f"doc_embs gave {len(self.lengths)} documents at first and {documents} the next time")

    def pilot(self, most: int) -> Tokens:
        tokens = np.concatenate(self._pilot)
        return tokens[_spread(len(tokens), most)]


def _spooled(source: Iterator[Any], allow_empty: bool, spool: Path | None) -> Documents:
    """Keeps what an iterator gives, on disk if there is a place for it."""
    if spool is None:
        return _Streamed(list(_copies(source)), allow_empty)
    lengths: list[NDArray[np.int64]] = []
    dim, dtype, documents = -1, None, 0
    with spool.open("wb") as file:
        for item in source:
            tokens, counts = _item(item, documents, dim)
            if dtype is not None and tokens.dtype != dtype:
                raise TypeError(f"document {documents} has {tokens.dtype}, those before it {dtype}")
            _check_lengths(counts, allow_empty, documents)
            dim, dtype = tokens.shape[1], tokens.dtype
            lengths.append(counts)
            documents += len(counts)
            file.write(np.ascontiguousarray(tokens).tobytes())
    if dtype is None or os.path.getsize(spool) == 0:
        return _Streamed([], allow_empty)
    counts = np.concatenate(lengths)
    tokens = np.memmap(spool, dtype, "r", shape=(int(counts.sum()), dim))
    return _Flat(Ragged.from_lengths(tokens, counts, allow_empty=True), allow_empty)


def _copies(source: Iterator[Any]) -> Iterator[tuple[Tokens, NDArray[np.int64]]]:
    """What an iterator gives, which may use the same memory again for the next item."""
    documents, dim = 0, -1
    for item in source:
        tokens, counts = _item(item, documents, dim)
        documents, dim = documents + len(counts), tokens.shape[1]
        yield tokens.copy(), counts


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` of n rows, evenly spread."""
    return np.linspace(0, n - 1, min(most, n)).astype(np.int64)


def _cut(items: Iterator[Tokens], most: int) -> Iterator[Tokens]:
    """Joins small arrays and splits large ones: chunks of ``most`` rows, but for the last.

    What is joined is copied, for a source may use its memory again for the next item.
    """
    buffer: Tokens | None = None
    size = 0
    for item in items:
        if buffer is None:
            buffer = np.empty((most, item.shape[1]), item.dtype)
        elif item.dtype != buffer.dtype:
            held, buffer = buffer, np.empty(buffer.shape, np.float32)
            buffer[:size] = lateint_kernels.to_float32(held[:size])
        if item.dtype != buffer.dtype:
            item = lateint_kernels.to_float32(item)
        start = 0
        while start < len(item):
            part = item[start : start + most - size]
            start += len(part)
            if len(part) == most:
                yield np.ascontiguousarray(part)
                continue
            buffer[size : size + len(part)] = part
            size += len(part)
            if size == most:
                yield buffer
                buffer, size = np.empty_like(buffer), 0
    if buffer is not None and size:
        yield buffer[:size]


def _item(item: Any, first: int, dim: int) -> tuple[Tokens, NDArray[np.int64]]:
    """One item of a stream: its tokens, and the lengths of the documents they belong to."""
    if isinstance(item, tuple) and _is_chunk(item):
        item = Ragged.from_lengths(item[0], item[1], allow_empty=True)
    if isinstance(item, Ragged):
        return _document(item.tokens, first, dim), item.lengths
    tokens = _document(item, first, dim)
    return tokens, np.array([len(tokens)], np.int64)


def _document(item: Any, number: int, dim: int) -> Tokens:
    tokens = lateint_kernels.as_array(item, f"document {number}")
    if tokens.ndim != 2:
        raise ValueError(f"document {number} must be [Ld, dim], got {tokens.shape}")
    if dim >= 0 and tokens.shape[1] != dim:
        raise ValueError(f"document {number} has dim {tokens.shape[1]}, those before it {dim}")
    return tokens
