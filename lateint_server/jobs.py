"""Work that waits for a thread of its own, and its results on their way back to the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any


class Overloaded(Exception):
    """So much waits already that no more is taken."""


class TooLate(Exception):
    """The time of a job is over."""


@dataclass(eq=False)
class Job:
    """What is to be done, and the future for its result.

    Attributes:
        work: what it is; the queue's owner knows.
        deadline: by `time.monotonic`; a job that has not begun by then is left out.
        group: jobs of one group may be done in one call.
    """

    work: Any
    deadline: float
    group: Hashable = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    future: asyncio.Future[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.future = self.loop.create_future()


class Jobs:
    """A queue and the one thread that empties it, which takes all that waits at once but never waits for more.

    Args:
        do: gets the jobs, and gives for each a result or an exception.
        limit: how many may wait.
        most: how many are taken at once.
        idle: called each time that nothing came for ``pause`` seconds.
    """

    def __init__(
        self,
        name: str,
        do: Callable[[list[Job]], list[Any]],
        *,
        limit: int,
        most: int = 64,
        idle: Callable[[], None] | None = None,
        pause: float | None = None,
    ) -> None:
        self._do, self._idle, self._pause = do, idle, pause
        self._limit, self._most = limit, most
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._queue.qsize()

    @property
    def full(self) -> bool:
        """Whether `run` would refuse."""
        return len(self) >= self._limit

    async def run(self, work: Any, timeout: float, group: Hashable = None) -> Any:
        """The result of a job.

        Raises:
            Overloaded: too many jobs wait.
            TooLate: there was none within ``timeout`` seconds.
        """
        if self.full:
            raise Overloaded
        job = Job(work, time.monotonic() + timeout, group)
        clock = job.loop.call_later(timeout, _resolve, [(job.future, TooLate())])
        self._queue.put(job)
        try:
            return await job.future
        finally:
            clock.cancel()

    def close(self) -> None:
        """Does what waits, and ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                job = self._queue.get(timeout=self._pause)
            except Empty:
                if self._idle is not None:
                    self._idle()
                continue
            jobs = [] if job is None else [job]
            ended = job is None
            while not ended and len(jobs) < self._most:
                try:
                    job = self._queue.get_nowait()
                except Empty:
                    break
                if job is None:
                    ended = True
                else:
                    jobs.append(job)
            now = time.monotonic()
            if jobs := [job for job in jobs if job.deadline > now]:
                _answer(jobs, self._results(jobs))
            if ended:
                return

    def _results(self, jobs: list[Job]) -> list[Any]:
        try:
            return self._do(jobs)
        except Exception as error:
            return [error] * len(jobs)


def _answer(jobs: Iterable[Job], results: Iterable[Any]) -> None:
    """Hands results over, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, result in zip(jobs, results, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, result))
    for loop, pairs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, pairs)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _resolve(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
