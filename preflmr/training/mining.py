"""Hard negatives: what an index finds for a question and is no positive of it, written to a file that batches read.

One JSON object a line, passages by id with the score that the mining model gave them, best first::

    {"question_id": "q7", "positives": {"d3": 31.5}, "negatives": {"d9": 30.2, "d1": 28.8}}

The scores serve as a teacher's, for distillation.
"""

from __future__ import annotations

import gzip
import json
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from lateint.disk import whole
from preflmr.data.ids import Digests, Positions
from preflmr.data.m2kr import Dataset, Example
from preflmr.data.rows import Column, Lines
from preflmr.evaluation.retrieval import evaluate


@dataclass(frozen=True)
class Mined:
    """Passages of one question by id, with scores."""

    positives: dict[str, float]
    negatives: dict[str, float]


def mine(
    model: Any,
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    k: int = 50,
    skip: int = 0,
    without_answer: bool = True,
    **settings: Any,
) -> int:
    """Searches a data set's own passages for each of its questions, and writes what is found to a file.

    Args:
        model: a `PreFLMR` with its tokenizers.
        dataset: the training questions and passages.
        path: the file to write, gzipped if it ends in ``.gz``; replaced when it is complete.
        k: negatives of each question, at most.
        skip: leave out so many of the best ones, which may be answers that nobody marked.
        without_answer: leave out passages that contain one of the question's answers, likewise.
        settings: of `preflmr.evaluation.retrieval.evaluate`: ``index``, ``nbits``, ``batch_size``, ``dtype`` ...

    Returns:
        How many negatives were found. A positive that is not among the ``2 * k + skip`` best has no score.

    Raises:
        ValueError: k is below 1, or skip below 0.
    """
    if k < 1 or skip < 0:
        raise ValueError(f"k must be at least 1 and skip at least 0, got {k} and {skip}")
    depth = min(len(dataset.passages), 2 * k + skip)
    questions = evaluate(model, dataset, ks=(depth,), **settings).questions
    path, found = Path(path), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole.file(path) as part,
        gzip.open(part, "wt", encoding="utf-8") if path.suffix == ".gz" else part.open("w", encoding="utf-8") as file,
    ):
        for example in dataset.examples:
            if example.question_id not in questions:
                continue
            hits = questions[example.question_id]["retrieved_passage"]
            ranked = {str(hit["passage_id"]): float(hit["score"]) for hit in hits}
            positives = {id: score for id, score in ranked.items() if id in example.positive_ids}
            negatives = list(_negatives(dataset, example, ranked, without_answer))[skip : skip + k]
            found += len(negatives)
            row = {"question_id": example.question_id, "positives": positives, "negatives": dict(negatives)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return found


def read_mined(path: str | os.PathLike[str]) -> Mapping[str, Mined]:
    """What `mine` wrote, by question id; it stays on disk.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not as the module says; the message names it.
    """
    table = Lines(Path(path))
    keys, digests = array("q"), Digests()
    for place, key, row in table.rows((), ()):
        _mined(row, place)
        keys.append(key)
        digests.add(row["question_id"])
    names = Column(table, np.frombuffer(keys, np.int64), (), itemgetter("question_id"))
    return _MinedFile(names, Positions(names, digests.ascending()))


class _MinedFile(Mapping[str, Mined]):
    def __init__(self, names: Column[str], positions: Positions) -> None:
        self._rows = Column(names.table, names.keys, (), _mined)
        self._positions = positions

    def __getitem__(self, id: str) -> Mined:
        return self._rows[self._positions[id]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._rows)


def _mined(row: Mapping[str, Any], place: str = "row") -> Mined:
    try:
        if not isinstance(row["question_id"], str):
            raise TypeError("question_id is no string")
        return Mined(_scores(row["positives"]), _scores(row["negatives"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        rule = "must be an object with question_id, positives and negatives"
        raise ValueError(f"{place}: {rule}: {type(error).__name__}: {error}") from None


def _scores(passages: Mapping[str, Any]) -> dict[str, float]:
    return {str(id): float(score) for id, score in passages.items()}


def _negatives(
    dataset: Dataset, example: Example, ranked: Mapping[str, float], without_answer: bool
) -> Iterator[tuple[str, float]]:
    answers = [answer.strip().lower() for answer in example.answers if answer.strip()] if without_answer else []
    for id, score in ranked.items():
        text = dataset.passages.texts[dataset.passages.position(id)].lower()
        if id not in example.positive_ids and not any(answer in text for answer in answers):
            yield id, score
