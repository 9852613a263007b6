"""One stage of training: a step, and the loop around it.

    accelerate launch -m preflmr train --config stage1.yaml

accelerate sees to devices, mixed precision and gradients of several devices; one process without it trains as well.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from tqdm.auto import tqdm

from preflmr.training import checkpoints, starting
from preflmr.training.batches import Batch, Batches, iterate, load_mix
from preflmr.training.checkpoints import Progress
from preflmr.training.objective import Objective
from preflmr.training.recipe import TrainConfig
from preflmr.training.validation import Validator

logger = logging.getLogger(__name__)
PATIENCE = timedelta(hours=12)  # other devices wait while the first one validates


def run(
    config: TrainConfig, *, model: Any = None, resume: bool = False, cpu: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Trains one stage, or goes on with it; what it leaves is told in `preflmr.training.checkpoints`.

    Args:
        config: the recipe.
        model: start from this one, which is then trained, instead of ``config.model.start``; to resume a run it must be
            the same.
        resume: go on from the last checkpoint in ``config.output``, if there is one, to the parameters that a run
            without interruption has (the same bits on the CPU).
        cpu: do not look for other devices.
        progress: show a progress bar on standard error.

    Returns:
        The summary: ``steps``, ``queries``, ``seconds``, ``peak_memory_bytes``, ``best`` and more.

    Raises:
        FileExistsError: there is a run in the folder, and it is not to be resumed.
        FloatingPointError: the loss is not a number any more; the message says since when.
        FileNotFoundError, OSError, TypeError, ValueError: recipe, data or model do not fit; the message says how.
    """
    AcceleratorState._reset_state()  # or a stage before this one would say what precision this one has
    accelerator = Accelerator(
        mixed_precision=config.precision,
        cpu=cpu,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=_may_leave_parameters_out(config)),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
        log_with="tensorboard",
        project_dir=config.output,
    )
    with accelerator.main_process_first():
        folder = checkpoints.begin(config, resume or not accelerator.is_main_process)
    summary = _summary(folder)
    if summary is not None:
        return summary
    return _Run(config, accelerator, folder, model, progress).go()


def step(objective: Any, batches: Iterator[Batch], n: int, accelerator: Any) -> tuple[torch.Tensor, int]:
    """Adds up the gradients of ``n`` batches, of which the mean is the step's; returns loss and rows passed over."""
    total, skipped = torch.zeros((), device=accelerator.device), 0
    for number in range(n):
        batch = next(batches).to(accelerator.device)
        # Gradients of several devices are averaged once, with the last batch.
        with nullcontext() if number == n - 1 else accelerator.no_sync(objective):
            loss = objective(batch)
            accelerator.backward(loss / n)
        total += loss.detach() / n
        skipped += batch.skipped
    return total, skipped


class _Run:
    """Everything a run holds while it lasts."""

    def __init__(self, config: TrainConfig, accelerator: Any, folder: Path, model: Any, progress: bool) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.shows = progress and accelerator.is_main_process
        self.micro_batches = config.micro_batches(accelerator.num_processes)
        self.datasets = load_mix(config.data, config.seed)
        self.validator = Validator(config) if accelerator.is_main_process else None
        self.model = starting.start_model(config, model)
        groups = starting.choose_trained(self.model, config)
        self.batches = Batches(
            config.data,
            self.datasets,
            self.model,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=accelerator.process_index,
            devices=accelerator.num_processes,
            vision="vision" in config.query_parts,
        )
        objective = Objective(self.model, config, self.batches, _teacher(config, accelerator))
        optimizer = starting.make_optimizer(groups, config)
        self.schedule = starting.make_schedule(optimizer, config)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        accelerator.register_for_checkpointing(self.schedule)
        checkpoints.keep_trained_only(accelerator, self.model)
        set_seed(config.seed, device_specific=True)
        self.progress = Progress()

    def go(self) -> dict[str, Any]:
        """The loop."""
        config, accelerator = self.config, self.accelerator
        saved = checkpoints.latest(self.folder)
        if saved is not None:
            self.progress = checkpoints.load(accelerator, saved)
        if accelerator.is_main_process:
            checkpoints.recover(self.folder / "best")
            _cut_log(self.folder / "log.jsonl", self.progress.step)
        accelerator.init_trackers("logs")
        starting.set_training(self.model, config)
        state, started, before = self.progress, time.perf_counter(), self.progress.seconds
        stream = iterate(self.batches, state.step * self.micro_batches, config.steps * self.micro_batches)
        since = _Since(state)
        bar = tqdm(total=config.steps, initial=state.step, desc="train", unit="step", disable=not self.shows)
        while state.step < config.steps and not state.stopped_early:
            loss, skipped = step(self.objective, stream, self.micro_batches, accelerator)
            if config.optimizer.max_norm is not None:
                accelerator.clip_grad_norm_(self.objective.parameters(), config.optimizer.max_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
            self.schedule.step()
            state.step += 1
            state.queries += config.queries_per_step
            state.skipped += skipped
            state.seconds = before + time.perf_counter() - started
            bar.update()
            since.losses.append(loss)
            last = state.step == config.steps
            if state.step % config.log_every == 0 or last:
                bar.set_postfix(loss=f"{self._log(since, rates):.3f}")
                since = _Since(state)
            if self._is_due(config.validation.every):
                self._validate()
                state.seconds = before + time.perf_counter() - started
                since = _Since(state)
            if self._is_due(config.save_every or config.validation.every) or last or state.stopped_early:
                checkpoints.save(accelerator, self.folder, state)
        bar.close()
        return self._finish()

    def _is_due(self, every: int | None) -> bool:
        return every is not None and (self.progress.step % every == 0 or self.progress.step == self.config.steps)

    def _validate(self) -> None:
        """On the first device; all of them learn what came out."""
        state, settings, accelerator = self.progress, self.config.validation, self.accelerator
        if self.validator is not None:
            values = self.validator(self.model)
            if state.history.add(state.step, values, settings):
                checkpoints.replace(self.folder / "best", lambda path: starting.save_model(self.model, path))
            state.stopped_early = state.history.should_stop(settings)
            self._write({"step": state.step, "validation": values})
            accelerator.log({f"validation/{name}": value for name, value in values.items()}, step=state.step)
            if self.shows:
                tqdm.write(f"step {state.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        stop = torch.tensor(float(state.stopped_early), device=accelerator.device)
        state.stopped_early = bool(accelerator.reduce(stop, "sum"))

    def _log(self, since: _Since, rates: dict[str, float]) -> float:
        """A line of the log: the mean loss since the last one, over all devices."""
        state, accelerator = self.progress, self.accelerator
        loss = float(accelerator.reduce(torch.stack(since.losses).mean(), "mean"))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss} between steps {since.step} and {state.step}")
        values = {
            "loss": loss,
            "epoch": state.queries / self.batches.epoch_size,
            "queries_per_second": (state.queries - since.queries) / max(state.seconds - since.seconds, 1e-9),
            **{f"learning_rate/{part}": rate for part, rate in rates.items()},
        }
        accelerator.log(values, step=state.step)
        self._write({"step": state.step, **values})
        return loss

    def _write(self, values: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def _finish(self) -> dict[str, Any]:
        state, history = self.progress, self.progress.history
        summary = {
            "steps": state.step,
            "queries": state.queries,
            "epochs": state.queries / self.batches.epoch_size,
            "seconds": state.seconds,
            "queries_per_second": state.queries / state.seconds if state.seconds else None,
            "peak_memory_bytes": peak_memory(),
            "devices": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "stopped_early": state.stopped_early,
            "skipped": state.skipped,
            "best": None if history.best is None else {"step": history.best[0], "value": history.best[1]},
            "validation": history.found,
        }
        if self.accelerator.is_main_process:
            if history.best is None:
                checkpoints.replace(self.folder / "best", lambda path: starting.save_model(self.model, path))
            checkpoints.write_json(self.folder / "summary.json", summary)
        for tracker in self.accelerator.trackers:
            tracker.finish()  # end_training would end the process group, too, which the next stage needs
        read = json.loads(json.dumps(summary))
        return dict(read)


class _Since:
    """Losses since the last line of the log, and where the run was then."""

    def __init__(self, state: Progress) -> None:
        self.losses: list[torch.Tensor] = []
        self.step, self.queries, self.seconds = state.step, state.queries, state.seconds


def peak_memory() -> int:
    """Bytes that this process had at most: of the GPU if it uses one, else of all memory."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _may_leave_parameters_out(config: TrainConfig) -> bool:
    """Whether a batch may have no use for something that is trained."""
    return config.data.without_image == "none" or len(config.query_parts) == 1


def _teacher(config: TrainConfig, accelerator: Any) -> Any:
    if config.loss.distillation is None or config.loss.distillation.teacher is None:
        return None
    from preflmr.model import PreFLMR

    return PreFLMR.from_pretrained(config.loss.distillation.teacher).requires_grad_(False).eval().to(accelerator.device)


def _summary(folder: Path) -> dict[str, Any] | None:
    path = folder / "summary.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _cut_log(path: Path, step: int) -> None:
    """Without lines after the checkpoint, which come again."""
    if path.is_file():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        with checkpoints.complete(path) as part:
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
