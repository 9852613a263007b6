"""What a search returns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint.retrieval.planning import Plan


class Hit(NamedTuple):
    """A document that a search found: its id, an int or a str, and its score."""

    id: Any
    score: float


@dataclass(frozen=True, eq=False)
class Hits:
    """The best documents for one query, best first: a sequence of `Hit`.

    Attributes:
        ids: ``[n]`` int64, or objects of type str if the index was built with string ids.
        scores: ``[n]`` float32: MaxSim on the scale of the original embeddings; with a text or a sparse vector, its
            score or what both became.
        parts: ``"maxsim"`` and ``"bm25"`` or ``"sparse"`` of each, ``[n]`` float32, as far as there are tokens, and a
            text or a sparse vector; MaxSim is -inf for a document without tokens.
        plan: what the search did, see `lateint.retrieval.planning.Plan`; None: these hits come from no search.
        read: reads them for `documents`; None: they come from no index.
        coverage: the share of all documents that was searched; 1.0 but where shards were lost, see `lateint.Shards`.
        lost: the names of these shards.

    >>> hits = Hits(np.array([7, 3]), np.array([1.5, 0.5], np.float32))
    >>> hits[0], len(hits)
    (Hit(id=7, score=1.5), 2)
    >>> [document for document, score in hits]
    [7, 3]
    """

    ids: NDArray[Any]
    scores: NDArray[np.float32]
    plan: Plan | None = None
    read: Callable[[Iterable[str] | None], list[Any]] | None = field(default=None, repr=False)
    parts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    coverage: float = 1.0
    lost: tuple[str, ...] = ()

    def documents(self, fields: Iterable[str] | None = None) -> list[Any]:
        """Texts and metadata of the documents, in this order, as they were when they were found.

        Args:
            fields: see `lateint.Index.get`.

        Raises:
            ValueError: these hits come from no index.
        """
        if self.read is None:
            raise ValueError("these hits come from no index, so there are no documents to read")
        return self.read(fields)

    @property
    def texts(self) -> list[str | None]:
        """The texts of the documents, in this order; None for one that was built without."""
        return [document.text for document in self.documents(["text"])]

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, self.ids.tolist(), self.scores.tolist())

    def __getitem__(self, rank: int) -> Hit:
        return Hit(self.ids[rank : rank + 1 or None].tolist()[0], float(self.scores[rank]))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shown = ", ".join(f"{id!r}: {score:.4g}" for id, score in itertools.islice(self, 5))
        missing = f"; coverage {self.coverage:.3g}" if self.lost else ""
        return f"Hits({shown}{', ...' if len(self) > 5 else ''}{missing})"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the score of one document comes from.

    Attributes:
        tokens: ``[Lq]`` int64: the document token that each query token matches best (the first among equals).
        scores: ``[Lq]`` float32: their inner products; the document's score is their sum.
    """

    tokens: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.tokens.tolist(), self.scores.tolist(), strict=True)

    def __len__(self) -> int:
        return len(self.tokens)
