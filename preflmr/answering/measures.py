"""Judges generated answers as the paper's Table 7 does, per question and in the mean.

E-VQA's measure there, BEM, is a trained model, see `preflmr.answering.equivalence`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from preflmr.answering.scores import contained, exact_match, vqa_score

PAPERS = {"OKVQA": "VQA score", "Infoseek": "Accuracy"}  # of the tasks in Table 7, what is computed
EXACT, CONTAINED = "Exact match", "Contained answer"


def measure_of(task: str) -> str:
    """What a task's answers are measured by: the paper's measure, or exact match."""
    return PAPERS.get(task, EXACT)


def judge_answer(task: str, answer: str, answers: Sequence[str]) -> dict[str, float]:
    """Every measure of one answer.

    ``Exact match`` and ``Contained answer`` (see `preflmr.answering.scores.contained`) of any task; ``VQA score`` of
    OKVQA; ``Accuracy`` of Infoseek: exact match, or the first number of the answer lies in a range. A range is an
    answer that reads as ``[lowest, highest]``, or as Infoseek's own ``{"wikidata": ..., "range": [lowest, highest]}``.

    Args:
        task: its name in `preflmr.data.tasks.TASKS`, or one of one's own.
        answers: those that are right; for OKVQA of all annotators.

    Raises:
        ValueError: there is no right answer.

    >>> judge_answer("Infoseek", "about 12 m", ["[11.5, 12.5]"])
    {'Exact match': 0.0, 'Contained answer': 0.0, 'Accuracy': 1.0}
    """
    if not answers:
        raise ValueError("answers must hold at least one answer, got none")
    judged = {EXACT: exact_match(answer, answers), CONTAINED: contained(answer, answers)}
    if task == "OKVQA":
        judged["VQA score"] = vqa_score(answer, answers)
    if task == "Infoseek":
        judged["Accuracy"] = exact_match(answer, [_range(one) or one for one in answers])
    return judged


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean of each measure over questions that were judged."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def _range(answer: str) -> tuple[float, float] | None:
    if answer.strip()[:1] not in ("[", "(", "{"):
        return None
    try:
        value = ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError):
        return None
    value = value.get("range") if isinstance(value, dict) else value
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(isinstance(v, (int, float)) for v in value):
        return None
    return float(value[0]), float(value[1])
