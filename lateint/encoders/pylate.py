"""PyLate (tested with 1.4.0 to 1.6.0): ``pylate.models.ColBERT`` as an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lateint.encoders.models import imported, loaded, name_of_model


class PyLate:
    """A ColBERT model of PyLate.

    Args:
        model: a ``pylate.models.ColBERT``, or the name or folder of one, which is loaded.
        name: what an index calls it; None: the name that it was loaded by.
        batch_size: texts that the model reads at once.
        options: keyword arguments of ``pylate.models.ColBERT``, where ``model`` is a name.

    Raises:
        ImportError: PyLate is not installed.

    Source: Chaffin and Sourty, PyLate, https://github.com/lightonai/pylate
    """

    def __init__(self, model: Any, *, name: str | None = None, batch_size: int = 32, **options: Any) -> None:
        self.model = loaded(
            model, lambda: imported("pylate.models", "PyLate", "pylate").ColBERT(model_name_or_path=model, **options)
        )
        self.name = name or name_of_model(model, self.model)
        self.batch_size = batch_size

    @property
    def settings(self) -> dict[str, Any]:
        """What documents' embeddings depend on."""
        return {
            "document_length": self.model.document_length,
            "document_prefix": self.model.document_prefix,
            "skiplist_words": "".join(self.model.skiplist_words),
        }

    def encode_query(self, texts: Sequence[str]) -> list[Any]:
        """``[Lq, dim]`` float32 each."""
        return self._encoded(texts, is_query=True)

    def encode_document(self, texts: Sequence[str]) -> list[Any]:
        """``[Ld, dim]`` float32 each."""
        return self._encoded(texts, is_query=False)

    def _encoded(self, texts: Sequence[str], is_query: bool) -> list[Any]:
        if not texts:
            return []
        encoded = self.model.encode(list(texts), is_query=is_query, batch_size=self.batch_size, show_progress_bar=False)
        return list(encoded)
