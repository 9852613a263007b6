"""A search backend of MTEB: ``pip install lateint mteb``.

>>> wrapper = SearchEncoderWrapper(model, index_backend=LateIntIndex())  # doctest: +SKIP
>>> mteb.evaluate(wrapper, mteb.get_tasks(tasks=["SciFact"]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.index import Index
from lateint_kernels import as_array


class LateIntIndex:
    """Token embeddings in an index of lateint, as `mteb.models.IndexEncoderSearchProtocol`.

    The similarity is MaxSim, whatever the model's is. Embeddings are a list of ``[L, dim]``, or ``[n, L, dim]`` padded
    with zeros. Documents that are added are searched together; the index is made at the first search.

    Args:
        build: for `lateint.Index.build`, such as ``nbits``.
        search: for `lateint.Index.search`, such as ``exhaustive``.
    """

    def __init__(self, build: Mapping[str, Any] | None = None, search: Mapping[str, Any] | None = None) -> None:
        self.build = {"progress": False, **(build or {})}
        self.settings = dict(search or {})
        self.index: Index | None = None
        self.ids: list[str] = []

    def add_documents(self, embeddings: Any, idxs: list[str]) -> None:
        """Adds documents and their ids."""
        tokens = _unpadded(embeddings)
        if len(tokens) != len(idxs):
            raise ValueError(f"idxs must name each of {len(tokens)} documents, got {len(idxs)}")
        if self.index is None:
            self.index = Index.build(tokens, **self.build)
        else:
            self.index.add(tokens)
        self.ids += list(idxs)

    def search(
        self,
        embeddings: Any,
        top_k: int,
        similarity_fn: Callable[..., Any] | None = None,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """The best documents of each query: their scores, and their numbers in the order in which they were added.

        Args:
            top_ranked: ids to choose from, for each query; the numbers are then those in its list.
            query_idx_to_id: the id of each query; needed with ``top_ranked``.
        """
        if self.index is None:
            raise ValueError("there are no documents: call add_documents first")
        queries = _unpadded(embeddings)
        if top_ranked is None:
            found = self.index.search(queries, top_k, **self.settings)
            return [hits.scores.tolist() for hits in found], [hits.ids.tolist() for hits in found]
        if query_idx_to_id is None:
            raise ValueError("query_idx_to_id must be given with top_ranked")
        rows = {id: row for row, id in enumerate(self.ids)}
        scores, numbers = [], []
        for number, query in enumerate(queries):
            candidates = {rows[id]: place for place, id in enumerate(top_ranked.get(query_idx_to_id[number], []))}
            hits = self.index.rerank(query, list(candidates), top_k) if candidates else []
            scores.append([score for _, score in hits])
            numbers.append([candidates[row] for row, _ in hits])
        return scores, numbers

    def clear(self) -> None:
        """Forgets all documents."""
        self.index, self.ids = None, []


def _unpadded(embeddings: Any) -> list[NDArray[Any]]:
    """A matrix for each text, without the rows of zeros behind its tokens."""
    if isinstance(embeddings, (list, tuple)):
        return [as_array(tokens, f"embeddings of text {row}") for row, tokens in enumerate(embeddings)]
    padded = as_array(embeddings, "embeddings")
    if padded.ndim != 3:
        raise ValueError(
            f"embeddings must be [L, dim] for each text, or [n, L, dim], got {padded.shape}: late interaction needs a "
            "model with a vector for each token"
        )
    filled = (padded != 0).any(2)
    lengths = padded.shape[1] - np.argmax(filled[:, ::-1], axis=1)
    return [tokens[:length] for tokens, length in zip(padded, lengths, strict=True)]
