"""A retriever for DSPy: ``pip install lateint dspy``.

>>> search = LateIntRetriever(encoder, "passages", k=3)  # doctest: +SKIP
>>> search("how do vaccines work?").passages  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

try:
    import dspy
except ImportError:
    raise ImportError('dspy is not installed: pip install "lateint[dspy]"') from None

from lateint.integrations.store import TextStore


class LateIntRetriever(dspy.Retrieve):  # type: ignore[misc]
    """Passages of an index with texts, best first, as a module of DSPy.

    Args:
        encoder: an `lateint.encoders.Encoder`, or a model of PyLate or sentence-transformers.
        path: the folder of the index; None keeps it in memory, and ``store.add`` fills it.
        k: how many passages.
        settings: for `lateint.Index.build` or `lateint.Index.open`.
    """

    def __init__(
        self, encoder: Any, path: str | os.PathLike[str] | None = None, *, k: int = 3, **settings: Any
    ) -> None:
        super().__init__(k=k)
        self.store = TextStore(encoder, path, **settings)

    def forward(
        self, query: str, k: int | None = None, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> dspy.Prediction:
        """``passages``, ``ids``, ``scores`` and ``metadata`` of the best documents.

        Args:
            k: how many; None: as many as the retriever gives.
            filter: on metadata, as `lateint.Index.search` takes it.
        """
        found = self.store.search(query, self.k if k is None else k, filter if filter else True, **kwargs)
        return dspy.Prediction(
            passages=[one.text or "" for one, _ in found],
            ids=[one.id for one, _ in found],
            scores=[score for _, score in found],
            metadata=[one.metadata for one, _ in found],
        )
