"""Judges what a search found for the questions of a data set: per question, and the means."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeAlias

from lateint import metrics
from preflmr.data.m2kr import Example, Passages
from preflmr.evaluation import measures
from preflmr.evaluation.config import KS

Ranking: TypeAlias = tuple[Sequence[int], Sequence[float]]  # positions of passages and their scores, best first


def judge(
    examples: Sequence[Example], passages: Passages, rankings: Sequence[Ranking], ks: Sequence[int] = KS
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """What was found for each question, judged, and the means.

    Recall is measured if a question has positives, pseudo recall if one has answers. With enough passages there are
    further means of `lateint.metrics`: ``MRR@10``, ``nDCG@10``, and ``Share@50``, the share of a question's positives
    among the first 50.

    Args:
        rankings: for each example positions of passages, best first, and their scores.

    Returns:
        What `preflmr.evaluation.retrieval.Evaluation` calls questions (an id that comes again has ``#2`` added), and
        the means.

    Raises:
        ValueError: nothing was found for a question.
    """
    judged = {"Recall": any(example.positive_ids for example in examples)}
    judged["Pseudo Recall"] = any(example.answers for example in examples)
    lowered: dict[int, str] = {}  # each passage found, once, in lower case
    questions: dict[str, dict[str, Any]] = {}
    qrels: dict[str, Mapping[str, int]] = {}
    for example, (positions, scores) in zip(examples, rankings, strict=True):
        ids = [passages.ids[position] for position in positions]
        row: dict[str, Any] = {
            "retrieved_passage": [
                {"passage_id": id, "score": float(score)} for id, score in zip(ids, scores, strict=True)
            ]
        }
        ranks: dict[str, int | None] = {}
        if judged["Recall"]:
            ranks["Recall"] = measures.positive_rank(ids, set(example.positive_ids))
        if judged["Pseudo Recall"]:
            texts = (_lowered(lowered, passages, position) for position in positions)
            ranks["Pseudo Recall"] = measures.answer_rank(texts, example.answers, len(positions))
        row |= {f"{name}@{k}": measures.at(rank, k) for name, rank in ranks.items() for k in ks}
        name = unused(example.question_id, questions)
        questions[name] = row
        qrels[name] = dict.fromkeys(example.positive_ids, 1)
    names = [f"{name}@{k}" for name, has in judged.items() if has for k in ks]
    means = {name: sum(row[name] for row in questions.values()) / len(questions) for name in names}
    if judged["Recall"]:
        means |= _ranked(qrels, questions, max(ks))
    return questions, means


def _ranked(
    qrels: Mapping[str, Mapping[str, int]], questions: Mapping[str, Mapping[str, Any]], k: int
) -> dict[str, float]:
    run = {id: {one["passage_id"]: one["score"] for one in row["retrieved_passage"]} for id, row in questions.items()}
    means = {}
    if k >= 10:
        means["MRR@10"] = metrics.mrr(qrels, run, 10)
        means["nDCG@10"] = metrics.ndcg(qrels, run, 10)
    if k >= 50:
        means["Share@50"] = metrics.recall(qrels, run, 50)
    return means


def _lowered(known: dict[int, str], passages: Passages, position: int) -> str:
    if position not in known:
        known[position] = passages.texts[position].lower()
    return known[position]


def unused(id: str, taken: Container[str]) -> str:
    """The id, or with ``#2``, ``#3`` ... added if it is taken."""
    name, number = id, 1
    while name in taken:
        number += 1
        name = f"{id}#{number}"
    return name
