"""Fine-tunes a generator: adapters learn, everything else stays as it is.

=====================  ===============================================================================
``best/``              the generator of the best validation, adapters merged, with its processor
``checkpoints/``       what it takes to go on, see `preflmr.training.checkpoints`
``log.jsonl``          a loss or a validation a line
``summary.json``       written at the end
=====================  ===============================================================================
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from lateint.disk import whole
from preflmr.answering.answers import answer
from preflmr.answering.asking import read_run
from preflmr.answering.generator import Generator
from preflmr.data.m2kr import Dataset, load
from preflmr.training import checkpoints
from preflmr.training.checkpoints import Progress
from preflmr.training.signals import Signals, end
from preflmr.training.starting import add_adapters, merged_adapters
from preflmr.tuning.config import Questions, TuneConfig
from preflmr.tuning.objective import TuningObjective
from preflmr.tuning.targets import Lessons


def tune(config: TuneConfig, *, resume: bool = False, cpu: bool = False, progress: bool = True) -> dict[str, Any]:
    """Runs fine-tuning, or goes on with it.

    Args:
        config: what is learned, from what, and how.
        resume: go on from the last checkpoint in ``config.output``, if there is one.
        cpu: do not look for other devices.
        progress: show a progress bar on standard error.

    Returns:
        The summary: ``steps``, ``seconds``, ``best``, ``validation``.

    Raises:
        FileExistsError: there is a run in the folder, and it is not to be resumed.
        FileNotFoundError, ValueError: data, retrieved passages or the generator are missing or do not fit.
        FloatingPointError: the loss is not a number any more.
    """
    folder = Path(config.output)
    found = checkpoints.latest(folder)
    if (found is not None or (folder / "summary.json").is_file()) and not resume:
        raise FileExistsError(f"{folder}: there is a run in this folder; resume it, or name another output")
    if (folder / "summary.json").is_file():
        return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    with Signals() as signals:
        return _Tuning(config, folder, cpu, progress).go(found, signals)


class _Tuning:
    """Everything that is held while a generator is tuned."""

    def __init__(self, config: TuneConfig, folder: Path, cpu: bool, progress: bool) -> None:
        self.config, self.folder, self.shows = config, folder, progress
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu or not torch.cuda.is_available())
        if self.accelerator.num_processes > 1:
            raise RuntimeError(f"a generator is tuned by one process, got {self.accelerator.num_processes}")
        train, retrieved = _read(config.train)
        self.valid = None if config.valid is None else _read(config.valid)
        settings = {name: getattr(config, name) for name in ("prompt", "max_length", "max_new_tokens", "beams")}
        self.generator = Generator.from_pretrained(config.generator, device="cpu", **settings)
        self.lessons = Lessons(train, retrieved, self.generator, config)
        model = self.generator.model
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model.requires_grad_(False)
            add_adapters(model, config.lora)
        learned = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=config.learning_rate, weight_decay=config.weight_decay)
        objective = TuningObjective(self.generator, config.loss)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        checkpoints.keep_trained_only(self.accelerator, model)
        set_seed(config.seed)
        self.progress = Progress()

    def go(self, saved: Path | None, signals: Signals) -> dict[str, Any]:
        """The loop."""
        config, state = self.config, self.progress
        self._keep_config(saved is not None)
        if saved is not None:
            state = self.progress = checkpoints.load(self.accelerator, saved)
            checkpoints.cut_log(self.folder / "log.jsonl", state)
        self.written = time.monotonic()
        bar = tqdm(total=config.steps, initial=state.step, desc="tune", unit="step", disable=not self.shows)
        with bar:
            self._validate_if_due()  # after a kill before it
            while state.step < config.steps and not state.stopped_early:
                loss = self._step(state.step)
                state.step += 1
                state.queries += config.questions_per_step
                bar.update()
                if state.step % config.log_every == 0 or state.step == config.steps:
                    bar.set_postfix(loss=f"{loss:.3f}")
                    self._write({"step": state.step, "loss": loss})
                (came,) = signals.agreed()
                if came or time.monotonic() - self.written >= 60 * config.save_minutes:
                    self._save()
                if came:
                    end(came)
                self._validate_if_due()
        return self._finish()

    def _keep_config(self, resumed: bool) -> None:
        path, ours = self.folder / "config.json", json.loads(json.dumps(dataclasses.asdict(self.config)))
        if resumed and (before := json.loads(path.read_text(encoding="utf-8"))) != ours:
            names = ", ".join(sorted(name for name in ours if ours[name] != before.get(name)))
            raise ValueError(f"{self.folder}: a run can only be resumed by its own settings, these differ in {names}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not resumed:
            (self.folder / "log.jsonl").unlink(missing_ok=True)
        checkpoints.write_json(path, ours)

    def _step(self, step: int) -> float:
        config, total = self.config, 0.0
        self.objective.train()
        first, size = step * config.questions_per_step, config.questions_at_once
        batches = config.questions_per_step // size
        for number in range(batches):
            lessons = [self.lessons[first + number * size + i] for i in range(size)]
            with self.accelerator.autocast():
                loss = self.objective(lessons)
            self.accelerator.backward(loss / batches)
            total += float(loss.detach()) / batches
        if not torch.isfinite(torch.tensor(total)):
            raise FloatingPointError(f"the loss became {total} at step {step + 1}")
        if config.max_norm is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), config.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _validate_if_due(self) -> None:
        """By the answers of the generator as it is; the best one is kept."""
        state, config = self.progress, self.config
        due = state.step and (state.step % config.validate_every == 0 or state.step == config.steps)
        if self.valid is None or config.valid is None or not due or state.step in state.history.found:
            return
        dataset, retrieved = self.valid
        random = torch.get_rng_state()
        self.generator.model.eval()
        given = answer(
            self.generator, dataset, retrieved, k=config.k, temperature=config.temperature, progress=False,
            limit=config.valid.limit, on_missing=config.valid.on_missing,
        )  # fmt: skip
        torch.set_rng_state(random)
        value = given[given.summary["measure"]]
        state.history.found[state.step] = dict(given.summary["measures"])
        best = state.history.best
        if best is None or value > best[1]:
            state.history.best = state.step, value
            self._keep()
        since = sum(step > state.history.best[0] for step in state.history.found) if state.history.best else 0
        state.stopped_early = config.patience is not None and since >= config.patience
        self._write({"step": state.step, "validation": state.history.found[state.step]})
        self._save()

    def _keep(self) -> None:
        with whole.folder(self.folder / "best", replace=True) as place:
            merged_adapters(self.generator.model).save_pretrained(place)
            self.generator.processor.save_pretrained(place)

    def _save(self) -> None:
        checkpoints.save(self.accelerator, self.folder, self.progress, keep=1)
        self.written = time.monotonic()

    def _write(self, values: Mapping[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def _finish(self) -> dict[str, Any]:
        state = self.progress
        if state.history.best is None:
            self._keep()
        summary = {
            "steps": state.step,
            "questions": state.queries,
            "stopped_early": state.stopped_early,
            "best": None if state.history.best is None else list(state.history.best),
            "validation": {str(step): values for step, values in state.history.found.items()},
        }
        checkpoints.write_json(self.folder / "summary.json", summary)
        return summary


def _read(questions: Questions) -> tuple[Dataset, dict[str, dict[str, Any]]]:
    data = load(questions.source, questions.task, questions.split, images=questions.images)
    return data, read_run(questions.retrieved)
