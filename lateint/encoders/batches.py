"""Texts to embeddings a batch at a time, so that neither texts nor embeddings need be in memory at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

from lateint import progress
from lateint.encoders.protocol import Encoder

BATCH = 512  # texts that an encoder is given at a time; it sorts them by length and has batches of its own


def encoded_documents(encoder: Encoder, texts: Iterable[Any], *, shown: bool = False) -> Iterator[Any]:
    """The tokens ``[Ld, dim]`` of each text, in order, encoded when they are asked for.

    Args:
        texts: strings, or what else the encoder reads; any iterable, read `BATCH` at a time.
        shown: show a progress bar.

    Raises:
        TypeError: ``texts`` is one string, or holds None.
        ValueError: the encoder gives more or fewer results than there are texts.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a list or an iterable of texts, got {type(texts).__name__}")
    return _encoded(encoder, texts, shown)


def _encoded(encoder: Encoder, texts: Iterable[Any], shown: bool) -> Iterator[Any]:
    total = len(texts) if isinstance(texts, Sized) else None
    source, first = iter(texts), 0
    with progress.bar(total, "encode texts", "text", shown=shown) as bar:
        while batch := list(islice(source, BATCH)):
            for number, text in enumerate(batch, first):
                if text is None:
                    raise TypeError(f"texts must hold texts, but text {number} is None")
            yield from _checked(encoder.encode_document(batch), len(batch), "encode_document")
            first += len(batch)
            bar.update(len(batch))


def is_text(queries: Any) -> bool:
    """Whether queries are one text or a list of texts, and not tokens."""
    return isinstance(queries, str) or (
        isinstance(queries, (list, tuple)) and len(queries) > 0 and isinstance(queries[0], str)
    )


def encoded_queries(encoder: Encoder, texts: Sequence[str]) -> list[Any]:
    """The tokens ``[Lq, dim]`` of each query.

    Raises:
        TypeError: one is not a string.
        ValueError: as `encoded_documents`.
    """
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Q must hold strings only, but query {number} is {type(text).__name__}")
    return _checked(encoder.encode_query(list(texts)), len(texts), "encode_query")


def _checked(found: Any, expected: int, method: str) -> list[Any]:
    tokens = list(found)
    if len(tokens) != expected:
        raise ValueError(f"encoder.{method} must give one [L, dim] for each text, got {len(tokens)} for {expected}")
    return tokens
