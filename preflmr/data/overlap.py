"""What two splits share, and which questions of one are new to the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preflmr.data.examples import Example
from preflmr.data.ids import Digests, Positions
from preflmr.data.m2kr import Dataset

UNSEEN_QUESTION, UNSEEN_ENTITY, SEEN = "unseen question", "unseen entity", "seen"


@dataclass(frozen=True)
class Overlap:
    """How many questions of a split share something with training.

    Attributes:
        questions: all of them.
        ids: with a question id that training has.
        pictures: with a picture of training, by its path.
        pairs: with a picture and a question that training has together: what must not be.
        passages: with a positive that is a positive of training.
    """

    questions: int
    ids: int
    pictures: int
    pairs: int
    passages: int


class Known:
    """What training has, by 20 bytes an item, so that millions of questions fit.

    Args:
        examples: of training.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        kept: dict[str, Digests] = {name: Digests() for name in ("ids", "pictures", "pairs", "passages", "questions")}
        for example in examples:
            for name, values in _items(example).items():
                for value in values:
                    kept[name].add(value)
        self._has = {name: Positions((), digests.ascending()) for name, digests in kept.items()}

    def overlap(self, examples: Sequence[Example]) -> Overlap:
        """What questions of another split share with training."""
        counts = dict.fromkeys(("ids", "pictures", "pairs", "passages"), 0)
        for example in examples:
            items = _items(example)
            for name in counts:
                counts[name] += any(value in self._has[name] for value in items[name])
        return Overlap(len(examples), **counts)

    def kind(self, example: Example) -> str:
        """`UNSEEN_ENTITY` if no positive of the question is one of training, else `UNSEEN_QUESTION` if training does
        not ask so, else `SEEN`: the splits of Infoseek (Chen et al. 2023), by passages where there are no entities."""
        items = _items(example)
        if items["passages"] and not any(one in self._has["passages"] for one in items["passages"]):
            return UNSEEN_ENTITY
        return SEEN if any(one in self._has["questions"] for one in items["questions"]) else UNSEEN_QUESTION


def subset_means(
    dataset: Dataset, known: Known, questions: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """The means of measures over each kind of questions, and how many these are; kinds without questions are left out.

    ``overall`` is the harmonic mean of both unseen kinds, as Infoseek measures.

    Args:
        questions: results by question id, of `preflmr.evaluation.retrieval.Evaluation` or
            `preflmr.answering.answers.Answers`.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for example in dataset.examples:
        if example.question_id in questions:
            row = questions[example.question_id]
            values = {name: value for name, value in row.items() if isinstance(value, float)}
            if values:
                rows.setdefault(known.kind(example), []).append(values)
    means = {
        kind: {"questions": float(len(some)), **{name: sum(one[name] for one in some) / len(some) for name in some[0]}}
        for kind, some in rows.items()
    }
    if UNSEEN_QUESTION in means and UNSEEN_ENTITY in means:
        first, second = means[UNSEEN_QUESTION], means[UNSEEN_ENTITY]
        both = [name for name in first if name != "questions"]
        means["overall"] = {name: _harmonic(first[name], second[name]) for name in both}
    return means


def statistics(dataset: Dataset) -> dict[str, float]:
    """Counts and mean lengths of a split: questions, those with pictures, positives, words; passages and theirs."""
    examples, passages = dataset.examples, dataset.passages
    count = max(1, len(examples))
    asked = positives = pictured = 0
    for example in examples:
        asked += len(example.question.split())
        positives += len(example.positive_ids)
        pictured += bool(example.images)
    words = sum(len(text.split()) for text in passages.texts)
    return {
        "questions": len(examples),
        "with pictures": pictured,
        "words a question": asked / count,
        "positives a question": positives / count,
        "passages": len(passages),
        "with pictures (passages)": sum(path is not None for path in passages.images or ()),
        "words a passage": words / max(1, len(passages)),
    }


def _items(example: Example) -> dict[str, list[str]]:
    question = example.question.strip().lower()
    return {
        "ids": [example.question_id],
        "pictures": list(example.images),
        "pairs": [f"{path}\0{question}" for path in example.images],
        "passages": list(example.positive_ids),
        "questions": [question],
    }


def _harmonic(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0
