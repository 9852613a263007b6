"""sentence-transformers 6 (tested with 6.0.0 to 6.2.0): its ``MultiVectorEncoder`` as an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lateint.encoders.models import imported, loaded, name_of_model


class SentenceTransformer:
    """A multi-vector model of sentence-transformers.

    Args:
        model: a ``sentence_transformers.MultiVectorEncoder``, or the name or folder of one, which is loaded.
        name: what an index calls it; None: the name that it was loaded by.
        batch_size: texts that the model reads at once.
        options: keyword arguments of ``MultiVectorEncoder``, where ``model`` is a name.

    Raises:
        ImportError: sentence-transformers 6 or newer is not installed.
        TypeError: ``model`` is a model of single vectors.

    Source: Reimers and Gurevych, Sentence-BERT (EMNLP 2019); https://sbert.net
    """

    def __init__(self, model: Any, *, name: str | None = None, batch_size: int = 32, **options: Any) -> None:
        self.model = loaded(model, lambda: self._class()(model, **options))
        if not hasattr(self.model, "encode_query") or hasattr(self.model, "get_sentence_embedding_dimension"):
            raise TypeError(
                f"model must be a MultiVectorEncoder of sentence-transformers, got {type(self.model).__name__}, "
                "which gives one vector a text"
            )
        self.name = name or name_of_model(model, self.model)
        self.batch_size = batch_size

    @staticmethod
    def _class() -> Any:
        found = imported("sentence_transformers", "sentence-transformers", "'sentence-transformers>=6'")
        if not hasattr(found, "MultiVectorEncoder"):
            raise ImportError(
                "multi-vector models need sentence-transformers 6: pip install 'sentence-transformers>=6'"
            )
        return found.MultiVectorEncoder

    @property
    def settings(self) -> dict[str, Any]:
        """What documents' embeddings depend on."""
        transformer = self.model[0]
        return {
            "document_length": getattr(transformer, "document_length", None),
            "document_prompt": self.model.prompts.get("document"),
        }

    def encode_query(self, texts: Sequence[str]) -> list[Any]:
        """``[Lq, dim]`` float32 each."""
        return self._encoded(self.model.encode_query, texts)

    def encode_document(self, texts: Sequence[str]) -> list[Any]:
        """``[Ld, dim]`` float32 each."""
        return self._encoded(self.model.encode_document, texts)

    def _encoded(self, encode: Any, texts: Sequence[str]) -> list[Any]:
        if not texts:
            return []
        return list(encode(list(texts), batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True))
