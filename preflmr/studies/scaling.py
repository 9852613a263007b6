"""How results depend on the sizes of the encoders (PreFLMR, sections 5.2 to 5.4): a grid of models, trained, measured.

A study is a YAML file::

    output: runs/scaling
    recipe:                                            # of one stage, or of several under stages
      stages:
        stage1: {base: stage1.yaml}
        stage2: {base: stage2.yaml}
    axes:                                              # every combination is a model
      vision: {B: {stages: {stage1: {base: [stage1.yaml, models/vit-b.yaml]}}}, L: ...}
      text: {S: {...}, B: {...}}
    evaluate:                                          # by name; settings of `EvalConfig` may follow
      WIT: {source: ..., task: WIT}
    hours: 200                                         # of training and evaluation; none: as long as it takes

What a value of an axis says is merged over the recipe, key by key. Everything is resumable: stages that are finished
are not run again, one that was cut off goes on, and what is measured is not measured again. No stage is begun once the
hours, those of earlier sittings included, are over.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preflmr.data.m2kr import Dataset, load
from preflmr.evaluation.config import EvalConfig
from preflmr.evaluation.measures import average_ranks
from preflmr.evaluation.results import write_json
from preflmr.evaluation.retrieval import evaluate
from preflmr.studies import figures
from preflmr.training import recipe_file, train
from preflmr.training.recipe import TrainConfig
from preflmr.training.schema import Positive, build, settings

RESULTS, RADAR, SIZES, MEASURED = "results.json", "radar.svg", "sizes.svg", "measured.json"


@settings
class Task:
    """What models are measured on.

    Args:
        source, task, split, images: see `preflmr.data.m2kr.load`.
        measure: such as "Recall@5"; None: the task's.
        settings: of `preflmr.evaluation.config.EvalConfig`.
    """

    source: str
    task: str | None = None
    split: str = "test"
    images: str | None = None
    measure: str | None = None
    settings: dict[str, Any] | None = None


@settings
class Study:
    """See the module."""

    output: str
    recipe: dict[str, Any]
    axes: dict[str, dict[str, dict[str, Any]]]
    evaluate: dict[str, Task]
    hours: Positive | None = None

    def __post_init__(self) -> None:
        if not self.axes or not all(self.axes.values()):
            raise ValueError(f"axes must name values to choose from, got {self.axes}")
        if not self.evaluate:
            raise ValueError("evaluate must name at least one task, got none")
        for task in self.evaluate.values():
            EvalConfig(**task.settings or {})

    def models(self) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
        """The name of each combination, its value on each axis, and its recipe."""
        for values in itertools.product(*(axis.items() for axis in self.axes.values())):
            recipe: dict[str, Any] = dict(self.recipe)
            for _, own in values:
                recipe = recipe_file.merged(recipe, own)
            chosen = dict(zip(self.axes, (name for name, _ in values), strict=True))
            yield "-".join(chosen.values()), chosen, recipe


def read(path: str | Path) -> Study:
    """A study from a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no study; the message says where.
    """
    try:
        return build(Study, recipe_file.load_yaml(Path(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def run(study: Study, beside: Path = Path("study.yaml"), *, cpu: bool = False, progress: bool = True) -> dict[str, Any]:
    """Trains and measures what is not yet, and writes ``results.json``, ``radar.svg`` and ``sizes.svg``.

    Args:
        beside: the study's file, beside which recipes that it names are looked for.
        cpu, progress: see `preflmr.training.train.run`.

    Returns:
        What ``results.json`` holds: of each model its parameters, seconds and measures; and what is left for want of
        hours.
    """
    stages = {
        name: recipe_file.stages_of(recipe, beside, {"output": f"{study.output}/{name}"})
        for name, _, recipe in study.models()
    }  # all of them, so that what is wrong with one shows before anything is trained
    datasets = {name: _load(task) for name, task in study.evaluate.items()}
    for name, dataset in datasets.items():
        if (study.evaluate[name].measure or dataset.task.measure) is None:
            raise ValueError(f"evaluate.{name} must name its measure, {dataset.task.name} has none")
    budget = _Budget(study.hours, sum(_spent(study.output, name, stages[name]) for name in stages))
    models, left = [], []
    for name, chosen, _ in study.models():
        try:
            for config in stages[name].values():
                if not _is_done(config):
                    budget.check()
                budget.spend(lambda config=config: train.run(config, resume=True, cpu=cpu, progress=progress))
            last = list(stages[name].values())[-1]
            found = budget.spend(lambda last=last, name=name: _measured(study, name, last, datasets, progress))
            models.append({"name": name, **chosen, **found})
        except _Over:
            left.append(name)
    results = {"axes": list(study.axes), "models": models, "left": left}
    write_json(Path(study.output) / RESULTS, results)
    for file, draw in ((RADAR, radar), (SIZES, sizes)):
        if drawn := draw(results):
            (Path(study.output) / file).write_text(drawn, encoding="utf-8")
    return results


def radar(results: Mapping[str, Any]) -> str | None:
    """All models on all tasks, as in the paper's Figure 3; None: there are fewer than three tasks, or no model."""
    series = {model["name"]: model["measures"] for model in results["models"]}
    if not series or len(next(iter(series.values()))) < 3:
        return None
    return figures.radar(series, title="Each model on each task")


def sizes(results: Mapping[str, Any]) -> str | None:
    """Each task's measure over the number of parameters; None: there is no model."""
    series: dict[str, list[tuple[float, float]]] = {}
    for model in results["models"]:
        for task, value in model["measures"].items():
            series.setdefault(task, []).append((float(model["parameters"]["total"]), value))
    if not series:
        return None
    return figures.lines(series, title="Results by size", x="parameters", y="measure", logarithmic=True)


def table(results: Mapping[str, Any]) -> str:
    """All models in Markdown, with their average rank."""
    models = results["models"]
    if not models:
        return "No model is trained yet.\n"
    tasks = list(models[0]["measures"])
    ranks = average_ranks({model["name"]: list(model["measures"].values()) for model in models})
    lines = ["| model | parameters | " + " | ".join(tasks) + " | A.R. |", "| --- " * (len(tasks) + 3) + "|"]
    for model in models:
        values = " | ".join(f"{100 * model['measures'][task]:.1f}" for task in tasks)
        size = f"{model['parameters']['total'] / 1e6:.1f}M"
        lines.append(f"| {model['name']} | {size} | {values} | {ranks[model['name']]:.1f} |")
    if results["left"]:
        lines += ["", f"Left for want of hours: {', '.join(results['left'])}"]
    return "\n".join(lines) + "\n"


class _Over(Exception):
    """The hours are."""


class _Budget:
    def __init__(self, hours: float | None, spent: float) -> None:
        self.seconds, self.spent = None if hours is None else 3600 * hours, spent

    def check(self) -> None:
        if self.seconds is not None and self.spent >= self.seconds:
            raise _Over

    def spend(self, work: Any) -> Any:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self.spent += time.perf_counter() - started


def _is_done(config: TrainConfig) -> bool:
    return (Path(config.output) / "summary.json").is_file()


def _spent(output: str, name: str, stages: Mapping[str, TrainConfig]) -> float:
    """Seconds of earlier sittings, of stages and measuring that were finished."""
    files = [Path(config.output) / "summary.json" for config in stages.values()]
    files.append(Path(output) / name / MEASURED)
    return sum(float(json.loads(file.read_text(encoding="utf-8"))["seconds"]) for file in files if file.is_file())


def _load(task: Task) -> Dataset:
    return load(task.source, task.task, task.split, images=task.images)


def _measured(
    study: Study, name: str, last: TrainConfig, datasets: Mapping[str, Dataset], progress: bool
) -> dict[str, Any]:
    file = Path(study.output) / name / MEASURED
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    from preflmr.model import PreFLMR

    started = time.perf_counter()
    model = PreFLMR.from_pretrained(f"{last.output}/best")
    parameters = {
        part: sum(one.numel() for module in modules for one in module.parameters())
        for part, modules in model.parts().items()
    }
    measures = {}
    for task, dataset in datasets.items():
        own = study.evaluate[task]
        evaluation = evaluate(model, dataset, progress=progress, **own.settings or {})
        measures[task] = evaluation[str(own.measure or dataset.task.measure)]
    parameters["total"] = sum(parameters.values())
    found = {"parameters": parameters, "measures": measures, "seconds": time.perf_counter() - started}
    write_json(file, found)
    return found
