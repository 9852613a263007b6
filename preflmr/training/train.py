"""One stage of training: a step, and the loop around it.

    accelerate launch -m preflmr train --config stage1.yaml

accelerate sees to devices, mixed precision and gradients of several devices; one process without it trains as well.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object, set_seed
from tqdm.auto import tqdm

from lateint.disk import whole
from preflmr.retrievers import adapted
from preflmr.training import checkpoints, starting, tracking
from preflmr.training.batches import Batch, Batches, iterate, load_mix
from preflmr.training.checkpoints import Progress
from preflmr.training.image_states import ImageStates
from preflmr.training.objective import Objective
from preflmr.training.on_cpu import OnCpu
from preflmr.training.recipe import TrainConfig
from preflmr.training.sharding import ShardedOptimizer, WholeModel, shard
from preflmr.training.signals import Signals, end
from preflmr.training.validation import Validator

logger = logging.getLogger(__name__)
PATIENCE = timedelta(hours=12)  # devices that have validated their tasks wait for the others


def run(
    config: TrainConfig,
    *,
    model: Any = None,
    resume: bool = False,
    cpu: bool = False,
    progress: bool = True,
    image_states: ImageStates | None = None,
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
        image_states: where ``data.cache_images`` keeps what it encodes; stages that are given the same do not encode
            again what an earlier one did with the same vision encoder.

    Returns:
        The summary: ``steps``, ``queries``, ``seconds``, ``peak_memory_bytes``, ``best`` and more.

    Raises:
        FileExistsError: there is a run in the folder, and it is not to be resumed.
        FloatingPointError: the loss is not a number any more; the message says since when.
        FileNotFoundError, OSError, TypeError, ValueError: recipe, data or model do not fit; the message says how.
    """
    accelerator = _accelerator(config, cpu)
    folder = checkpoints.find_run(config, resume)
    if (summary := _summary(folder)) is not None:
        return summary
    stage = _Run(config, accelerator, folder, model, progress, image_states)
    with Signals() as signals, OnCpu() if accelerator.device.type == "cpu" else nullcontext():
        return stage.go(signals)


def _accelerator(config: TrainConfig, cpu: bool) -> Accelerator:
    """All devices that a launcher started processes for; CPUs where there are no others.

    Raises:
        RuntimeError: a launcher started several processes, which do not find each other.
    """
    AcceleratorState._reset_state()  # or a stage before this one would say what precision this one has
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        mixed_precision=config.precision,
        cpu=cpu or not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=_may_leave_parameters_out(config)),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=config.output,
    )
    if accelerator.num_processes != launched:
        found = f"{launched} were started, accelerate sees {accelerator.num_processes}"
        raise RuntimeError(f"processes of a launcher must train together: {found}")
    return accelerator


def step(objective: Any, batches: Iterator[Batch], n: int, accelerator: Any, signals: Any = None) -> Step:
    """Adds up the gradients of ``n`` batches, of which the mean is the step's."""
    total, skipped = torch.zeros((), device=accelerator.device), 0
    for number in range(n):
        batch = next(batches).to(accelerator.device)
        # Gradients of several devices are averaged once, with the last batch.
        with nullcontext() if number == n - 1 else accelerator.no_sync(objective):
            loss = objective(batch)
            accelerator.backward(loss / n)
        total += loss.detach() / n
        skipped += batch.skipped
        if number < n - 1 and signals is not None and (came := signals.agreed()[0]):
            return Step(total, skipped, came)
    return Step(total, skipped)


class Step(NamedTuple):
    """The loss, rows that were passed over, and the signal that cut the step off, so that it is none; or 0."""

    loss: torch.Tensor
    skipped: int
    cut_off: int = 0


class _Run:
    """Everything a run holds while it lasts."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        folder: Path,
        model: Any,
        progress: bool,
        image_states: ImageStates | None,
    ) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.shows = progress and accelerator.is_main_process
        self.micro_batches = config.micro_batches(accelerator.num_processes)
        self.datasets = load_mix(config.data, config.seed)
        self.validator = Validator(config, accelerator.process_index, accelerator.num_processes)
        self.model = starting.start_model(config, model)
        groups = starting.choose_trained(self.model, config)
        self.whole = WholeModel(self.model) if config.sharded else None
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
        objective = Objective(self.model, config, self.batches, _teacher(config, accelerator), image_states)
        self.objective, self.optimizer = self._prepared(objective, groups)
        accelerator.register_for_checkpointing(self.schedule)
        checkpoints.keep_trained_only(accelerator, adapted(self.model).model)
        set_seed(config.seed, device_specific=True)
        self.progress = Progress()

    def _prepared(self, objective: Objective, groups: list[dict[str, Any]]) -> tuple[Any, Any]:
        """The module and its optimizer for all devices."""
        config, accelerator = self.config, self.accelerator
        if not config.sharded:
            optimizer = starting.make_optimizer(groups, config, on_cpu=accelerator.device.type == "cpu")
            self.schedule = starting.make_schedule(optimizer, config)
            made: tuple[Any, Any] = accelerator.prepare(objective, optimizer)
            return made
        objective = accelerator.prepare_model(objective, evaluation_mode=True)  # on its device, and no more
        shard(objective, accelerator.device)
        # Parameters are others now.
        optimizer = starting.make_optimizer(starting.choose_trained(self.model, config), config)
        self.schedule = starting.make_schedule(optimizer, config)
        accelerator.register_for_checkpointing(ShardedOptimizer(objective, optimizer))
        return objective, optimizer

    @contextmanager
    def _model(self) -> Iterator[Any]:
        """The model, to be used or written whole; all devices must enter together."""
        if self.whole is None:
            yield self.model
        else:
            with self.whole.filled(self.model, self.accelerator.device) as model:
                yield model

    def go(self, signals: Signals) -> dict[str, Any]:
        """The loop."""
        config, accelerator, state = self.config, self.accelerator, self._begin()
        stream = iterate(self.batches, state.step * self.micro_batches, config.steps * self.micro_batches)
        bar = tqdm(total=config.steps, initial=state.step, desc="train", unit="step", disable=not self.shows)
        with bar:
            self._validate_if_due(signals)  # after a kill while it did
            while state.step < config.steps and not state.stopped_early:
                random = random_state()
                done = step(self.objective, stream, self.micro_batches, accelerator, signals)
                if done.cut_off:
                    self.optimizer.zero_grad()
                    set_random_state(random)
                    self._stop(done.cut_off)
                rates = self._update()
                state.step += 1
                state.queries += config.queries_per_step
                state.skipped += done.skipped
                bar.update()
                self.since.losses.append(done.loss)
                last = state.step == config.steps
                if state.step % config.log_every == 0 or last:
                    bar.set_postfix(loss=f"{self._log(rates):.3f}")
                came, late = signals.agreed(int(self._is_late()))
                if came:
                    self._stop(came)
                if _is_due(config.models_every, state.step):
                    self._keep(f"models/step-{state.step:08d}")
                if late or last or _is_due(config.save_every, state.step):
                    self._save()
                self._validate_if_due(signals)
        return self._finish()

    def _begin(self) -> Progress:
        """Where the run stands."""
        if self.accelerator.is_main_process:
            checkpoints.begin(self.config, self.folder)
        self.accelerator.wait_for_everyone()
        saved = checkpoints.latest(self.folder)
        if saved is not None:
            self.progress = checkpoints.load(self.accelerator, saved)
        if self.accelerator.is_main_process:
            checkpoints.cut_log(self.folder / "log.jsonl", self.progress)
        tracking.start(self.accelerator, self.config)
        starting.set_training(self.model, self.config)
        self.clock = Stopwatch(self.progress.seconds)
        self.since = _Since(self.progress)
        self.saved = self.progress.step, time.monotonic()
        return self.progress

    def _update(self) -> dict[str, float]:
        """Moves the parameters; the learning rates that did it, by part."""
        if self.config.optimizer.max_norm is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.optimizer.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        self.schedule.step()
        return rates

    def _stop(self, signal: int) -> None:
        """Ends the run as a signal asks for, with a checkpoint."""
        if self.saved[0] != self.progress.step:
            self._save()
        if self.shows:
            tqdm.write(f"stopped at step {self.progress.step:,}, with a checkpoint to resume from", file=sys.stderr)
        end(signal)

    def _save(self) -> None:
        self.progress.seconds = self.clock.seconds
        checkpoints.save(self.accelerator, self.folder, self.progress, self.config.keep_checkpoints)
        self.saved = self.progress.step, time.monotonic()

    def _is_late(self) -> bool:
        """Whether the last checkpoint is as old as one may be; the first device's clock counts."""
        minutes = self.config.save_minutes
        mine = self.accelerator.is_main_process and minutes is not None
        return mine and time.monotonic() - self.saved[1] >= 60 * (minutes or 0)

    def _validate_if_due(self, signals: Signals) -> None:
        """With a checkpoint before, for it may take long; it leaves no trace in what is trained."""
        state, every = self.progress, self.config.validation.every
        due = _is_due(every, state.step) or (every is not None and state.step == self.config.steps)
        if not due or not state.step or state.step in state.history.found:
            return
        if self.saved[0] != state.step:
            self._save()
        random = random_state()
        with signals.at_once():
            self._validate()
        set_random_state(random)
        state.seconds = self.clock.seconds
        if self.accelerator.is_main_process:
            checkpoints.update(self.folder, state)
        self.accelerator.wait_for_everyone()
        self.since = _Since(state)

    def _validate(self) -> None:
        """Each device measures its share of the tasks; all of them learn what came out."""
        state, settings, accelerator = self.progress, self.config.validation, self.accelerator
        with self._model() as model:
            own = list(self.validator(model).items())
        found = dict(gather_object(own)) if accelerator.num_processes > 1 else dict(own)
        values = {name: found[name] for name in settings.tasks}
        if state.history.add(state.step, values, settings):
            self._keep("best")
        state.stopped_early = state.history.should_stop(settings)
        self._write({"step": state.step, "validation": values})
        accelerator.log({f"validation/{name}": value for name, value in values.items()}, step=state.step)
        if self.shows:
            tqdm.write(f"step {state.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def _keep(self, name: str) -> None:
        """Writes the model, on the first device, as a checkpoint of its own; all devices must come here."""
        with self._model() as model:
            if self.accelerator.is_main_process:
                with whole.folder(self.folder / name, replace=True) as place:
                    starting.save_model(model, place)

    def _log(self, rates: dict[str, float]) -> float:
        """A line of the log: the mean loss since the last one, over all devices."""
        state, accelerator, since = self.progress, self.accelerator, self.since
        state.seconds = self.clock.seconds
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
        self.since = _Since(state)
        return loss

    def _write(self, values: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def _finish(self) -> dict[str, Any]:
        state, history = self.progress, self.progress.history
        state.seconds = self.clock.seconds
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
        if history.best is None:
            self._keep("best")
        if self.accelerator.is_main_process:
            checkpoints.write_json(self.folder / "summary.json", summary)
            if self.config.hub is not None:
                tracking.publish(self.folder, self.config, summary)
        for tracker in self.accelerator.trackers:
            tracker.finish()  # end_training would end the process group, too, which the next stage needs
        read = json.loads(json.dumps(summary))
        return dict(read)


class Stopwatch:
    """Seconds, over all starts.

    Args:
        before: those of earlier starts.
    """

    def __init__(self, before: float) -> None:
        self._started = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started


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


def random_state() -> dict[str, Any]:
    """What dropout goes on from, of the CPU and of this process's GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


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
