"""What a run leaves on disk, written so that a kill at any moment loses nothing.

=========================  ============================================================================================
``best/``                  the chosen model, as `PreFLMR.save_pretrained` writes it
``models/step-N/``         the model after N steps, where ``models_every`` asks for it
``checkpoints/step-N/``    what it takes to go on: trained parameters, optimizer, schedule, random states, `Progress`
``config.json``            the recipe
``log.jsonl``, ``logs/``   losses, rates and validations: a line each, and for TensorBoard, if that is the tracker
``summary.json``           written at the end
=========================  ============================================================================================

A folder is written beside its place and renamed when it is complete.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lateint.disk import whole
from preflmr.training import sharding
from preflmr.training.recipe import TrainConfig
from preflmr.training.schema import build
from preflmr.training.validation import History

TRAINED = "trained.safetensors"
PROGRESS, CONFIG = "progress.json", "config.json"
# May differ when a run is resumed.
NOT_THE_RUN = {
    "output", "save_every", "save_minutes", "keep_checkpoints", "log_every", "tracker", "project", "hub",
}  # fmt: skip


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimiser steps done.
        queries: queries seen, of all devices.
        seconds: spent, over all starts.
        skipped: rows passed over for want of a picture, on the first device.
        stopped_early: whether validations ended it.
        history: what they found.
    """

    step: int = 0
    queries: int = 0
    seconds: float = 0.0
    skipped: int = 0
    stopped_early: bool = False
    history: History = field(default_factory=History)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Progress:
        """What `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        history = values.pop("history")
        found = {int(step): one for step, one in history["found"].items()}
        return cls(**values, history=History(found, tuple(history["best"]) if history["best"] else None))


def find_run(config: TrainConfig, resume: bool) -> Path:
    """The folder of a run, which is not made yet.

    A folder without checkpoint and summary holds no run: whatever started there did not get far.

    Raises:
        FileExistsError: there is a run in it, and it is not to be resumed.
        ValueError: it was made by another recipe; the message names what differs.
    """
    folder = Path(config.output)
    if latest(folder) is None and not (folder / "summary.json").is_file():
        return folder
    if not resume:
        raise FileExistsError(f"{folder}: there is a run in this folder; resume it, or name another output")
    before = _recipe(build(TrainConfig, json.loads((folder / CONFIG).read_text(encoding="utf-8"))))
    changed = {name for name, _ in _flat(before).items() ^ _flat(_recipe(config)).items()}
    if changed := changed - NOT_THE_RUN:
        names = ", ".join(sorted(changed))
        raise ValueError(f"{folder}: a run can only be resumed by its own recipe, this one differs in {names}")
    return folder


def begin(config: TrainConfig, folder: Path) -> None:
    """Makes the folder of a run, and writes the recipe into it; what a start left that did not get far is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    if latest(folder) is None:
        (folder / "log.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / "logs", ignore_errors=True)
    write_json(folder / CONFIG, _recipe(config))


def latest(folder: Path) -> Path | None:
    """The last complete checkpoint of a run."""
    found = [path for path in (folder / "checkpoints").glob("step-*") if path.is_dir()]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def save(accelerator: Any, folder: Path, progress: Progress, keep: int) -> None:
    """Writes a checkpoint, on all devices together, and then removes all but the last ``keep``."""
    target = folder / "checkpoints" / f"step-{progress.step:08d}"
    if accelerator.is_main_process:
        _remove_parts(target.parent)
    accelerator.wait_for_everyone()
    part = target.with_name(f".{target.name}")
    accelerator.save_state(str(part))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        progress.write(part / PROGRESS)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        for path in sorted(target.parent.glob("step-*"))[:-keep]:
            shutil.rmtree(path)
    accelerator.wait_for_everyone()


def update(folder: Path, progress: Progress) -> None:
    """Writes what has become known since the checkpoint of this step; on one device."""
    with whole.file(folder / "checkpoints" / f"step-{progress.step:08d}" / PROGRESS) as path:
        progress.write(path)


def load(accelerator: Any, checkpoint: Path) -> Progress:
    """Puts everything back as it was when a checkpoint was written."""
    accelerator.load_state(str(checkpoint))
    return Progress.read(checkpoint / PROGRESS)


def keep_trained_only(accelerator: Any, module: torch.nn.Module) -> None:
    """Has checkpoints hold the parameters that are trained; the others are those that the run started from."""

    def write(models: Any, weights: list[Any], output: str) -> None:
        weights.clear()
        trained = {name: sharding.whole(one).contiguous() for name, one in _trained(module)}
        if accelerator.is_main_process:
            save_file(trained, Path(output) / TRAINED)

    def read(models: list[Any], source: str) -> None:
        models.clear()
        saved = load_file(Path(source) / TRAINED)
        parameters = dict(_trained(module))
        if saved.keys() != parameters.keys():
            names = ", ".join(sorted(saved.keys() ^ parameters.keys())[:5])
            raise ValueError(f"{source}: must hold the parameters that are trained, differs in {names}")
        for name, value in saved.items():
            sharding.put(parameters[name], value)

    accelerator.register_save_state_pre_hook(write)
    accelerator.register_load_state_pre_hook(read)


def write_json(path: Path, values: Any) -> None:
    """A file that is there whole or not at all."""
    with whole.file(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def cut_log(path: Path, progress: Progress) -> None:
    """Takes lines out of a log that come again: those after the checkpoint."""
    if not path.is_file():
        return
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = {step for step in progress.history.found}
    kept = [one for one in lines if one["step"] <= progress.step and ("validation" not in one or one["step"] in known)]
    with whole.file(path) as part:
        part.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")


def _recipe(config: TrainConfig) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def _trained(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, one) for name, one in module.named_parameters() if one.requires_grad]


def _remove_parts(folder: Path) -> None:
    for path in folder.glob(".step-*"):
        shutil.rmtree(path)


def _flat(values: Any, name: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {name: repr(values)}
    return {
        key: one
        for inner, value in values.items()
        for key, one in _flat(value, f"{name}.{inner}" if name else str(inner)).items()
    } or {name: "{}"}
