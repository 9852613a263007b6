"""Work that waits for a thread of its own, and its results on their way back to the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
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
    """A queue that one event loop fills and one thread empties, which takes all that waits but never waits for more.

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
        self._coming: list[Job] = []  # in this turn of the event loop
        self._waiting: deque[Job] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._coming) + len(self._waiting)

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
        self._coming.append(job)
        if len(self._coming) == 1:
            job.loop.call_soon(self._hand_over)
        try:
            return await job.future
        finally:
            clock.cancel()

    def close(self) -> None:
        """Does what waits, and ends the thread."""
        self._hand_over()
        self._closed = True
        self._wake.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        """Wakes the thread once for all that has come in this turn of the event loop."""
        coming, self._coming = self._coming, []
        self._waiting.extend(coming)
        self._wake.put(None)

    def _run(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                try:
                    self._wake.get(timeout=self._pause)
                except Empty:
                    if self._idle is not None:
                        self._idle()
                    continue
            jobs = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            now = time.monotonic()
            if jobs := [job for job in jobs if job.deadline > now]:
                _answer(jobs, self._results(jobs))

    def _results(self, jobs: list[Job]) -> list[Any]:
        try:
            return self._do(jobs)
        except Exception as error:
            return [error] * len(jobs)


def _answer(jobs: list[Job], results: list[Any]) -> None:
    """Hands results over, waking the event loop once."""
    pairs = [(job.future, result) for job, result in zip(jobs, results, strict=True)]
    try:
        jobs[0].loop.call_soon_threadsafe(_resolve, pairs)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _resolve(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
