"""A PreFLMR as an encoder of `lateint.Index`: passages and questions as texts, or with pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.encoders import Places
from preflmr.encode import encode_documents, encode_queries
from preflmr.indexing.passage_index import name_of
from preflmr.retrievers import adapted, load
from preflmr.retrievers.flmr import FLMR
from preflmr.searcher import query_text
from preflmr.weights.fingerprint import fingerprint


class Encoder:
    """A PreFLMR with ``encode_query`` and ``encode_document``, see `lateint.encoders.Encoder`.

    A query is a question, or a pair of question and picture; a document is a passage, or a pair of passage and picture.

    Args:
        model: a `PreFLMR` with its tokenizers, or the name or folder of one, which is loaded.
        instruction: of all questions; None: the one that PreFLMR was trained with for such questions; "" is none.
        name: what an index calls the model; None: the name that it was loaded by.
        encoding: ``batch_size``, ``dtype``, ``device`` and ``processes`` of `preflmr.encode.encode_queries`.
    """

    def __init__(self, model: Any, *, instruction: str | None = None, name: str | None = None, **encoding: Any) -> None:
        if isinstance(model, (str, os.PathLike)):
            model = load(os.fspath(model))
            adapted(model).model.eval()
        self.model, self.instruction, self.encoding = model, instruction, encoding
        self.name = name or name_of(model)
        self.settings = {"fingerprint": fingerprint(adapted(model).model)}

    @property
    def query_pictures(self) -> bool:
        """Whether a question may have a picture."""
        return adapted(self.model).reading.query_pictures

    def encode_query(self, queries: Sequence[Any]) -> list[NDArray[np.float32]]:
        """``[Lq, dim]`` float32 each."""
        texts, pictures = self._read(queries)
        given = pictures if self.query_pictures else None
        return encode_queries(self.model, texts, given, progress=False, **self.encoding)

    def query_places(self, queries: Sequence[Any]) -> list[Places | None]:
        """What the rows of queries stand for; None where the kind of model does not say."""
        retriever = adapted(self.model)
        if not isinstance(retriever, FLMR):
            return [None] * len(queries)
        texts, pictures = self._read(queries)
        return [retriever.query_places(*one) for one in zip(texts, pictures, strict=True)]

    def encode_document(self, passages: Sequence[Any]) -> list[NDArray[Any]]:
        """``[Ld, dim]`` float32 each, or float16 where ``dtype`` is a half precision."""
        texts, pictures = _apart(passages)
        seen = pictures if any(picture is not None for picture in pictures) else None
        found: list[NDArray[Any]] = []
        for tokens, lengths in encode_documents(self.model, texts, seen, progress=False, **self.encoding):
            found += np.split(tokens, np.cumsum(lengths)[:-1])
        return found

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """``[L, 2]`` each: where the tokens of passages begin and end, in characters; ``[0, 2]`` where that is not
        known."""
        retriever = adapted(self.model)
        if not isinstance(retriever, FLMR):
            return [np.empty((0, 2), np.int64)] * len(texts)
        return [retriever.document_spans(text) for text in texts]

    def _read(self, queries: Sequence[Any]) -> tuple[list[str], list[Any]]:
        """Instructions with questions, and their pictures."""
        questions, pictures = _apart(queries)
        if not self.query_pictures and any(picture is not None for picture in pictures):
            raise ValueError("queries must have no pictures: this model reads none with questions")
        texts = [
            query_text(self.model, question, self.instruction, picture is not None)
            for question, picture in zip(questions, pictures, strict=True)
        ]
        return texts, pictures


def _apart(items: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Texts and pictures, None where there is no picture."""
    pairs = [item if isinstance(item, tuple) else (item, None) for item in items]
    return [text for text, _ in pairs], [picture for _, picture in pairs]
