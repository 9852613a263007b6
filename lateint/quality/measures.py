"""Measures by their names: ours, and any other of ir-measures where it is installed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lateint.quality import metrics
from lateint.quality.metrics import Qrels, Run

OURS = re.compile(r"(nDCG|MRR|Recall|Success)@\d+")

PerQuery = dict[str, dict[Any, float]]  # measure -> query id -> value


def names(cutoffs: Sequence[int] | None) -> list[str]:
    """Measures at these cut-offs; None: those of `lateint.metrics.MEASURES`."""
    if not cutoffs:
        return list(metrics.MEASURES)
    return [f"{measure}@{k}" for measure in ("nDCG", "Recall", "MRR", "Success") for k in cutoffs]


def depth(measures: Sequence[str], least: int = 100) -> int:
    """How many documents a search must find for these measures."""
    return max([least, *(int(k) for name in measures for k in re.findall(r"@(\d+)$", name))])


def check(measures: Sequence[str]) -> None:
    """Refuses names that no measure has, before anything is computed.

    Raises:
        ValueError: there is no such measure.
        ImportError: it is one of ir-measures, which is not installed.
    """
    for name in measures:
        if not OURS.fullmatch(name):
            _parsed(name)


def per_query(qrels: Qrels, run: Run, measures: Sequence[str]) -> PerQuery:
    """Every measure of every query that has judgements; one that the run leaves out scores 0."""
    found: PerQuery = {}
    for name in measures:
        if OURS.fullmatch(name):
            found[name] = metrics.per_query(qrels, run, name)
        else:
            found[name] = _by_ir_measures(qrels, run, name)
    return found


def means(values: PerQuery) -> dict[str, float]:
    """The mean of each measure over the queries."""
    return {name: math.fsum(of.values()) / len(of) for name, of in values.items()}


def _by_ir_measures(qrels: Qrels, run: Run, name: str) -> dict[Any, float]:
    module, measure = _parsed(name)
    judged = {str(query): {str(d): int(grade) for d, grade in grades.items()} for query, grades in qrels.items()}
    scored = {str(query): {str(d): float(score) for d, score in scores.items()} for query, scores in run.items()}
    values = dict.fromkeys(judged, 0.0)
    values |= {one.query_id: float(one.value) for one in module.iter_calc([measure], judged, scored)}
    return {query: values[str(query)] for query in qrels}


def _parsed(name: str) -> tuple[Any, Any]:
    try:
        import ir_measures
    except ModuleNotFoundError:
        ours = "nDCG@k, MRR@k, Recall@k and Success@k"
        raise ImportError(
            f"measure {name!r} is none of {ours} and needs ir-measures: pip install ir-measures"
        ) from None
    parsed: Mapping[str, Any] | Any
    try:
        parsed = ir_measures.parse_measure(name)
    except (NameError, ValueError, KeyError) as error:
        raise ValueError(f"measures must be known to lateint or to ir-measures, got {name!r}: {error}") from None
    return ir_measures, parsed
