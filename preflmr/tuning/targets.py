"""What is drawn for a question of a step: passages, and what should be answered beside each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preflmr.answering.asking import log_prior
from preflmr.answering.scores import gold_answer
from preflmr.data.images import blank, pictures
from preflmr.data.m2kr import Dataset, Example
from preflmr.tuning.config import TuneConfig

ORDER, DRAW = 5, 6  # what random numbers are for


@dataclass(frozen=True)
class Lesson:
    """A question with some of its passages.

    Attributes:
        prompts: one a passage.
        targets: the answer to each.
        priors: ``log p(passage)`` of each.
        pictures: of the question.
    """

    prompts: list[str]
    targets: list[str]
    priors: list[float]
    pictures: list[Any]


class Lessons:
    """Lesson number n for any n, a function of (seed, n): epochs follow each other, each in an order of its own.

    Args:
        dataset: the questions, which must have right answers.
        found: what was retrieved for each, see `preflmr.answering.asking.read_run`.
        generator: makes prompts.

    Raises:
        ValueError: a question has no right answer, or fewer than k passages were retrieved for it.
    """

    def __init__(
        self, dataset: Dataset, found: Mapping[str, Mapping[str, Any]], generator: Any, config: TuneConfig
    ) -> None:
        self.dataset, self.found, self.generator, self.config = dataset, found, generator, config
        self.examples = dataset.examples[: config.train.limit]
        for example in self.examples:
            name = f"question {example.question_id!r}"
            if not example.answers:
                raise ValueError(f"{name} must have right answers to learn, got none")
            count = len(found.get(example.question_id, {}).get("retrieved_passage", ()))
            if count < config.k:
                raise ValueError(f"{name} must have {config.k} retrieved passages, got {count}")
        self._order: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Lesson:
        config = self.config
        epoch, place = divmod(number, len(self))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((ORDER, config.seed, epoch))
            self._order = epoch, rng.permutation(len(self))
        rng = np.random.default_rng((DRAW, config.seed, number))
        for _ in range(100):
            example = self.examples[int(self._order[1][place])]
            on_missing = config.train.on_missing
            shown, _absent = pictures(self.dataset.images, example.images, on_missing)
            if shown is not None:
                return self._lesson(example, shown or [blank()], rng)
            place = int(rng.integers(len(self)))
        raise ValueError("train: 100 questions in a row have no readable picture, see on_missing")

    def _lesson(self, example: Example, shown: list[Any], rng: np.random.Generator) -> Lesson:
        config = self.config
        rows = self.found[example.question_id]["retrieved_passage"][: config.k]
        chosen = [rows[i] for i in sorted(rng.permutation(config.k)[: config.read])]
        passages = self.dataset.passages
        texts = [passages.texts[passages.position(row["passage_id"])] for row in chosen]
        gold = gold_answer(example.answers)
        return Lesson(
            [self.generator.prompt(example.question, text, len(shown))[0] for text in texts],
            [gold if config.loss == "marginal" else target(text, example.answers) for text in texts],
            log_prior([row["score"] for row in chosen], config.temperature).tolist(),
            shown,
        )


def target(passage: str, answers: Sequence[str]) -> str:
    """What should be answered beside a passage: the gold answer, unless the passage contains others alone.

    Then it is the one of these given most often. Contained is ``answer.strip().lower() in passage.lower()``.

    >>> target("a dog and a cat", ["cow", "cow", "cat"]), target("nothing", ["cow", "cow", "cat"])
    ('cat', 'cow')
    """
    gold, text = gold_answer(answers), passage.lower()
    counted = Counter(answer for answer in answers if answer.strip() and answer.strip().lower() in text)
    return gold if gold in counted or not counted else counted.most_common(1)[0][0]
