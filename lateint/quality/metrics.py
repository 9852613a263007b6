"""Retrieval quality: nDCG, MRR, Recall and Success at a cut-off, with the semantics of trec_eval.

Relevance judgements (``qrels``) and results (``run``) are dicts of dicts: query id -> document id -> grade or score.

- Every query of ``qrels`` counts; one the run leaves out scores 0. Queries without judgements are left aside.
- A grade above 0 is relevant; documents without a judgement and negative grades count as 0.
- Documents are ranked by falling score. Equal scores are ordered by falling id, compared as text, as trec_eval does,
  so that the order in which a run was written cannot change its quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Qrels = Mapping[Any, Mapping[Any, int]]
Run = Mapping[Any, Mapping[Any, float]]
OfQuery = Callable[[list[int], list[int], int], float]

MEASURES = ("nDCG@10", "Recall@100", "MRR@10", "Success@5")


def ndcg(qrels: Qrels, run: Run, k: int = 10) -> float:
    """Normalised discounted cumulative gain, mean over the queries.

    ``nDCG@k = DCG@k / max DCG@k`` with ``DCG@k = sum_{r=1..k} g_r / log2(r + 1)`` and ``g_r`` the grade at rank r
    (Jarvelin and Kekalainen 2002, with the linear gain of trec_eval). The maximum is over orders of all judged
    documents; a query without a relevant document scores 0.

    Raises:
        ValueError: k is below 1, there are no judgements, or a score is NaN.

    >>> round(ndcg({"q": {"a": 2, "b": 1}}, {"q": {"b": 0.9, "a": 0.8}}), 4)
    0.8597
    """
    return _mean(_ndcg, qrels, run, k)


def mrr(qrels: Qrels, run: Run, k: int = 10) -> float:
    """Mean reciprocal rank of the first relevant document.

    ``MRR@k = mean_q 1 / r_q`` with ``r_q`` the rank of the first relevant document, and 0 where it is beyond k.

    Raises:
        ValueError: k is below 1, there are no judgements, or a score is NaN.

    >>> mrr({"q": {"a": 1}}, {"q": {"b": 0.9, "a": 0.8}})
    0.5
    """
    return _mean(_reciprocal_rank, qrels, run, k)


def recall(qrels: Qrels, run: Run, k: int = 100) -> float:
    """Share of the relevant documents found in the first k, mean over the queries.

    ``Recall@k = |relevant in the first k| / |relevant|``; a query without a relevant document scores 0.

    Raises:
        ValueError: k is below 1, there are no judgements, or a score is NaN.

    >>> recall({"q": {"a": 1, "b": 1}}, {"q": {"a": 0.9, "c": 0.8}})
    0.5
    """
    return _mean(_recall, qrels, run, k)


def success(qrels: Qrels, run: Run, k: int = 5) -> float:
    """Share of the queries with a relevant document in the first k.

    ``Success@k = mean_q [a relevant document is in the first k]``

    Raises:
        ValueError: k is below 1, there are no judgements, or a score is NaN.

    >>> success({"q": {"a": 1}, "p": {"a": 1}}, {"q": {"a": 0.9}})
    0.5
    """
    return _mean(_success, qrels, run, k)


def evaluate(qrels: Qrels, run: Run, measures: Sequence[str] = MEASURES) -> dict[str, float]:
    """Several measures by name, such as ``"nDCG@10"``.

    Args:
        measures: names of the form ``MEASURE@k`` with MEASURE one of nDCG, MRR, Recall and Success.

    Raises:
        ValueError: a name is unknown, k is below 1, there are no judgements, or a score is NaN.

    >>> evaluate({"q": {"a": 1}}, {"q": {"b": 0.9, "a": 0.8}}, ["MRR@10", "Success@1"])
    {'MRR@10': 0.5, 'Success@1': 0.0}
    """
    return {name: _named(name)(qrels, run) for name in measures}


def per_query(qrels: Qrels, run: Run, measure: str) -> dict[Any, float]:
    """One measure, by its name, of each query of ``qrels``.

    >>> per_query({"q": {"a": 1}, "p": {"a": 1}}, {"q": {"b": 0.9, "a": 0.8}}, "MRR@10")
    {'q': 0.5, 'p': 0.0}
    """
    function, k = _parts(measure)
    _check(qrels, k)
    return {query: function(*_grades(query, qrels, run, k), k) for query in qrels}


def _named(name: str) -> Callable[[Qrels, Run], float]:
    function, k = _parts(name)
    return lambda qrels, run: _mean(function, qrels, run, k)


def _parts(name: str) -> tuple[OfQuery, int]:
    functions: dict[str, OfQuery] = {"nDCG": _ndcg, "MRR": _reciprocal_rank, "Recall": _recall, "Success": _success}
    measure, _, cutoff = name.partition("@")
    if measure not in functions or not cutoff.isdecimal():
        raise ValueError(f"measures must be of the form {'@k, '.join(functions)}@k, got {name!r}")
    return functions[measure], int(cutoff)


def _check(qrels: Qrels, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not qrels:
        raise ValueError("qrels must judge at least one query, got none")


def _mean(of_query: OfQuery, qrels: Qrels, run: Run, k: int) -> float:
    _check(qrels, k)
    return math.fsum(of_query(*_grades(query, qrels, run, k), k) for query in qrels) / len(qrels)


def _grades(query: Any, qrels: Qrels, run: Run, k: int) -> tuple[list[int], list[int]]:
    """The grades at ranks 1..k of the run, and the positive grades in falling order."""
    scores, judged = run.get(query, {}), qrels[query]
    for document, score in scores.items():
        if math.isnan(score):
            raise ValueError(f"run must hold numbers, got NaN for query {query!r}, document {document!r}")
    ranking = sorted(scores, key=lambda document: (scores[document], str(document)), reverse=True)
    grades = [max(judged.get(document, 0), 0) for document in ranking[:k]]
    return grades, sorted((grade for grade in judged.values() if grade > 0), reverse=True)


def _ndcg(grades: list[int], ideal: list[int], k: int) -> float:
    best = _dcg(ideal[:k])
    return _dcg(grades) / best if best else 0.0


def _dcg(grades: list[int]) -> float:
    return math.fsum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


def _reciprocal_rank(grades: list[int], ideal: list[int], k: int) -> float:
    return next((1 / rank for rank, grade in enumerate(grades, 1) if grade), 0.0)


def _recall(grades: list[int], ideal: list[int], k: int) -> float:
    return sum(grade > 0 for grade in grades) / len(ideal) if ideal else 0.0


def _success(grades: list[int], ideal: list[int], k: int) -> float:
    return float(any(grades))
