"""What is asked of a search, checked, and how it is answered: by tokens, by words, or by both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lateint.calibration import Choice
from lateint.retrieval import searching, texts
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.queries import Queries
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint.retrieval.texts import MAXSIM, Found, Words
from lateint_kernels.codes.engine import Limits


@dataclass(frozen=True)
class Asked:
    """One call of `lateint.Index.search`.

    Attributes:
        queries: tokens; None: words alone count.
        words: or sparse vectors; None: tokens alone count.
        limits: how much is looked at.
        choice: settings that hold a recall, instead of ``limits``; None: no recall was asked for.
        exhaustive: whether every document is scored.
    """

    queries: Queries | None
    words: Words | None
    k: int
    limits: Limits
    fusion: Fusion
    choice: Choice | None
    exhaustive: bool

    @property
    def single(self) -> bool:
        """Whether there is one query, which came without a batch around it."""
        of = self.words if self.queries is None else self.queries
        assert of is not None
        return of.single

    def __len__(self) -> int:
        """How many queries."""
        if self.queries is not None:
            return len(self.queries)
        assert self.words is not None
        return len(self.words.terms)

    def some(self, numbers: list[int]) -> Asked:
        """The same of a batch of a few queries."""
        queries = None if self.queries is None else self.queries.some(numbers)
        words = self.words and self.words._replace(terms=[self.words.terms[number] for number in numbers], single=False)
        return replace(self, queries=queries, words=words)


def answer(
    engine: AnyEngine, asked: Asked, selection: Selection, *, centroids: int, ncells: int, threads: int
) -> list[Found]:
    """What is found for each query among the documents selected."""
    queries, words, k = asked.queries, asked.words, asked.k
    if queries is None:
        assert words is not None
        return texts.search(words, k, selection, threads=threads)
    if words is not None:
        return texts.search_both(
            engine,
            queries,
            words,
            k,
            asked.limits,
            selection,
            asked.fusion,
            exhaustive=asked.exhaustive,
            centroids=centroids,
            ncells=ncells,
            threads=threads,
        )
    if asked.choice is not None:
        rankings, plans = searching.promised(
            engine, queries, k, asked.choice, selection, centroids=centroids, ncells=ncells, threads=threads
        )
    elif asked.exhaustive:
        rankings, plans = searching.exhaustive(engine, queries, k, selection, threads=threads)
    else:
        rankings, plans = searching.search(
            engine, queries, k, asked.limits, selection, centroids=centroids, ncells=ncells, threads=threads
        )
    found = zip(rankings, plans, strict=True)
    return [Found(positions, scores, {MAXSIM: scores}, plan) for (positions, scores), plan in found]
