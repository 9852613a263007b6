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
    return documents


def _read(source: Any, lengths: Any, *, allow_empty: bool, spool: Path | None) -> Documents:
    if isinstance(source, Ragged):
        return _Flat(_refuse_empty(source, allow_empty))
    if _is_array(source):
        array = lateint_kernels.as_array(source, "doc_embs")
        if array.ndim == 3:
            return _Flat(Ragged.from_padded(array, lengths, allow_empty=allow_empty))
        if array.ndim != 2:
            raise ValueError(f"doc_embs must be [T, dim] with lengths, or [n, L, dim], got {array.shape}")
        if lengths is None:
            raise ValueError("doc_embs is one [T, dim] array: say with lengths= where its documents end")
        return _Flat(Ragged.from_lengths(array, lengths, allow_empty=allow_empty))
    if lengths is not None:
        raise ValueError("lengths goes with a single array of tokens; these documents have lengths of their own")
    if isinstance(source, (list, tuple)):
        return _Listed(source, allow_empty)
    if not isinstance(source, Iterable):
        raise TypeError(f"doc_embs must be arrays, a list or an iterable of arrays, got {type(source).__name__}")
    if iter(source) is source:
        return _spooled(source, allow_empty, spool)
    return _Streamed(source, allow_empty)


def _is_array(source: Any) -> bool:
    return hasattr(source, "__dlpack__") or hasattr(source, "__array__")


def _refuse_empty(ragged: Ragged, allow_empty: bool) -> Ragged:
    """A Ragged may have been made with empty documents allowed; building decides for itself."""
    _check_lengths(ragged.lengths, allow_empty)
    return ragged


def _check_lengths(lengths: NDArray[np.int64], allow_empty: bool, first: int = 0) -> None:
    empty = np.flatnonzero(lengths == 0)
    if empty.size and not allow_empty:
        raise ValueError(
            f"document {first + int(empty[0])} has no tokens; pass allow_empty=True to keep such documents"
        )


class _Flat:
    """All tokens in one array, perhaps memory-mapped."""

    def __init__(self, ragged: Ragged) -> None:
        self.tokens, self.lengths, self.dim = ragged.tokens, ragged.lengths, ragged.dim

    def chunks(self, most: int) -> Iterator[Tokens]:
        for start in range(0, len(self.tokens), most):
            yield np.ascontiguousarray(self.tokens[start : start + most])

    def pilot(self, most: int) -> Tokens:
        rows = np.linspace(0, len(self.tokens) - 1, min(most, len(self.tokens))).astype(np.int64)
        return np.ascontiguousarray(self.tokens[rows])


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
        few = max(1, most // max(1, len(self.items)))
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
        pilot: list[NDArray[np.float32]] = []
        documents = 0
        for item in source:
            tokens, counts = _item(item, documents, self.dim)
            _check_lengths(counts, allow_empty, documents)
            self.dim = tokens.shape[1]
            lengths.append(counts)
            documents += len(counts)
            pilot.append(lateint_kernels.to_float32(tokens[:: max(1, len(tokens) // 64)][:64]))
            if len(pilot) > 4096:
                pilot = pilot[::2]
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self._pilot = pilot

    def chunks(self, most: int) -> Iterator[Tokens]:
        documents = 0
        for item in self.source:
            tokens, counts = _item(item, documents, self.dim)
            expected = self.lengths[documents : documents + len(counts)]
            if not np.array_equal(counts, expected):
                raise ValueError(f"doc_embs must give the same documents each time, but document {documents} changed")
            documents += len(counts)
            for start in range(0, len(tokens), most):
                yield np.ascontiguousarray(tokens[start : start + most])
        if documents != len(self.lengths):
            raise ValueError(f"doc_embs gave {len(self.lengths)} documents at first and {documents} the next time")

    def pilot(self, most: int) -> Tokens:
        return np.concatenate(self._pilot)[-most:]


def _spooled(source: Iterator[Any], allow_empty: bool, spool: Path | None) -> Documents:
    """Keeps what an iterator gives, on disk if there is a place for it."""
    if spool is None:
        parts = [_item(item, 0, -1) for item in source]
        if not parts:
            return _Streamed([], allow_empty)
        return _Streamed(parts, allow_empty)
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
    return _Flat(Ragged.from_lengths(tokens, counts, allow_empty=True))


def _cut(items: Iterator[Tokens], most: int) -> Iterator[Tokens]:
    """Joins small arrays and splits large ones: chunks of at most ``most`` rows."""
    held: list[Tokens] = []
    size = 0
    for item in items:
        start = 0
        while start < len(item):
            part = item[start : start + most - size]
            held.append(part)
            size += len(part)
            start += len(part)
            if size == most:
                yield _join(held)
                held, size = [], 0
    if held:
        yield _join(held)


def _join(parts: list[Tokens]) -> Tokens:
    if len({part.dtype for part in parts}) > 1:
        parts = [lateint_kernels.to_float32(part) for part in parts]
    return np.concatenate(parts)


def _item(item: Any, first: int, dim: int) -> tuple[Tokens, NDArray[np.int64]]:
    """One item of a stream: its tokens, and the lengths of the documents they belong to."""
    if isinstance(item, tuple) and len(item) == 2:
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
