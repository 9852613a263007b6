"""How the paper measures: Recall@K and Pseudo Recall@K of a retriever, average rank of several.

Both recalls are hit rates: a question counts 1 or 0. `lateint.metrics` has the others (nDCG, MRR).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence


def recall(ids: Sequence[str], positives: Collection[str], k: int) -> float:
    """``Recall@K = [one of the first K documents is a positive]``.

    Args:
        ids: retrieved documents, best first; fewer than K are taken as they are.

    Raises:
        ValueError: nothing was retrieved, or k is below 1.

    >>> recall(["b", "a"], {"a"}, 1), recall(["b", "a"], {"a"}, 2)
    (0.0, 1.0)
    """
    return at(positive_rank(ids, positives), k)


def pseudo_recall(texts: Sequence[str], answers: Iterable[str], k: int) -> float:
    """``Pseudo Recall@K = [one of the first K texts contains an answer]``.

    Contains: ``answer.strip().lower() in text.lower()``, with no regard to words. An empty answer is in every text.

    Raises:
        ValueError: nothing was retrieved, or k is below 1.

    >>> pseudo_recall(["Painted in 1889.", "The Arts"], [" ART "], 1), pseudo_recall(["-", "The Arts"], [" ART "], 2)
    (0.0, 1.0)
    """
    return at(answer_rank((text.lower() for text in texts), answers, len(texts)), k)


def positive_rank(ids: Sequence[str], positives: Collection[str]) -> int | None:
    """The rank, from 1, of the first positive; None: there is none. Recall@K is 1 from there on.

    Raises:
        ValueError: nothing was retrieved.
    """
    if not ids:
        raise ValueError("ids must hold at least one retrieved document, got none")
    return next((rank for rank, id in enumerate(ids, 1) if id in positives), None)


def answer_rank(lowered: Iterable[str], answers: Iterable[str], n: int) -> int | None:
    """The rank, from 1, of the first text that contains an answer; None: none does.

    Args:
        lowered: the ``n`` retrieved texts, best first, in lower case; read only as far as needed.

    Raises:
        ValueError: nothing was retrieved.
    """
    if n < 1:
        raise ValueError("texts must hold at least one retrieved document, got none")
    wanted = [answer.strip().lower() for answer in answers]
    return next((rank for rank, text in enumerate(lowered, 1) if any(answer in text for answer in wanted)), None)


def at(rank: int | None, k: int) -> float:
    """1 if the rank is within the first k, else 0."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float(rank is not None and rank <= k)


def average_ranks(rows: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    """How each row ranks among the rows, averaged over columns: 1 is best, and rows that tie share their mean rank.

    Args:
        rows: name -> one number a column, higher is better; None where it was not measured, which is ranked nowhere.

    Returns:
        None for a row that lacks a number.

    Raises:
        ValueError: rows have different lengths.

    >>> average_ranks({"a": [3.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 0.0], "d": [None, 2.0]})
    {'a': 1.75, 'b': 2.25, 'c': 3.5, 'd': None}
    """
    if len({len(row) for row in rows.values()}) > 1:
        raise ValueError(f"rows must have equally many columns, got {[len(row) for row in rows.values()]}")
    averages: dict[str, float | None] = {}
    for name, row in rows.items():
        ranks = [_rank(value, [other[i] for other in rows.values()]) for i, value in enumerate(row)]
        known = [rank for rank in ranks if rank is not None]
        averages[name] = sum(known) / len(ranks) if ranks and len(known) == len(ranks) else None
    return averages


def _rank(value: float | None, column: Sequence[float | None]) -> float | None:
    if value is None:
        return None
    better = sum(other is not None and other > value for other in column)
    return better + (1 + sum(other == value for other in column)) / 2
