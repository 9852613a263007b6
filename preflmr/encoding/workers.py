"""Runs batches through a model, in this process or in several, and gives the results back in order.

What crosses a process border is numpy and Python only: a `Job` goes in, rows and lengths come out. A worker that
raises raises here; a worker that dies ends the run; when this process dies its workers end too.
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preflmr.data.images import Images, blank
from preflmr.model.packed import PackedLinear
from preflmr.retrievers import Retriever

Rows = tuple[NDArray[Any], NDArray[np.int64]]  # [T, dim] of several texts end to end, and how many each has


@dataclass(frozen=True)
class Job:
    """One batch of queries or of documents.

    Attributes:
        kind: ``"query"`` or ``"document"``: which half of the model reads it.
        numbers: positions of the texts in what the user gave, for messages and for putting results in order.
        items: of `Retriever.tokenized`, one of each text.
        pictures: ``[B]`` tuples of equally many pictures (PIL images, paths, or None for the blank picture), or None
            where no text has any.
        options: more keyword arguments of `Retriever.rows`.
    """

    kind: str
    numbers: tuple[int, ...]
    items: Sequence[Any]
    pictures: tuple[tuple[Any, ...], ...] | None
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """How messages call it: ``documents 5 to 90 (64 of them)``."""
        first, last = min(self.numbers), max(self.numbers)
        if first == last:
            return f"{self.kind} {first}"
        some = "" if last - first + 1 == len(self.numbers) else f" ({len(self.numbers)} of them)"
        return f"{'queries' if self.kind == 'query' else 'documents'} {first} to {last}{some}"


@dataclass(frozen=True)
class Settings:
    """What all jobs share: the type computed in (None: float32), that of the rows, and where pictures' paths lead."""

    autocast: torch.dtype | None
    rows: np.dtype[Any]
    images: Images | None


def results(
    retriever: Retriever, jobs: Iterable[Job], settings: Settings, *, processes: int, device: Any
) -> Generator[tuple[Job, Rows], None, None]:
    """Every job with its rows, in the order of ``jobs``, of which few are drawn before they are needed.

    Raises:
        RuntimeError: the model failed or a worker ended; the message says at which texts.
    """
    start = _here if processes == 1 else _workers
    with start(retriever, settings, processes, device) as (submit, depth):
        waiting: deque[tuple[Job, Callable[[], Rows]]] = deque()
        for job in jobs:
            waiting.append((job, submit(job)))
            if len(waiting) > depth:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _finished(job: Job, result: Callable[[], Rows]) -> tuple[Job, Rows]:
    try:
        return job, result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker process ended at or before {job.name}: it was killed, ran out of memory, or could not start "
            "(a script that uses processes needs `if __name__ == '__main__':`)"
        ) from error


@contextmanager
def _here(retriever: Retriever, settings: Settings, processes: int, device: Any) -> Iterator[Any]:
    """One model in this process; a thread opens the pictures of the next jobs meanwhile."""
    if device is not None:
        retriever.model.to(device)
    encoder = _Encoder(retriever, settings)
    with ThreadPoolExecutor(1) as thread:

        def submit(job: Job) -> Callable[[], Rows]:
            if job.pictures is None:
                return lambda: encoder.rows(job, encoder.inputs(job))
            inputs = thread.submit(encoder.inputs, job)
            return lambda: encoder.rows(job, inputs.result())

        try:
            yield submit, 1
        finally:
            thread.shutdown(cancel_futures=True)


@contextmanager
def _workers(retriever: Retriever, settings: Settings, processes: int, device: Any) -> Iterator[Any]:
    """A copy of the model in each of several processes.

    The weights go through a file that workers map: those on the CPU share one copy in memory.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="preflmr-") as folder:
        weights = Path(folder) / "model.pt"
        with evaluating(list(retriever.model.modules())):
            torch.save(retriever, weights)
        threads = max(1, torch.get_num_threads() // processes)
        arguments = (weights, devices(retriever.model, device, processes), context.Value("i", 0), threads, settings)
        executor = ProcessPoolExecutor(processes, context, _start, arguments)
        try:
            yield (lambda job: executor.submit(_work, job).result), 2 * processes
        finally:
            executor.shutdown(cancel_futures=True)


def devices(model: Any, device: Any, processes: int) -> list[str]:
    """The device of each worker: those given in turn, or all GPUs in turn if the model is on one."""
    if device is None:
        kind = next(model.parameters()).device.type
        given = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if kind == "cuda" else [kind]
    else:
        given = [str(one) for one in (device if isinstance(device, (list, tuple)) else [device])]
    return list(itertools.islice(itertools.cycle(given), processes))


_worker: dict[str, Any] = {}  # of a worker process: its encoder, or why it has none


def _start(weights: Path, devices: Sequence[str], started: Any, threads: int, settings: Settings) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        with started.get_lock():
            number = started.value
            started.value += 1
        torch.set_num_threads(threads)
        retriever = torch.load(weights, map_location="cpu", mmap=True, weights_only=False)
        retriever.model.to(devices[number % len(devices)])
        _worker["encoder"] = _Encoder(retriever, settings)
    except Exception as error:  # an exception here would only be printed, and the pool would not say why it broke
        _worker["error"] = error


def _follow_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(OSError):
            multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(job: Job) -> Rows:
    if "error" in _worker:
        raise RuntimeError(f"a worker process could not load the model: {_worker['error']}") from _worker["error"]
    encoder: _Encoder = _worker["encoder"]
    return encoder.rows(job, encoder.inputs(job))


class _Encoder:
    """A model on its device, and how it is used."""

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        self.retriever, self.settings = retriever, settings
        self.modules = list(retriever.model.modules())  # to walk through them for each batch takes milliseconds
        self.packed = PackedLinear()

    def inputs(self, job: Job) -> dict[str, torch.Tensor]:
        """What the model reads, pictures opened."""
        opened: list[list[Any]] = []
        known: dict[Any, Any] = {}  # each picture is opened once
        for number, pictures in zip(job.numbers, job.pictures or (), strict=job.pictures is not None):
            try:
                for picture in pictures:
                    if identity(picture) not in known:
                        known[identity(picture)] = _opened(picture, self.settings.images)
            except (OSError, ValueError) as error:  # of the kind that `preflmr.data.images` raises
                raise type(error)(f"{job.kind} {number}: {error}") from error
            opened.append([known[identity(picture)] for picture in pictures])
        return self.retriever.inputs(job.kind, job.items, None if job.pictures is None else opened)

    def rows(self, job: Job, inputs: dict[str, torch.Tensor]) -> Rows:
        """The rows that take part, ``[T, dim]``, and how many each text has."""
        retriever, settings = self.retriever, self.settings
        device = next(retriever.model.parameters()).device
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
        autocast = torch.autocast(device.type, settings.autocast, enabled=settings.autocast is not None)
        try:
            with torch.inference_mode(), evaluating(self.modules), autocast, self.packed:
                every, mask = retriever.rows(job.kind, inputs, **job.options)
            rows = every[mask].float()
            if settings.autocast is not None:
                rows = torch.nn.functional.normalize(rows, dim=-1)  # rounding left norms that differ in the third digit
            lengths = mask.sum(1, dtype=torch.int64)
        except Exception as error:
            raise RuntimeError(f"{job.name} could not be encoded: {type(error).__name__}: {error}") from error
        return rows.cpu().numpy().astype(settings.rows, copy=False), lengths.cpu().numpy()


def identity(picture: Any) -> Any:
    """The same for the same path, and for the same object."""
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else id(picture)


def _opened(picture: Any, images: Images | None) -> Any:
    if picture is None:
        return blank()
    if isinstance(picture, (str, os.PathLike)):
        return (images or Images(".")).open(os.fspath(picture))
    return picture.convert("RGB")


@contextmanager
def evaluating(modules: Sequence[Any]) -> Iterator[None]:
    """These modules in evaluation mode for a while; those that were in training mode are so again afterwards."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
