"""V-entropy, and what intermediate pre-training tells about a data set (PreFLMR, section 5.6 and appendix D).

``H[N_f](D2)`` is the least validation loss on D2 that N_f steps of fine-tuning on it reach; ``H[N_f, D1, N_t](D2)`` the
same from a checkpoint that was trained on D1 for N_t steps before. Their difference is an empirical measure of mutual
information between the data sets::

    I[N_f](D1 -> D2) = H[N_f](D2) - H[N_f, D1, N_t](D2)

A study is a YAML file::

    output: runs/ventropy
    start: runs/table2-row05/stage1/best
    intermediate: {base: stage2.yaml}                  # D1, a recipe of one stage without start
    every: 5000                                        # N_t = 0, 5000, ..., 25000
    times: 5
    finetune: {base: m2kr.yaml, learning_rates: {mapping: 1e-4, text_encoder: 1e-5}}
    steps: 5000                                        # N_f
    validate_every: 500
    datasets:                                          # D2
      OKVQA: {train: {task: OKVQA, instructions: OKVQA}, valid: {task: OKVQA, instructions: OKVQA}}

Validation batches, negatives and seed are the same for all starts. Everything is resumable: runs that are finished are
not run again, one that was cut off goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preflmr.evaluation.results import write_json
from preflmr.studies import figures
from preflmr.training import recipe_file, train
from preflmr.training.recipe import NLL, TrainConfig
from preflmr.training.schema import AtLeast1, build, settings

RESULTS, FIGURE = "results.json", "figure.svg"


@settings
class Study:
    """See the module."""

    output: str
    start: str
    intermediate: dict[str, Any]
    every: AtLeast1
    times: AtLeast1
    finetune: dict[str, Any]
    steps: AtLeast1
    validate_every: AtLeast1
    datasets: dict[str, dict[str, dict[str, Any]]]

    def __post_init__(self) -> None:
        for name, parts in self.datasets.items():
            if set(parts) != {"train", "valid"}:
                raise ValueError(f"datasets.{name} must have train and valid, got {', '.join(parts) or 'neither'}")
        if self.steps % self.validate_every:
            found = f"{self.steps} and {self.validate_every}"
            raise ValueError(f"steps must be a multiple of validate_every, got {found}")


def read(path: str | Path) -> Study:
    """A study from a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no study; the message says where.
    """
    try:
        return build(Study, recipe_file.load_yaml(Path(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def run(study: Study, beside: Path = Path("study.yaml"), *, cpu: bool = False, progress: bool = True) -> dict[str, Any]:
    """Trains what is not trained yet, and writes ``results.json`` and ``figure.svg`` into the output folder.

    Args:
        beside: the study's file, beside which recipes that it names are looked for.
        cpu, progress: see `preflmr.training.train.run`.

    Returns:
        What ``results.json`` holds: by data set and N_t the validation losses by step, the entropy and the information.
    """
    first = _one(study.intermediate, beside, _intermediate(study))
    stages = {name: _one(study.finetune, beside, _finetuning(study, name, 0)) for name in study.datasets}
    del stages  # only read, so that what is wrong with them shows before anything is trained
    train.run(first, resume=True, cpu=cpu, progress=progress)
    found: dict[str, dict[str, Any]] = {}
    for name in study.datasets:
        curves = {}
        for steps in _starts(study):
            config = _one(study.finetune, beside, _finetuning(study, name, steps))
            summary = train.run(config, resume=True, cpu=cpu, progress=progress)
            curves[str(steps)] = {step: values[name] for step, values in summary["validation"].items()}
        found[name] = measured(curves)
    results = {"steps": study.steps, "datasets": found}
    write_json(Path(study.output) / RESULTS, results)
    (Path(study.output) / FIGURE).write_text(figure(results), encoding="utf-8")
    return results


def measured(curves: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Entropy and information by N_t.

    >>> measured({"0": {"1": 2.0, "2": 1.5}, "10": {"1": 1.25, "2": 1.75}})["information"]
    {'0': 0.0, '10': 0.25}
    """
    entropy = {steps: min(curve.values()) for steps, curve in curves.items()}
    return {
        "loss": curves,
        "entropy": entropy,
        "information": {steps: entropy["0"] - value for steps, value in entropy.items()},
    }


def figure(results: dict[str, Any]) -> str:
    """The information over N_t, a line for each data set, as SVG: the paper's Figure 2 with its sign turned."""
    series = {
        name: [(float(steps), value) for steps, value in found["information"].items()]
        for name, found in results["datasets"].items()
    }
    title = f"What intermediate pre-training tells, after {results['steps']:,} steps of fine-tuning"
    return figures.lines(series, title=title, x="steps of intermediate pre-training", y="information (nats)", zero=True)


def table(results: dict[str, Any]) -> str:
    """Entropy and information in Markdown."""
    lines = ["| data set | N_t | H | I |", "| --- | --- | --- | --- |"]
    for name, found in results["datasets"].items():
        for steps, entropy in found["entropy"].items():
            lines.append(f"| {name} | {int(steps):,} | {entropy:.4f} | {found['information'][steps]:+.4f} |")
    return "\n".join(lines) + "\n"


def _starts(study: Study) -> list[int]:
    return [study.every * number for number in range(study.times + 1)]


def _intermediate(study: Study) -> dict[str, Any]:
    steps = study.every * study.times
    kept = {"models_every": study.every, "steps": steps}
    return {"output": f"{study.output}/intermediate", "model": {"start": study.start}, **kept}


def _finetuning(study: Study, name: str, steps: int) -> dict[str, Any]:
    source, check = study.datasets[name]["train"], study.datasets[name]["valid"]
    start = study.start if not steps else f"{study.output}/intermediate/models/step-{steps:08d}"
    return {
        "output": f"{study.output}/{name}/from-{steps:08d}",
        "model": {"start": start},
        "data": {"mix": {name: source}},
        "steps": study.steps,
        "validation": {"every": study.validate_every, "tasks": {name: {**check, "measure": NLL}}, "select": name},
    }


def _one(values: dict[str, Any], beside: Path, own: dict[str, Any]) -> TrainConfig:
    (config,) = recipe_file.stages_of(recipe_file.merged(values, own), beside).values()
    return config
