"""A PreFLMR as an encoder of `lateint.Index`: passages and questions as texts, or with pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflmr.encode import encode_documents, encode_queries
from preflmr.indexing.passage_index import name_of
from preflmr.retrievers import adapted, load
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

    def encode_query(self, queries: Sequence[Any]) -> list[NDArray[np.float32]]:
        """``[Lq, dim]`` float32 each."""
        questions, pictures = _apart(queries)
        sees = adapted(self.model).reading.query_pictures
        if not sees and any(picture is not None for picture in pictures):
            raise ValueError("queries must have no pictures: this model reads none with questions")
        texts = [
            query_text(self.model, question, self.instruction, picture is not None)
            for question, picture in zip(questions, pictures, strict=True)
        ]
        return encode_queries(self.model, texts, pictures if sees else None, progress=False, **self.encoding)

    def encode_document(self, passages: Sequence[Any]) -> list[NDArray[Any]]:
        """``[Ld, dim]`` float32 each, or float16 where ``dtype`` is a half precision."""
        texts, pictures = _apart(passages)
        seen = pictures if any(picture is not None for picture in pictures) else None
        found: list[NDArray[Any]] = []
        for tokens, lengths in encode_documents(self.model, texts, seen, progress=False, **self.encoding):
            found += np.split(tokens, np.cumsum(lengths)[:-1])
        return found


def _apart(items: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Texts and pictures, None where there is no picture."""
    pairs = [item if isinstance(item, tuple) else (item, None) for item in items]
    return [text for text, _ in pairs], [picture for _, picture in pairs]
