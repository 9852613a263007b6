"""Texts to embeddings a batch at a time, so that neither texts nor embeddings need be in memory at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

from lateint import progress
from lateint.encoders.protocol import Encoder, name_of

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
    _check_iterable(texts)
    return _encoded(encoder, texts, shown)


def _check_iterable(texts: Any) -> None:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a list or an iterable of texts, got {type(texts).__name__}")


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


def given_or_encoded(doc_embs: Any, texts: Any, encoder: Encoder | None, *, shown: bool = False) -> tuple[Any, Any]:
    """Documents' tokens as they are given, or else encoded when they are asked for; and what is kept of the texts.

    Raises:
        TypeError: neither tokens nor texts are given, or as `encoded_documents`.
        ValueError: there is no encoder of texts, or as `encoded_documents`.
    """
    if doc_embs is not None:
        return doc_embs, texts
    if texts is None:
        raise TypeError("doc_embs must be given, or texts with an encoder")
    if encoder is None:
        raise ValueError("texts without doc_embs needs an encoder: pass encoder=, see lateint.encoders")
    return kept_and_encoded(encoder, texts, shown=shown)


def kept_and_encoded(encoder: Encoder, texts: Iterable[Any], *, shown: bool = False) -> tuple[Iterator[Any], Any]:
    """`encoded_documents`, and what an index keeps of the texts: those that are strings, else None.

    Where texts can be read only once, each is kept from when it is encoded until it is asked for.

    Raises:
        TypeError, ValueError: as `encoded_documents`.
    """
    _check_iterable(texts)
    if isinstance(texts, Sequence) or hasattr(texts, "tolist"):
        return encoded_documents(encoder, texts, shown=shown), [_kept(text) for text in texts]
    waiting = _Waiting()
    return encoded_documents(encoder, waiting.noted(texts), shown=shown), waiting


class _Waiting:
    """What is kept of texts that have been encoded, in their order; it may be empty for a while."""

    def __init__(self) -> None:
        self._texts: deque[str | None] = deque()

    def noted(self, texts: Iterable[Any]) -> Iterator[Any]:
        for text in texts:
            self._texts.append(_kept(text))
            yield text

    def __iter__(self) -> _Waiting:
        return self

    def __next__(self) -> str | None:
        if not self._texts:
            raise StopIteration
        return self._texts.popleft()


def _kept(text: Any) -> str | None:
    if isinstance(text, tuple) and text:  # a passage and its picture
        text = text[0]
    return text if isinstance(text, str) else None


def is_text(queries: Any) -> bool:
    """Whether queries are for an encoder: one query or a list of them, each a text or a text with a picture."""
    if is_one(queries):
        return True
    return isinstance(queries, (list, tuple)) and len(queries) > 0 and is_one(queries[0])


def is_one(query: Any) -> bool:
    """Whether a query is a text, or a pair of a text and a picture of Pillow."""
    return isinstance(query, str) or _is_pair(query)


def _is_pair(query: Any) -> bool:
    return isinstance(query, tuple) and len(query) == 2 and isinstance(query[0], str) and hasattr(query[1], "getexif")


def words_of(queries: Any) -> Any:
    """The text of a query, or the texts of several."""
    if is_one(queries):
        return queries if isinstance(queries, str) else queries[0]
    return [words_of(one) for one in queries]


def encoded_queries(encoder: Encoder, queries: Sequence[Any]) -> list[Any]:
    """The tokens ``[Lq, dim]`` of each query.

    Args:
        queries: texts, and where the encoder reads pictures (``query_pictures``) pairs of a text and a picture.

    Raises:
        TypeError: one is neither.
        ValueError: one has a picture, and the encoder reads none; or as `encoded_documents`.
    """
    for number, query in enumerate(queries):
        if isinstance(query, str):
            continue
        if not _is_pair(query):
            raise TypeError(f"Q must hold strings only, but query {number} is {type(query).__name__}")
        if not getattr(encoder, "query_pictures", False):
            raise ValueError(f"Q must be texts alone, for the encoder {name_of(encoder)!r} reads no pictures with them")
    return _checked(encoder.encode_query(list(queries)), len(queries), "encode_query")


def _checked(found: Any, expected: int, method: str) -> list[Any]:
    tokens = list(found)
    if len(tokens) != expected:
        raise ValueError(f"encoder.{method} must give one [L, dim] for each text, got {len(tokens)} for {expected}")
    return tokens
