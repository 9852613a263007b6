"""Asking many shards at once: a replica where one fails, a second one where one is late, and an end after a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from lateint.sharding.places import Facts, Outcome, Place, is_callers

KEPT = 1000  # answers of which the 95th percentile is taken
ENOUGH = 20  # answers, before which no second request is sent
MORE = 0.05  # requests that may be sent on top, as a share
BURST = 10.0  # of them at once
PROBE = 64  # every so many requests, a place that is not the best is asked as well, to learn how it does now


class Shard:
    """A part of the documents, at one place or more."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        self.requests = self.extra = 0
        self._allowance = 0.0
        self._took: deque[float] = deque(maxlen=KEPT)
        self._late: float | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """That of its first place."""
        return self.places[0].name

    @property
    def documents(self) -> int | None:
        """How many, as far as a place has said; None: none has."""
        return next((place.facts.documents for place in self.places if place.facts is not None), None)

    @property
    def late(self) -> float | None:
        """Seconds after which an answer is late: the 95th percentile of the last ones; None: not known."""
        return self._late

    def begin(self) -> tuple[Place, Place | None]:
        """The place to ask, and another one if it is time to see how that does."""
        with self._lock:
            self.requests += 1
            self._allowance = min(BURST, self._allowance + MORE)
            first = min(self.places, key=lambda place: place.cost)
            others = [place for place in self.places if place is not first]
            if not others or self.requests % PROBE or self._allowance < 1:
                return first, None
            self._allowance -= 1
            self.extra += 1
            return first, others[self.requests // PROBE % len(others)]

    def second(self, asked: Sequence[Place]) -> Place | None:
        """Another place for a request that is late, if one works and there have not been too many."""
        with self._lock:
            place = min((one for one in self.places if one not in asked), key=lambda one: one.cost, default=None)
            if place is None or place.failed or self._allowance < 1:
                return None
            self._allowance -= 1
            self.extra += 1
            return place

    def instead(self, asked: Sequence[Place]) -> Place | None:
        """Another place for a request that failed."""
        return min((one for one in self.places if one not in asked), key=lambda one: one.cost, default=None)

    def answered(self, seconds: float) -> None:
        """Notes how long an answer took."""
        with self._lock:
            self._took.append(seconds)
            if len(self._took) >= ENOUGH and (self._late is None or self.requests % 16 == 0):
                self._late = sorted(self._took)[int(0.95 * len(self._took))]


@dataclass(frozen=True)
class Lost:
    """A shard that did not answer, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


class Request:
    """One question to one shard."""

    def __init__(
        self, shard: Shard, question: Callable[[Any], Any], expected: Facts, done: Callable[..., None]
    ) -> None:
        self.shard, self.question, self.expected, self.done = shard, question, expected, done
        self.asked: list[Place] = []
        self.errors: list[str] = []
        self.started = time.monotonic()
        first, probed = shard.begin()
        late = shard.late if len(shard.places) > 1 else None
        self.second_at = None if late is None or probed is not None else self.started + late
        self._send(first)
        if probed is not None:
            self._send(probed)

    def hurry(self, now: float) -> None:
        """Asks a second place if the answer is late."""
        if self.second_at is not None and now >= self.second_at:
            self.second_at = None
            if (place := self.shard.second(self.asked)) is not None:
                self._send(place)

    def take(self, outcome: Outcome) -> Outcome | Lost | None:
        """What became of the request; None: another place is still to answer.

        Raises:
            TypeError, ValueError, UnknownIdError: what was asked is wrong.
        """
        if outcome.error is None:
            self.shard.answered(time.monotonic() - self.started)
            if outcome.place is not self.asked[0]:
                outcome.place.was_first(outcome.seconds)
            return outcome
        if is_callers(outcome.error):
            raise outcome.error
        self.errors.append(_said(outcome.error))
        if (place := self.shard.instead(self.asked)) is not None:
            self._send(place)
        return Lost(self.shard.name, "; ".join(self.errors)) if len(self.errors) == len(self.asked) else None

    def given_up(self, timeout: float) -> Lost:
        """What it is when the time is over."""
        return Lost(self.shard.name, "; ".join([*self.errors, f"no answer within {timeout:g} s"]))

    def _send(self, place: Place) -> None:
        self.asked.append(place)
        place.ask(self.question, self.expected, self.done)


def ask(
    asked: Sequence[tuple[Shard, Callable[[Any], Any]]], expected: Facts, deadline: float, timeout: float
) -> list[Outcome | Lost]:
    """Asks shards at once, each its question, and gives what became of each, in order.

    Args:
        deadline: when to give up, as `time.monotonic` counts; ``timeout`` is how long that was from the beginning.

    Raises:
        TypeError, ValueError, UnknownIdError: what was asked is wrong.
    """
    arrived: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
    waiting = {
        number: Request(shard, question, expected, lambda outcome, number=number: arrived.put((number, outcome)))
        for number, (shard, question) in enumerate(asked)
    }
    results: dict[int, Outcome | Lost] = {}
    while waiting:
        now = time.monotonic()
        if now >= deadline:
            results |= {number: request.given_up(timeout) for number, request in waiting.items()}
            break
        wake = min([deadline, *(one.second_at for one in waiting.values() if one.second_at is not None)])
        try:
            number, outcome = arrived.get(timeout=max(0.0, wake - now))
        except Empty:
            for request in waiting.values():
                request.hurry(time.monotonic())
            continue
        if number in waiting and (result := waiting[number].take(outcome)) is not None:
            results[number] = result
            del waiting[number]
    return [results[number] for number in range(len(asked))]


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
