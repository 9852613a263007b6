"""Makes a data set in M2KR's columns out of another, by the steps of M2KR's appendix A (arXiv 2402.08327).

The paper drops questions that come again for one entity (OVEN, E-VQA), keeps questions whose answer is in a positive
(Infoseek), draws so many of a split at random, and has no training picture and question in a test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lateint.disk import whole
from preflmr.data.examples import Example
from preflmr.data.m2kr import Dataset, load
from preflmr.data.overlap import Known

TEST_SPLITS = ("valid", "test")


def construct(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    task: str | None = None,
    *,
    splits: Sequence[str] = ("train", "valid", "test"),
    sizes: Mapping[str, int] | None = None,
    unique: bool = False,
    answered: bool = False,
    leaks: str = "error",
    seed: int = 0,
    strict: bool = True,
) -> dict[str, dict[str, int]]:
    """Writes ``SPLIT.jsonl`` and ``SPLIT_passages.jsonl`` into a new folder, whole or not at all.

    Args:
        source, task, strict: see `preflmr.data.m2kr.load`.
        splits: which, in the order in which they are written.
        sizes: at most so many questions of a split, drawn by ``seed``.
        unique: of questions that are alike and have the same positives, keep the first.
        answered: keep questions of which a positive contains an answer.
        leaks: a picture with a question that training has together, in another split: ``"error"``, or ``"drop"``
            leaves it out of training.
        seed: of what is drawn.

    Returns:
        For each split how many questions there were, and how many each step left out.

    Raises:
        FileExistsError: there is something in ``folder``.
        ValueError: a split shares pairs of picture and question with training, or nothing is left of one.
    """
    if leaks not in ("error", "drop"):
        raise ValueError(f"leaks must be error or drop, got {leaks!r}")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists and is not empty; choose a new folder")
    data = {split: load(source, task, split, strict=strict) for split in splits}
    kept: dict[str, list[Example]] = {}
    told: dict[str, dict[str, int]] = {}
    for split, dataset in data.items():
        told[split] = {"questions": len(dataset)}
        examples = list(dataset.examples)
        if unique:
            examples = _counted(told[split], "asked before", examples, list(_unique(examples)))
        if answered:
            examples = _counted(
                told[split], "without answer in a positive", examples, list(_answered(dataset, examples))
            )
        size = (sizes or {}).get(split)
        if size is not None and size < len(examples):
            chosen = sorted(np.random.default_rng(seed).permutation(len(examples))[:size].tolist())
            examples = _counted(told[split], "not drawn", examples, [examples[i] for i in chosen])
        kept[split] = examples
    _check_leaks(kept, told, leaks)
    for split, examples in kept.items():
        if not examples:
            raise ValueError(f"{split}: no question is left of {len(data[split]):,}")
        told[split]["kept"] = len(examples)
    with whole.folder(folder, replace=folder.exists()) as place:
        for split, examples in kept.items():
            _write(place / f"{split}.jsonl", map(_question, examples))
            _write(place / f"{split}_passages.jsonl", _passages(data[split]))
    return told


def _check_leaks(kept: dict[str, list[Example]], told: dict[str, dict[str, int]], leaks: str) -> None:
    for split in (split for split in kept if split in TEST_SPLITS and "train" in kept):
        if leaks == "error":
            found = Known(kept["train"]).overlap(kept[split])
            if found.pairs:
                raise ValueError(f"{split} shares {found.pairs:,} pairs of picture and question with train; see leaks")
            continue
        tested = Known(kept[split])
        free = [one for one in kept["train"] if not tested.overlap([one]).pairs]
        kept["train"] = _counted(told["train"], f"in {split}", kept["train"], free)


def _counted(told: dict[str, int], name: str, before: list[Example], after: list[Example]) -> list[Example]:
    told[name] = len(before) - len(after)
    return after


def _unique(examples: Sequence[Example]) -> Iterator[Example]:
    seen = set()
    for example in examples:
        key = example.question.strip().lower(), tuple(sorted(example.positive_ids))
        if key not in seen:
            seen.add(key)
            yield example


def _answered(dataset: Dataset, examples: Sequence[Example]) -> Iterator[Example]:
    for example in examples:
        texts = [dataset.passages.texts[dataset.passages.position(id)].lower() for id in example.positive_ids]
        if any(answer.strip().lower() in text for answer in example.answers for text in texts):
            yield example


def _question(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"question_id": example.question_id, "question": example.question}
    row |= {"instruction": example.instruction, "img_path": list(example.images)}
    return row | {"pos_item_ids": list(example.positive_ids), "answers": list(example.answers)}


def _passages(dataset: Dataset) -> Iterator[dict[str, Any]]:
    passages = dataset.passages
    for position, (id, text) in enumerate(zip(passages.ids, passages.texts, strict=True)):
        image = None if passages.images is None else passages.images[position]
        yield {"passage_id": id, "passage_content": text, **({} if image is None else {"img_path": image})}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
