"""Searches with a text or a sparse vector: BM25 or inner products alone, or together with MaxSim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lateint.retrieval import searching
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.planning import WORDS, Plan
from lateint.retrieval.queries import Queries
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint.text import vectors
from lateint_kernels.codes.engine import Limits
from lateint_kernels.text.engine import PostingsEngine, Terms

MAXSIM, BM25, SPARSE = "maxsim", "bm25", "sparse"  # parts of a score
DEPTH = 40  # candidates that each of the two brings, as far as there are so many


class Found(NamedTuple):
    """The best documents for one query: positions, scores, what these are made of, and what the search did."""

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    parts: Mapping[str, NDArray[np.float32]]
    plan: Plan


class Words(NamedTuple):
    """The words or sparse vectors of queries, and the engine that finds them.

    Attributes:
        terms: of each query.
        single: whether it is one that came without a batch around it.
        part: what the scores are called in `lateint.Hits`: `BM25` or `SPARSE`.
    """

    engine: PostingsEngine
    terms: Sequence[Terms]
    single: bool
    part: str

    def some(self, numbers: Iterable[int]) -> Words:
        """A batch of a few of them."""
        return self._replace(terms=[self.terms[number] for number in numbers], single=False)


def read(text: Any, queries: Queries | None) -> tuple[list[str], bool]:
    """The text of each query, and whether it is one that came without a batch around it.

    Raises:
        TypeError, ValueError: they are no strings, or not one for each query.
    """
    single = isinstance(text, str)
    if not single and not isinstance(text, (list, tuple)):
        raise TypeError(f"text must be a string, or a list of strings for a batch, got {type(text).__name__}")
    texts = [text] if single else list(text)
    if wrong := [one for one in texts if not isinstance(one, str)]:
        raise TypeError(f"text must hold strings, got {type(wrong[0]).__name__}")
    if queries is not None and (single != queries.single or len(texts) != len(queries)):
        wanted = "one string for one query" if queries.single else f"a list of {len(queries)} strings for a batch"
        found = "one" if single else f"a list of {len(texts)}"
        raise ValueError(f"text must be {wanted}, got {found}")
    return texts, single


def read_vectors(sparse: Any, queries: Queries | None) -> tuple[list[Terms], bool]:
    """The sparse vector of each query, and whether it is one that came without a batch around it.

    Raises:
        TypeError, ValueError: see `lateint.text.vectors.read`; or there is not one for each query.
    """
    rows, wanted_one = vectors.Matrix.of(sparse), queries is not None and queries.single
    single = not isinstance(sparse, list) if rows is None else wanted_one and len(rows) == 1
    given = list(rows if rows is not None else [sparse] if single else sparse)
    if queries is not None and (single != queries.single or len(given) != len(queries)):
        several = f"a list of {len(queries)} vectors, or a matrix, for a batch"
        wanted = "one vector for one query" if queries.single else several
        raise ValueError(f"sparse must be {wanted}, got {'one' if single else len(given)}")
    found: list[Terms] = []
    for number, one in enumerate(given):
        what = "sparse" if single else f"sparse of query {number}"
        vector = vectors.read(one, what, largest=vectors.LARGEST_QUERY)
        if vector is None:
            raise TypeError(f"{what} must be {vectors.FORMS}, got None")
        found.append(dict(zip(vectors.encoded(vector.terms), vector.weights.tolist(), strict=True)))
    return found, single


def search(words: Words, k: int, selection: Selection, *, threads: int) -> list[Found]:
    """The k best by words alone."""
    rankings = words.engine.search(words.terms, k, allowed=selection.mask, threads=threads)
    plan = Plan(WORDS, selection.documents)
    return [Found(positions, scores, {words.part: scores}, plan) for positions, scores in rankings]


def search_both(
    engine: AnyEngine,
    queries: Queries,
    words: Words,
    k: int,
    limits: Limits,
    selection: Selection,
    fusion: Fusion,
    *,
    exhaustive: bool,
    centroids: int,
    ncells: int,
    threads: int,
) -> list[Found]:
    """The k best by both scores: each brings candidates, and every candidate gets both."""
    depth = max(k, DEPTH)
    most = depth if fusion.rerank is None else fusion.rerank
    by_words = words.engine.search(words.terms, most, allowed=selection.mask, threads=threads)
    if fusion.rerank is not None:
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        tokens, plans = [nothing] * len(queries), [Plan(WORDS, selection.documents)] * len(queries)
    elif exhaustive:
        tokens, plans = searching.exhaustive(engine, queries, depth, selection, threads=threads)
    else:
        limits = limits._replace(watched=k)
        tokens, plans = searching.search(
            engine, queries, depth, limits, selection, centroids=centroids, ncells=ncells, threads=threads
        )
    found = []
    for i, plan in enumerate(plans):
        positions = np.unique(np.concatenate([tokens[i][0], by_words[i][0]]))
        maxsim = _completed(positions, *tokens[i], lambda left, i=i: engine.score(queries[i], left, threads=threads))
        by_terms = _completed(positions, *by_words[i], lambda left, i=i: words.engine.score(words.terms[i], left))
        scores = fusion.fused(maxsim, by_terms) if fusion.rerank is None else maxsim
        best = np.argsort(-scores, kind="stable")[:k]
        if fusion.rerank is not None:
            best = best[np.isfinite(maxsim[best])]
        found.append(Found(positions[best], scores[best], {MAXSIM: maxsim[best], words.part: by_terms[best]}, plan))
    return found


def _completed(
    positions: NDArray[np.int64], known: NDArray[np.int64], scores: NDArray[np.float32], score: Any
) -> NDArray[np.float32]:
    """The score of each position (ascending), those that are not known by a call of ``score``."""
    out = np.empty(len(positions), np.float32)
    there = np.zeros(len(positions), bool)
    at = np.searchsorted(positions, known)
    out[at], there[at] = scores, True
    left = positions[~there]
    if len(left):
        out[~there] = score(left)
    return out
