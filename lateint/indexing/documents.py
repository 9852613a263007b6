"""Documents as users hand them over, seen as one stream of tokens that can be read again.

Whatever comes in (a list of arrays, a flat array with lengths, a padded batch, an iterable of either), building needs
three things of it: how long each document is, a sample of tokens, and all tokens in order, a chunk at a time.

Tokens stay where they are, on the host or on a device that the build's operators compute on, and in their own type.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import booleans
from lateint.indexing.pilot import Pilot, spread
from lateint_kernels import Ragged, as_array
from lateint_kernels.arrays import Array
from lateint_kernels.codes.building import HostOperators, Operators
from lateint_kernels.ragged import packed_lengths, padded_lengths

Tokens = Any  # ``[n, dim]``: an array of `as_array`, or what else `Operators.tokens` gives

Look = Callable[[Any, str], Tokens]  # `as_array`, or `Operators.tokens`

LARGEST_DIM = 4096


@runtime_checkable
class Documents(Protocol):
    """Documents with known lengths whose tokens can be streamed any number of times."""

    lengths: NDArray[np.int64]  # [n]
    dim: int

    def chunks(self, most: int) -> Iterator[Tokens]:
        """All tokens in order, ``[at most `most`, dim]`` at a time; a chunk is good until the next one is asked for."""
        ...

    def pilot(self, most: int) -> Tokens:
        """About ``most`` tokens spread over all documents, ``[m, dim]``."""
        ...


def read(
    source: Any,
    lengths: Any,
    *,
    allow_empty: bool,
    spool: Path | None,
    operators: Operators | None = None,
    mask: Any = None,
) -> Documents:
    """Makes `Documents` of whatever `Index.build` accepts, for ``operators`` (None: of the CPU).

    An iterator that can be run only once is written to the file ``spool`` first, or kept in memory without one.
    ``mask`` is ``[n, L]`` for a padded ``[n, L, dim]``, or a list of ``[L]`` for a list; nonzero where a token counts.
    """
    operators = HostOperators() if operators is None else operators
    if mask is None:
        documents = _read(source, lengths, allow_empty, spool, operators)
    else:
        documents = _masked(source, lengths, mask, allow_empty, operators)
    if len(documents.lengths) == 0 or documents.lengths.sum() == 0:
        raise ValueError(f"doc_embs must hold at least one token, got {len(documents.lengths)} documents without any")
    if not 1 <= documents.dim <= LARGEST_DIM:
        raise ValueError(f"doc_embs must have a dim from 1 to {LARGEST_DIM}, got {documents.dim}")
    return documents


def _read(source: Any, lengths: Any, allow_empty: bool, spool: Path | None, operators: Operators) -> Documents:
    if isinstance(source, Ragged) and lengths is None:
        return _Flat(operators.tokens(source.tokens, "doc_embs"), source.lengths, allow_empty)
    if _is_array(source):
        return _of_array(operators.tokens(source, "doc_embs"), lengths, allow_empty)
    if isinstance(source, Documents):
        _check_lengths(source.lengths, allow_empty)
        return source
    if lengths is not None:
        raise ValueError("lengths goes with a single array of tokens; these documents have lengths of their own")
    if isinstance(source, (list, tuple)) and not (source and _is_chunk(source[0])):
        return _Listed(source, allow_empty, operators)
    if not isinstance(source, Iterable) or isinstance(source, (str, bytes, dict)):
        raise TypeError(f"doc_embs must be arrays, a list or an iterable of arrays, got {type(source).__name__}")
    if iter(source) is source:
        return _spooled(source, allow_empty, spool, operators)
    return _Streamed(source, allow_empty, operators)


def _masked(source: Any, lengths: Any, mask: Any, allow_empty: bool, operators: Operators) -> Documents:
    if lengths is not None:
        raise ValueError("mask says how long documents are: leave out lengths")
    if _is_array(source):
        tokens = operators.tokens(source, "doc_embs")
        if tokens.ndim != 3:
            raise ValueError(f"mask goes with padded documents [n, L, dim] or a list, got {tuple(tokens.shape)}")
        return _Masked(tokens, booleans(mask, tuple(tokens.shape[:2])), allow_empty)
    if not isinstance(source, (list, tuple)):
        raise ValueError(f"mask goes with padded documents [n, L, dim] or a list, got {type(source).__name__}")
    if len(source) != len(masks := list(mask)):
        raise ValueError(f"mask must have one row for each document, got {len(masks)} for {len(source)} documents")
    kept = []
    for i, (item, one) in enumerate(zip(source, masks, strict=True)):
        tokens = _document(item, i, -1, operators.tokens)
        kept.append(tokens[booleans(one, tuple(tokens.shape[:1])).nonzero()[0]])
    return _Listed(kept, allow_empty, operators)


def _of_array(tokens: Any, lengths: Any, allow_empty: bool) -> Documents:
    shape = tuple(tokens.shape)
    if len(shape) == 3:
        counts = np.full(shape[0], shape[1]) if lengths is None else padded_lengths(lengths, *shape[:2])
        return _Padded(tokens, counts, allow_empty)
    if len(shape) != 2:
        raise ValueError(f"doc_embs must be [T, dim] with lengths, or [n, L, dim], got {shape}")
    if lengths is None:
        raise ValueError("doc_embs is one [T, dim] array: say with lengths= where its documents end")
    return _Flat(tokens, packed_lengths(lengths, len(tokens)), allow_empty)


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

    def __init__(self, tokens: Tokens, lengths: NDArray[np.int64], allow_empty: bool) -> None:
        _check_lengths(lengths, allow_empty)
        self.tokens, self.lengths, self.dim = tokens, lengths, tokens.shape[1]

    def chunks(self, most: int) -> Iterator[Tokens]:
        return (self.tokens[start : start + most] for start in range(0, len(self.tokens), most))

    def pilot(self, most: int) -> Tokens:
        return self.tokens[spread(len(self.tokens), most)]


class _Padded:
    """``[n, L, dim]``, of which the first tokens of each document count: they are picked a chunk at a time."""

    def __init__(self, padded: Any, lengths: NDArray[np.int64], allow_empty: bool) -> None:
        _check_lengths(lengths, allow_empty)
        self.padded, self.lengths, self.dim = padded, lengths, padded.shape[2]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])

    def chunks(self, most: int) -> Iterator[Tokens]:
        total = int(self.offsets[-1])
        return (self._at(np.arange(start, min(start + most, total))) for start in range(0, total, most))

    def pilot(self, most: int) -> Tokens:
        return self._at(spread(int(self.offsets[-1]), most))

    def _at(self, numbers: NDArray[np.int64]) -> Tokens:
        document = np.searchsorted(self.offsets, numbers, side="right") - 1
        return self.padded[document, numbers - self.offsets[document]]


class _Masked(_Padded):
    """``[n, L, dim]``, of which the tokens count where ``mask [n, L]`` says so: padding may be on either side."""

    def __init__(self, padded: Any, mask: NDArray[np.bool_], allow_empty: bool) -> None:
        super().__init__(padded, mask.sum(1, dtype=np.int64), allow_empty)
        self.rows = np.flatnonzero(mask)

    def _at(self, numbers: NDArray[np.int64]) -> Tokens:
        document, token = np.divmod(self.rows[numbers], self.padded.shape[1])
        return self.padded[document, token]


class _Listed:
    """A list of ``[Ld, dim]`` arrays."""

    def __init__(self, items: list[Any] | tuple[Any, ...], allow_empty: bool, operators: Operators) -> None:
        self.items, self.operators = items, operators
        self.dim, self.lengths = -1, np.zeros(len(items), np.int64)
        for i, item in enumerate(items):
            tokens = _document(item, i, self.dim, operators.tokens)
            self.dim, self.lengths[i] = tokens.shape[1], len(tokens)
        _check_lengths(self.lengths, allow_empty)

    def chunks(self, most: int) -> Iterator[Tokens]:
        return cut((self._tokens(i, item) for i, item in enumerate(self.items)), most, self.operators)

    def _tokens(self, i: int, item: Any) -> Tokens:
        return _document(item, i, self.dim, self.operators.tokens)

    def pilot(self, most: int) -> Tokens:
        filled = np.flatnonzero(self.lengths)
        few = max(1, most // len(filled))
        some = filled[:: max(1, len(filled) // most)]
        steps = np.maximum(1, self.lengths[some] // few)
        parts = (self._tokens(i, self.items[i])[::step][:few] for i, step in zip(some.tolist(), steps, strict=True))
        return _joined(parts, int(np.minimum(few, -(-self.lengths[some] // steps)).sum()), self.operators)


class _Streamed:
    """An iterable that starts afresh each time: of ``[Ld, dim]`` documents, of (tokens, lengths), or of Ragged."""

    def __init__(self, source: Iterable[Any], allow_empty: bool, operators: Operators) -> None:
        self.source, self.operators = source, operators
        self.dim = -1
        lengths = array("q")
        self._pilot = Pilot()
        documents = 0
        for item in source:
            tokens, counts = _item(item, documents, self.dim, operators.tokens)
            _check_lengths(counts, allow_empty, documents)
            self.dim = tokens.shape[1]
            lengths.frombytes(counts.tobytes())
            documents += len(counts)
            self._pilot.add(tokens)
        self.lengths = np.array(lengths, np.int64)

    def chunks(self, most: int) -> Iterator[Tokens]:
        return cut(self._tokens(), most, self.operators)

    def _tokens(self) -> Iterator[Tokens]:
        documents = 0
        for item in self.source:
            tokens, counts = _item(item, documents, self.dim, self.operators.tokens)
            expected = self.lengths[documents : documents + len(counts)]
            if not np.array_equal(counts, expected):
                raise ValueError(f"doc_embs must give the same documents each time, but document {documents} changed")
            documents += len(counts)
            yield tokens
        if documents != len(self.lengths):
            raise ValueError(f"doc_embs gave {len(self.lengths)} documents at first and {documents} the next time")

    def pilot(self, most: int) -> Tokens:
        parts = self._pilot.parts
        ends = np.cumsum([len(part) for part in parts])
        rows = spread(int(ends[-1]), most)
        of_parts = zip(parts, ends, np.split(rows, np.searchsorted(rows, ends[:-1])), strict=True)
        return _joined((part[some - end + len(part)] for part, end, some in of_parts), len(rows), self.operators)


def kept(source: Iterator[tuple[Array, NDArray[np.int64]]], spool: Path | None, operators: Operators) -> Documents:
    """Tokens and lengths, checked already, on the host: in the file ``spool``, or in memory without one."""
    if spool is not None:
        return _spooled(source, True, spool, operators)
    tokens, lengths = zip(*source, strict=True)
    return _Flat(np.concatenate(tokens), np.concatenate(lengths), allow_empty=True)


def _spooled(source: Iterator[Any], allow_empty: bool, spool: Path | None, operators: Operators) -> Documents:
    """Keeps what an iterator gives on the host, on disk if there is a place for it."""
    if spool is None:
        return _Streamed(list(_copies(source)), allow_empty, operators)
    lengths = array("q")
    dim, dtype, documents = -1, None, 0
    with spool.open("wb") as file:
        for item in source:
            tokens, counts = _item(item, documents, dim, as_array)
            if dtype is not None and tokens.dtype != dtype:
                raise TypeError(f"document {documents} has {tokens.dtype}, those before it {dtype}")
            _check_lengths(counts, allow_empty, documents)
            dim, dtype = tokens.shape[1], tokens.dtype
            lengths.frombytes(counts.tobytes())
            documents += len(counts)
            file.write(tokens.tobytes())
    if dtype is None or os.path.getsize(spool) == 0:
        return _Streamed([], allow_empty, operators)
    counts = np.array(lengths, np.int64)
    tokens = np.memmap(spool, dtype, "r", shape=(int(counts.sum()), dim))
    return _Flat(as_array(tokens, "doc_embs"), counts, allow_empty)


def _copies(source: Iterator[Any]) -> Iterator[tuple[Tokens, NDArray[np.int64]]]:
    """What an iterator gives, which may use the same memory again for the next item."""
    documents, dim = 0, -1
    for item in source:
        tokens, counts = _item(item, documents, dim, as_array)
        documents, dim = documents + len(counts), tokens.shape[1]
        yield tokens.copy(), counts


def _joined(parts: Iterator[Tokens], total: int, operators: Operators) -> Tokens:
    return next(cut(parts, total, operators, small=total + 1))


def cut(items: Iterator[Tokens], most: int, operators: Operators, *, small: int | None = None) -> Iterator[Tokens]:
    """Joins small arrays into chunks of ``most`` rows, and splits large ones into equal parts of no more.

    What is joined is copied, for a source may use its memory again for the next item. Rows become float32 where one
    item has another type than those before it, or is in another place, so that its dtype is of another library.

    Args:
        small: arrays of fewer rows are joined; None: those of less than half a chunk.
    """
    small = most // 2 if small is None else small
    buffer: Tokens = None
    size = 0
    for item in items:
        if buffer is None:
            buffer = operators.room(most, item)
        elif item.dtype != buffer.dtype:
            item = operators.to_float32(item)
            if item.dtype != buffer.dtype:
                held, buffer = buffer[:size], operators.room(most, item)
                buffer[:size] = operators.to_float32(held)
        if len(item) >= small:
            if size:
                yield buffer[:size]
                buffer, size = operators.room(most, buffer), 0
            parts = -(-len(item) // most)
            for part in range(parts):
                yield item[part * len(item) // parts : (part + 1) * len(item) // parts]
            continue
        start = 0
        while start < len(item):
            part = item[start : start + most - size]
            start += len(part)
            if len(part) == most:
                yield part
                continue
            buffer[size : size + len(part)] = part
            size += len(part)
            if size == most:
                yield buffer
                buffer, size = operators.room(most, buffer), 0
    if buffer is not None and size:
        yield buffer[:size]


def item_of(
    item: Any, first: int, dim: int, operators: Operators, allow_empty: bool
) -> tuple[Tokens, NDArray[np.int64]]:
    """Tokens and lengths of one item of an iterable, which begins with document ``first``."""
    tokens, lengths = _item(item, first, dim, operators.tokens)
    _check_lengths(lengths, allow_empty, first)
    return tokens, lengths


def _item(item: Any, first: int, dim: int, look: Look) -> tuple[Tokens, NDArray[np.int64]]:
    """One item of a stream: its tokens, and the lengths of the documents they belong to."""
    if isinstance(item, Ragged):
        return _document(item.tokens, first, dim, look), item.lengths
    if _is_chunk(item):
        tokens = _document(item[0], first, dim, look)
        return tokens, packed_lengths(item[1], len(tokens))
    tokens = _document(item, first, dim, look)
    return tokens, np.array([len(tokens)], np.int64)


def _document(item: Any, number: int, dim: int, look: Look) -> Tokens:
    tokens = look(item, f"document {number}")
    if tokens.ndim != 2:
        raise ValueError(f"document {number} must be [Ld, dim], got {tuple(tokens.shape)}")
    if dim >= 0 and tokens.shape[1] != dim:
        raise ValueError(f"document {number} has dim {tokens.shape[1]}, those before it {dim}")
    return tokens
