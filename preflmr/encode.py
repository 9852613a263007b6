"""Texts and pictures to token embeddings: batched, in order, in memory that does not grow with the collection.

Documents are read a window at a time, sorted by length inside it so that a batch holds little padding, and handed out
in the order in which they came. Rows that a model masks are left out, so what comes out goes straight into an index:

    Index.build(encode_documents(model, texts), "my_index")

A stream of documents runs once. `lateint.Index.build` writes such a stream to disk as it goes, next to the index, so
every document is encoded once and never are all of them in memory.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice, repeat, zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from preflmr.data.images import Images
from preflmr.encoding.workers import Job, Settings, devices, identity, results
from preflmr.retrievers import DOCUMENT, QUERY, Retriever, adapted

DTYPES = {
    None: None,
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    torch.float32: None,
    torch.bfloat16: torch.bfloat16,
    torch.float16: torch.float16,
}
HANDED_OUT = 256  # documents in one item of a stream
# Tokens that each document of a full batch may have: where caches are small, so are batches. On one core, MiniLM takes
# less time for 2,048 tokens at once than for 8,192 (benchmarks/bench_encode.py).
BUDGET = {"cpu": 32}
LARGE_BUDGET = 128


def encode_queries(
    model: Any,
    texts: Iterable[str],
    images: Iterable[Any] | None = None,
    *,
    batch_size: int = 64,
    dtype: Any = None,
    device: Any = None,
    progress: bool = True,
    processes: int = 1,
    image_source: Images | None = None,
    text_rows: bool | None = None,
    vision_rows: bool | None = None,
) -> list[NDArray[np.float32]]:
    """The rows of each query that take part in its score, ``[Lq, dim]`` float32.

    Args:
        model: a `PreFLMR` with its tokenizers, or a `preflmr.retrievers.Retriever`.
        texts: whole queries, instruction included: see `preflmr.instructions.join`.
        images: one item a query: a PIL image, a path, a list of these, or None, which stands for the blank picture of
            the published evaluation. Without ``images`` queries are made of text rows alone.
        batch_size: queries at once.
        dtype: ``"bfloat16"`` or ``"float16"`` to compute in that type where autocast does; None: float32.
        device: where to encode; the model moves there. None: where it is. A list of devices is given to
            ``processes`` in turn; None gives them all GPUs in turn if the model is on one.
        progress: show a progress bar on standard error.
        processes: worker processes, each with a copy of the model; 1: none, encode here.
        image_source: where paths are looked up; None: in the working folder.
        text_rows, vision_rows: whether these rows take part; None: as the model's configuration says.

    Raises:
        TypeError, ValueError: a text is not a string, there are not as many images as texts, or a query has neither
            words nor a picture. The message names the query.
        MissingImage, BrokenImage: the message names query and picture.
        RuntimeError: the model or a worker failed; the message says at which queries.

    Warns:
        UserWarning: texts were cut to the length that the model reads; the message counts them.
    """
    settings = Settings(_dtype(dtype), np.dtype(np.float32), image_source)
    _check(batch_size=batch_size, processes=processes)
    retriever = adapted(model)
    retriever.check(QUERY)
    given = list(_paired(texts, images, "query"))
    for number, (text, pictures) in enumerate(given):
        if not text.strip() and not any(picture is not None for picture in pictures):
            raise ValueError(f"query {number} has neither words nor a picture")
    if images is not None:
        given = [(text, pictures or (None,)) for text, pictures in given]
    options: dict[str, bool] = {}
    if text_rows is not None:
        options["text"] = text_rows
    if vision_rows is not None:
        options["vision"] = vision_rows

    cut = 0

    def jobs() -> Iterator[Job]:
        nonlocal cut
        for numbers in _same_pictures([pictures for _, pictures in given], batch_size):
            before = retriever.truncated[QUERY]
            items = retriever.tokenized(QUERY, [given[n][0] for n in numbers]).items
            cut += retriever.truncated[QUERY] - before
            pictures = None if images is None else tuple(given[n][1] for n in numbers)
            yield Job(QUERY, tuple(numbers), items, pictures, options)

    encoded: list[Any] = [None] * len(given)
    with tqdm(total=len(given), desc="encode", unit="query", disable=not progress) as bar:
        for job, (rows, lengths) in results(retriever, jobs(), settings, processes=processes, device=device):
            for number, part in zip(job.numbers, np.split(rows, np.cumsum(lengths)[:-1]), strict=True):
                encoded[number] = part
            bar.update(len(job.numbers))
    _warn_cut(cut, len(given), "queries")
    return encoded


def encode_documents(
    model: Any,
    texts: Iterable[str],
    images: Iterable[Any] | None = None,
    *,
    batch_size: int = 64,
    window: int = 4096,
    dtype: Any = None,
    device: Any = None,
    progress: bool = True,
    processes: int = 1,
    image_source: Images | None = None,
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """A stream of (tokens ``[T, dim]``, lengths ``[n]``), documents in the order of ``texts``.

    Args:
        model: as in `encode_queries`.
        texts: any iterable, read ``window`` documents at a time (two windows with several processes).
        images: one item a document, as in `encode_queries`; the mapping of the whole picture makes rows of it, also
            where the model's configuration leaves pictures of documents out. A document with None is made of its text
            rows alone.
        batch_size: documents at once, but no more than ``batch_size`` times 128 tokens with their padding, or times 32
            on the CPU, whose caches are small.
        window: documents sorted by length at a time, and held in memory.
        dtype: ``"bfloat16"`` or ``"float16"`` to compute in that type where autocast does, and to get float16 tokens;
            None: float32.
        device, progress, processes, image_source: as in `encode_queries`.

    Raises:
        As `encode_queries`, while the stream is read: a document must have words, or a picture.

    Warns:
        UserWarning: at the end, if texts were cut to the length that the model reads; the message counts them.
    """
    precision = _dtype(dtype)
    settings = Settings(precision, np.dtype(np.float32 if precision is None else np.float16), image_source)
    _check(batch_size=batch_size, processes=processes, window=window)
    retriever = adapted(model)
    retriever.check(DOCUMENT)
    if images is not None and not retriever.reading.pictures:
        raise ValueError("images must be left out: this model reads no pictures")
    source = _paired(texts, images, "document")
    bar = tqdm(
        total=len(texts) if isinstance(texts, Sized) else None, desc="encode", unit="passage", disable=not progress
    )
    kind = devices(retriever.model, device, 1)[0].partition(":")[0]
    most = batch_size, batch_size * BUDGET.get(kind, LARGE_BUDGET)
    return _stream(retriever, source, settings, bar, most, window, processes, device)


@dataclass
class _Window:
    """Documents being encoded: the rows of each, filled in by batches; ``missing`` counts those to come."""

    first: int
    rows: list[Any]
    missing: int


def _stream(
    retriever: Retriever,
    source: Iterator[tuple[str, tuple[Any, ...]]],
    settings: Settings,
    bar: Any,
    most: tuple[int, int],
    window: int,
    processes: int,
    device: Any,
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    read = cut = 0
    windows: deque[_Window] = deque()

    def jobs() -> Iterator[Job]:
        nonlocal read, cut
        while given := list(islice(source, window)):
            first, read = read, read + len(given)
            for number, (text, pictures) in enumerate(given, first):
                if not text.strip() and not pictures:
                    raise ValueError(f"document {number} is empty")
            windows.append(_Window(first, [None] * len(given), len(given)))
            before = retriever.truncated[DOCUMENT]
            items, lengths = retriever.tokenized(DOCUMENT, [text for text, _ in given])
            cut += retriever.truncated[DOCUMENT] - before
            counts = np.array([len(pictures) for _, pictures in given])
            for chosen in _batches(lengths, counts, *most):
                seen = tuple(given[i][1] for i in chosen) if counts[chosen[0]] else None
                options = {"vision": True} if seen else {}
                yield Job(DOCUMENT, tuple((chosen + first).tolist()), [items[i] for i in chosen], seen, options)

    with bar, closing(results(retriever, jobs(), settings, processes=processes, device=device)) as encoded:
        for job, (rows, lengths) in encoded:
            front = windows[0]
            for number, part in zip(job.numbers, np.split(rows, np.cumsum(lengths)[:-1]), strict=True):
                front.rows[number - front.first] = part
            front.missing -= len(job.numbers)
            bar.update(len(job.numbers))
            if not front.missing:
                windows.popleft()
                for start in range(0, len(front.rows), HANDED_OUT):
                    some = front.rows[start : start + HANDED_OUT]
                    front.rows[start : start + HANDED_OUT] = [None] * len(some)
                    yield np.concatenate(some), np.array([len(part) for part in some], np.int64)
    _warn_cut(cut, read, "documents")


def _batches(
    lengths: NDArray[np.int64], counts: NDArray[np.int64], documents: int, tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Positions of documents with equally many pictures, the longest first: at most so many, padding counted.

    >>> [batch.tolist() for batch in _batches(np.array([3, 9, 3, 8, 8]), np.array([0, 0, 1, 0, 0]), 3, 18)]
    [[2], [1, 3], [4, 0]]
    """
    order = np.lexsort((-lengths, -counts))
    start = 0
    while start < len(order):
        size = min(documents, max(1, tokens // int(lengths[order[start]])))
        some = order[start : start + size]
        some = some[counts[some] == counts[order[start]]]
        yield some
        start += len(some)


def _same_pictures(given: list[tuple[Any, ...]], batch_size: int) -> Iterator[list[int]]:
    """Positions of queries with equally many pictures; those of the same pictures follow each other.

    >>> list(_same_pictures([("a",), (), ("b",), ("a",)], 2))
    [[1], [0, 3], [2]]
    """
    keys = [tuple(map(identity, pictures)) for pictures in given]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(keys)), key=lambda i: (len(keys[i]), first[keys[i]]))
    for _, group in groupby(order, key=lambda i: len(keys[i])):
        while some := list(islice(group, batch_size)):
            yield some


def _paired(texts: Iterable[str], images: Iterable[Any] | None, what: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each text with its pictures."""
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list or another iterable of strings, got one string {texts[:40]!r}")
    end = object()
    pairs = zip_longest(texts, repeat(None) if images is None else images, fillvalue=end)
    for number, (text, given) in enumerate(pairs):
        if text is end and images is None:
            return
        if text is end or given is end:
            raise ValueError(f"images and texts must be equally many, but only one of them has {what} {number}")
        if not isinstance(text, str):
            raise TypeError(f"{what} {number} must be a string, got {type(text).__name__}")
        pictures = tuple(given) if isinstance(given, (list, tuple)) else () if given is None else (given,)
        for picture in pictures:
            if not (picture is None or isinstance(picture, (str, os.PathLike)) or hasattr(picture, "convert")):
                raise TypeError(
                    f"{what} {number}: a picture must be a PIL image or a path, got {type(picture).__name__}"
                )
        yield text, pictures


def _dtype(dtype: Any) -> torch.dtype | None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
    return DTYPES[dtype]


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _warn_cut(cut: int, total: int, what: str) -> None:
    if cut:
        warnings.warn(f"{cut:,} of {total:,} {what} were longer than the model reads and were cut", stacklevel=3)
