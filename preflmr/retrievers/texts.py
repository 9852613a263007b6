"""Models of texts: sentence-transformers' multi-vector encoders and PyLate's ColBERT (`lateint.encoders`, trainable).

Source: Reimers and Gurevych, Sentence-BERT (EMNLP 2019), https://sbert.net; Chaffin and Sourty, PyLate,
https://github.com/lightonai/pylate
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from lateint.encoders.models import imported
from preflmr.retrievers.kinds import QUERY
from preflmr.retrievers.protocol import Adapter, Reading, Tokenized, Tokens, choose_all


class _Texts(Adapter):
    """Items are texts, which the library tokenizes itself."""

    @property
    def reading(self) -> Reading:
        return Reading()

    def inputs(
        self, side: str, items: Sequence[Any], pictures: Sequence[Sequence[Any]] | None = None
    ) -> dict[str, Tensor]:
        """What the library makes of texts."""
        if any(pictures or ()):
            raise ValueError("there must be no pictures: this model reads texts")
        return {name: value for name, value in self._features(side, list(items)).items() if isinstance(value, Tensor)}

    def tokenized(self, side: str, texts: Sequence[str]) -> Tokenized:
        """See `Retriever.tokenized`."""
        found = self.model.tokenizer(list(texts))["input_ids"] if texts else []
        lengths = np.array([len(ids) for ids in found], np.int64)
        limit = self._limit(side)
        if limit is not None:
            self.truncated[side] += int((lengths > limit).sum())
            lengths = np.minimum(lengths, limit)
        return Tokenized(list(texts), lengths)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The first module encodes; the others, of which one projects to ``dim``, are the mapping."""
        first, *others = self.model.children()
        return {"text_encoder": [first], "vision_encoder": [], "mapping": others}

    def save(self, folder: Path) -> None:
        """As the library saves it."""
        self.model.save(str(folder))

    def _features(self, side: str, texts: list[str]) -> dict[str, Any]:
        raise NotImplementedError

    def _limit(self, side: str) -> int | None:
        """Tokens of a text that are read, those at both ends included."""
        raise NotImplementedError


class SentenceTransformers(_Texts):
    """A ``MultiVectorEncoder`` of sentence-transformers 6 (tested with 6.0.0 to 6.2.0).

    Args:
        model: the encoder.
        name: where it was loaded from.
    """

    @classmethod
    def load(cls, kind: str, place: str, **options: Any) -> SentenceTransformers:
        """From a folder or the hub."""
        library = imported("sentence_transformers", "sentence-transformers", "'sentence-transformers>=6'")
        if not hasattr(library, "MultiVectorEncoder"):
            rule = "multi-vector models need sentence-transformers 6"
            raise ImportError(f"{rule}: pip install 'sentence-transformers>=6'")
        return cls(library.MultiVectorEncoder(place, **{"device": "cpu", **options}), place)

    def rows(
        self, side: str, inputs: dict[str, Tensor], *, text: bool | None = None, vision: bool | None = None
    ) -> Tokens:
        """See `Retriever.rows`."""
        choose_all(text, vision, "a MultiVectorEncoder")
        found = self.model(dict(inputs), task=side)
        return found["token_embeddings"], found["attention_mask"].bool()

    def _features(self, side: str, texts: list[str]) -> dict[str, Any]:
        prompt = (self.model.prompts or {}).get(side)
        return dict(self.model.preprocess(texts, prompt=prompt, task=side))

    def _limit(self, side: str) -> int | None:
        limit = getattr(self.model[0], f"{side}_length", None) or self.model.max_seq_length
        return None if limit is None else int(limit)


class PyLate(_Texts):
    """A ``pylate.models.ColBERT`` (tested with 1.5.0 and 1.6.0).

    Args:
        model: the model.
        name: where it was loaded from.
    """

    @classmethod
    def load(cls, kind: str, place: str, **options: Any) -> PyLate:
        """From a folder or the hub."""
        models = imported("pylate.models", "PyLate", "pylate")
        return cls(models.ColBERT(model_name_or_path=place, **{"device": "cpu", **options}), place)

    def rows(
        self, side: str, inputs: dict[str, Tensor], *, text: bool | None = None, vision: bool | None = None
    ) -> Tokens:
        """See `Retriever.rows`. Queries have rows for their padding where it is expanded; documents none for words of
        the skip list."""
        choose_all(text, vision, "PyLate's ColBERT")
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        tokens = self.model(dict(inputs))["token_embeddings"]
        if side == QUERY:
            kept = mask.new_ones(mask.shape) if self.model.do_query_expansion else mask
        else:
            kept = mask & self.model.skiplist_mask(input_ids=ids, skiplist=self.model.skiplist)
        return nn.functional.normalize(tokens, dim=-1), kept

    def _features(self, side: str, texts: list[str]) -> dict[str, Any]:
        return dict(self.model.tokenize(texts, is_query=side == QUERY))

    def _limit(self, side: str) -> int | None:
        prefixed = getattr(self.model, f"{side}_prefix_id", None) is not None
        return int(getattr(self.model, f"{side}_length")) - prefixed
