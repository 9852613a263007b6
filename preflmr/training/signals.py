"""SIGTERM and Ctrl-C while a run lasts: all devices stop together, after a batch, with a checkpoint.

A second signal ends the process where it stands. So does the first while `at_once` lasts, which is for what may take
long and loses nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

CAUGHT = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Which signal came, on any device; use it as a context."""

    def __init__(self) -> None:
        self._came = 0
        self._at_once = False
        self._before: dict[int, Any] = {}
        # Of their own, on the CPU: to ask a GPU would wait for all that it has to do.
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if several else None

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # others cannot
            self._before = {number: signal.signal(number, self._handle) for number in CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def agreed(self, *own: int) -> tuple[int, ...]:
        """The signal that came on any device, or 0, and the largest of each of ``own`` over all devices."""
        numbers = torch.tensor([self._came, *own])
        if self._group is not None:
            dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group)
        return tuple(numbers.tolist())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal that comes now, or came before, does not wait."""
        self._at_once = True
        try:
            if self._came:
                end(self._came)
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._came or self._at_once:
            end(number)
        self._came = number


def end(number: int) -> None:
    """Raises what a signal asks for.

    Raises:
        KeyboardInterrupt: for Ctrl-C.
        SystemExit: with the status of a process that the signal ended.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def ignore(_: int) -> None:
    """In a worker that prepares batches: a Ctrl-C reaches it, too, and the run still needs what it has."""
    for number in CAUGHT:
        signal.signal(number, signal.SIG_IGN)
