"""What a generator is asked: for each question a prompt with each of its K best passages, and the pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflmr.data.images import blank, pictures, require
from preflmr.data.m2kr import Dataset, Example
from preflmr.evaluation.judging import unused

Found = Mapping[str, Mapping[str, Any]]  # what `preflmr.evaluation.retrieval.Evaluation` calls questions


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What was found for each question, from the file that ``preflmr eval --out`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of retrieved passages")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for row in found.values():
            for one in row["retrieved_passage"]:
                float(one["score"]), one["passage_id"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} must be what preflmr eval wrote: passages and their scores by question") from None
    return dict(found)


def log_prior(scores: Sequence[float], temperature: float = 1.0) -> NDArray[np.float64]:
    """``log_softmax(scores / temperature)``, ``[K]``: how likely each passage is before anything is generated.

    >>> log_prior([0.0, 0.0]).round(4).tolist()
    [-0.6931, -0.6931]
    """
    logits = np.asarray(scores, np.float64) / temperature
    logits = logits - logits.max()
    return np.asarray(logits - np.log(np.exp(logits).sum()))


@dataclass
class Asked:
    """A question under its name in the results, and what was generated for it."""

    name: str
    example: Example
    candidates: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Prompt:
    """What is generated at once: a prompt, its pictures, and what is known of its passage."""

    asked: Asked
    prompt: str
    pictures: list[Any]
    about: dict[str, Any]


@dataclass
class Asking:
    """Makes prompts of questions, and counts what was cut and what is missing."""

    generator: Any
    dataset: Dataset
    found: Found | None
    k: int
    temperature: float
    on_missing: str
    asked: list[Asked] = field(default_factory=list)
    prompts: list[list[tuple[str, dict[str, Any]]]] = field(default_factory=list)  # of each that was asked
    cut: int = 0
    left_out: int = 0
    missing: int = 0

    def prepare(self, examples: Sequence[Example]) -> None:
        names: dict[str, None] = {}
        for example in examples:
            names[name := unused(example.question_id, names)] = None
            if self.on_missing == "error":
                require(self.dataset.images, example.images, f"question {example.question_id!r}")
            self.asked.append(Asked(name, example))
            self.prompts.append([] if self._left_out(name, example) else self._prompts(name, example))

    def batches(self, size: int) -> Iterator[list[Prompt]]:
        waiting: list[Prompt] = []
        for asked, prompts in zip(self.asked, self.prompts, strict=True):
            shown = self._shown(asked.example) if prompts else None
            if shown is None:
                self.left_out += 1
                continue
            for prompt, about in prompts:
                waiting.append(Prompt(asked, prompt, shown, about))
                if len(waiting) == size:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def _left_out(self, name: str, example: Example) -> bool:
        """Whether the search, too, left the question out for its picture; this is looked up where it found nothing."""
        if self.on_missing != "skip" or self.found is None or name in self.found:
            return False
        shown, absent = pictures(self.dataset.images, example.images, "skip")
        self.missing += absent
        return shown is None

    def _shown(self, example: Example) -> list[Any] | None:
        """Those of a question, at least a black one; None: leave it out."""
        shown, absent = pictures(self.dataset.images, example.images, self.on_missing)
        self.missing += absent
        return [blank()] if shown == [] else shown

    def _prompts(self, name: str, example: Example) -> list[tuple[str, dict[str, Any]]]:
        try:
            if self.found is None:
                text, _ = self.generator.prompt(example.question, pictures=max(1, len(example.images)))
                return [(text, {"passage_id": None, "log_prior": 0.0})]
            prompts = []
            for id, prior in self._passages(name):
                passage = self.dataset.passages.texts[self.dataset.passages.position(id)]
                text, cut = self.generator.prompt(example.question, passage, max(1, len(example.images)))
                self.cut += cut
                prompts.append((text, {"passage_id": id, "log_prior": prior}))
            return prompts
        except ValueError as error:
            raise ValueError(f"question {name!r}: {error}") from None

    def _passages(self, name: str) -> list[tuple[str, float]]:
        """The ids of the k best passages and the logarithm of their prior."""
        assert self.found is not None
        if name not in self.found:
            count = len(self.found)
            raise ValueError(f"nothing was retrieved for it, for {count:,} others: was it other data, or a --limit?")
        rows = self.found[name]["retrieved_passage"][: self.k]
        if len(rows) < self.k:
            raise ValueError(f"k must be at most the {len(rows)} passages that were retrieved, got {self.k}")
        for row in rows:
            if row["passage_id"] not in self.dataset.passages.positions:
                count = len(self.dataset.passages)
                raise ValueError(f"retrieved passage {row['passage_id']!r} is not among the {count:,} of the data")
        prior = log_prior([row["score"] for row in rows], self.temperature)
        return [(row["passage_id"], value) for row, value in zip(rows, prior.tolist(), strict=True)]
