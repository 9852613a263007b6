"""Validation by real retrieval: encode a task's passages and questions, index, search, measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from lateint import Index
from preflmr import instructions
from preflmr.data.images import Images
from preflmr.data.m2kr import Dataset, load
from preflmr.encoding.workers import evaluating
from preflmr.evaluation.config import EvalConfig
from preflmr.evaluation.passage_index import passage_index
from preflmr.evaluation.retrieval import evaluate
from preflmr.retrievers import adapted
from preflmr.training import drawing
from preflmr.training.batches import Batches
from preflmr.training.objective import Objective
from preflmr.training.recipe import NLL, Check, Source, TrainConfig, Validation


def load_tasks(config: TrainConfig, names: Sequence[str] | None = None) -> dict[str, Dataset]:
    """The data sets of ``validation.tasks`` by name.

    Args:
        names: of some tasks; None: all.

    Raises:
        ValueError: a task names no source, or no measure where its data set has none.
    """
    found: dict[str, Dataset] = {}
    for name in config.validation.tasks if names is None else names:
        check = config.validation.tasks[name]
        source, images = check.source or config.data.source, check.images or config.data.images
        if source is None:
            raise ValueError(f"validation.tasks.{name} must name its source, or data.source that of all, got neither")
        found[name] = load(
            source,
            check.task,
            check.split,
            images=None if images is None else Images(images),
            limit=check.questions,
            strict=config.data.strict,
        )
        if (check.measure or found[name].task.measure) is None:
            raise ValueError(f"validation.tasks.{name} must name its measure, {found[name].task.name} has none")
        if check.measure == NLL:
            drawing.check(f"validation.tasks.{name}", found[name], config.data.negatives)
    return found


class Validator:
    """Measures a model on the tasks of a recipe: ``validator(model) -> {task: value}``.

    Passages that training does not change are indexed once.

    Args:
        config: the recipe.
        rank, devices: of several devices each measures its share of the tasks: every ``devices``-th, from ``rank`` on.
    """

    def __init__(self, config: TrainConfig, rank: int = 0, devices: int = 1) -> None:
        self.config = config
        self.tasks = load_tasks(config, list(config.validation.tasks)[rank::devices])
        self._indexes: dict[str, Index] = {}

    def __call__(self, model: Any) -> dict[str, float]:
        return {name: self.measure(model, name) for name in self.tasks}

    def measure(self, model: Any, name: str) -> float:
        """One task."""
        config, settings = self.config, self.config.validation
        dataset, check = self.tasks[name], settings.tasks[name]
        measure = str(check.measure or dataset.task.measure)
        if measure == NLL:
            return nll(model, dataset, name, check, config)
        asked: dict[str, Any] = {
            "ks": (int(measure.partition("@")[2]),),
            "method": "exact" if check.exact else "index",
            "instruction": _instruction(check, config),
            "on_missing": config.data.on_missing,
            "nbits": settings.nbits,
            "batch_size": settings.batch_size,
            "dtype": {"no": None, "bf16": "bfloat16", "fp16": "float16"}[config.precision],
        }
        index = None if check.exact else self._indexes.get(name)
        if index is None and not check.exact:
            index = passage_index(model, dataset, None, EvalConfig(**asked), progress=False)
            if not self._changes_documents(model):
                self._indexes[name] = index
        found = evaluate(model, dataset, index, progress=False, **asked)
        if measure not in found.summary["measures"]:
            raise ValueError(f"{dataset.task.name} {dataset.split}: no question has what {measure} needs")
        return found[measure]

    def _changes_documents(self, model: Any) -> bool:
        return any(part in self.config.learning_rates for part in adapted(model).reading.document_parts)


def nll(model: Any, dataset: Dataset, name: str, check: Check, config: TrainConfig) -> float:
    """The mean loss of the questions of a data set, in whole batches: what `Check` says of ``NLL``."""
    source = Source(source="given", instructions=check.instructions)
    alone: dict[str, Any] = {
        "homogeneous_batches": False,
        "augment": (),
        "cache_images": False,
        "cache_documents": False,
        "workers": 0,
    }
    data = replace(config.data, mix={name: source}, **alone)
    loss = replace(config.loss, distillation=None, across_devices=False, chunk=None)
    size = min(config.batch_size, len(dataset))
    vision = "vision" in config.query_parts
    batches = Batches(data, {name: dataset}, model, batch_size=size, seed=0, vision=vision)
    objective = Objective(model, replace(config, data=data, loss=loss), batches)
    module = adapted(model).model
    device = next(module.parameters()).device
    precision = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    total, n = 0.0, len(dataset) // size
    with torch.no_grad(), evaluating(list(module.modules())):
        for number in range(n):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                total += float(objective(batches[number].to(device)))
    return total / n


@dataclass
class History:
    """What validations found, and what follows from it.

    Attributes:
        found: a dict of each validation, by step.
        best: the best step so far, and its value; None before the first validation.
    """

    found: dict[int, dict[str, float]] = field(default_factory=dict)
    best: tuple[int, float] | None = None

    def add(self, step: int, values: Mapping[str, float], settings: Validation) -> bool:
        """Takes in a validation; returns whether it is the best one."""
        self.found[step] = dict(values)
        if settings.select == "last":
            return False
        value = float(np.mean(list(values.values()))) if settings.select == "mean" else values[settings.select]
        if self.best is not None and settings.sign * value <= settings.sign * self.best[1]:
            return False
        self.best = step, value
        return True

    def should_stop(self, settings: Validation) -> bool:
        """Whether any task was worse than the time before in the last ``stop_after`` validations, one after another."""
        n = settings.stop_after
        if n is None or len(self.found) <= n:
            return False
        last = [self.found[step] for step in sorted(self.found)][-n - 1 :]
        signs = {name: settings.tasks[name].sign for name in last[0]}
        return any(
            all(sign * after[name] < sign * before[name] for before, after in pairwise(last))
            for name, sign in signs.items()
        )


def _instruction(check: Check, config: TrainConfig) -> str | None:
    """As `evaluate` wants it: None for the row's, "" for none; of several templates the first."""
    if check.instructions == "none" or not config.data.use_instructions:
        return ""
    return None if check.instructions == "row" else instructions.TEMPLATES[check.instructions][0]
