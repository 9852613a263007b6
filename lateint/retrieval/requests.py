"""What a search is asked for, and which of the ways to search that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lateint.calibration import Choice
from lateint.retrieval import searching, texts
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.queries import Queries
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint.retrieval.texts import Found
from lateint_kernels.codes.engine import Limits
from lateint_kernels.text.engine import Terms, TextEngine


class Engines(Protocol):
    """What searches tokens, and what searches words."""

    @property
    def engine(self) -> AnyEngine: ...
    @property
    def text_engine(self) -> TextEngine: ...


@dataclass(frozen=True)
class Request:
    """All that is asked for but the queries, and the documents to choose from.

    Attributes:
        k: how many documents.
        limits: how much is looked at.
        fusion: how the two scores become one, where there are tokens and words.
        centroids: of the index.
        threads: how many.
        exhaustive: whether every document is scored.
        choice: settings that hold a recall that was asked for; None: none was.
    """

    k: int
    limits: Limits
    fusion: Fusion
    centroids: int
    threads: int
    exhaustive: bool = False
    choice: Choice | None = None

    def found(
        self, engines: Engines, queries: Queries | None, terms: Sequence[Terms] | None, selection: Selection
    ) -> list[Found]:
        """The best of the selected documents for each query: by its tokens, its words, or both."""
        if queries is None:
            assert terms is not None
            return texts.search(engines.text_engine, terms, self.k, selection, threads=self.threads)
        if terms is not None:
            return texts.search_both(
                engines.engine,
                engines.text_engine,
                queries,
                terms,
                self.k,
                self.limits,
                selection,
                self.fusion,
                exhaustive=self.exhaustive,
                centroids=self.centroids,
                threads=self.threads,
            )
        return self._by_tokens(engines.engine, queries, selection)

    def _by_tokens(self, engine: AnyEngine, queries: Queries, selection: Selection) -> list[Found]:
        k, centroids, threads = self.k, self.centroids, self.threads
        if self.choice is not None:
            rankings, plans = searching.promised(
                engine, queries, k, self.choice, selection, centroids=centroids, threads=threads
            )
        elif self.exhaustive:
            rankings, plans = searching.exhaustive(engine, queries, k, selection, threads=threads)
        else:
            rankings, plans = searching.search(
                engine, queries, k, self.limits, selection, centroids=centroids, threads=threads
            )
        return [
            Found(positions, scores, {"maxsim": scores}, plan)
            for (positions, scores), plan in zip(rankings, plans, strict=True)
        ]
