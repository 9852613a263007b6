"""Engines asked in turn: each is a process that answers some queries while the others wait, so that noise is shared.

A contender is one setting of one open index. All get the same queries, a block at a time, in an order that is drawn
anew for each block. So a busy second of the machine hurts whoever happens to run, and the ratio of two contenders is
that of calls a few seconds apart. Ratios are of processor time: on a quiet machine with one thread it is the time by
the clock, and where other work runs it does not count how often a call was interrupted. Fast contenders go through
their queries several times; slow ones answer only the first of them, and what is said of them is of these.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rivals.measure import percentiles

WARM_UP, WARM_UP_SECONDS = 8, 2.0  # queries before any is timed, or as many as fit
BLOCK = 10  # queries that a contender answers in a row
FEWEST = 20  # queries that the slowest contender answers
PATIENCE = 180.0  # seconds without an answer after which an engine has failed


class Worker:
    """The process of an engine, with its index open."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cores: Sequence[int], log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self.peak_rss = 0
        self.opened = self._reply(10 * PATIENCE)

    def _reply(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next line that it writes."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise RuntimeError(f"no answer{'' if ready else f' within {patience:.0f} s'}; its log is {self.log.name}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def ask(self, setting: Mapping[str, Any], queries: Sequence[int], batch: bool = False) -> dict[str, Any]:
        """Seconds and document numbers for these queries; RuntimeError where the engine has failed."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the process has ended; its log is {self.log.name}")
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"setting": setting, "queries": list(queries), "batch": batch}) + "\n")
        self.process.stdin.flush()
        reply = self._reply()
        self.peak_rss = max(self.peak_rss, reply["peak_rss"])
        return reply

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


@dataclass
class Contender:
    """One setting of one open index, and what it has answered."""

    name: str
    worker: Worker
    setting: Mapping[str, Any]
    cost: float = 0.0  # seconds a query, from the warm-up
    seconds: dict[int, list[float]] = field(default_factory=dict)  # of each query, by the clock
    spent: dict[int, list[float]] = field(default_factory=dict)  # of each query, processor time
    found: dict[int, list[int]] = field(default_factory=dict)
    failed: str = ""

    def ask(self, queries: Sequence[int], batch: bool = False) -> tuple[list[float], list[float]]:
        """The seconds of its calls, by the clock and of CPU; what fails is said once and asked nothing more."""
        try:
            reply = self.worker.ask(self.setting, queries, batch)
        except RuntimeError as error:
            self.failed = str(error)
            print(f"{self.name} {dict(self.setting)}: {error}", file=sys.stderr, flush=True)
            return [], []
        for query, ids in zip(queries, reply["ids"], strict=True):
            self.found.setdefault(query, ids)
        return reply["seconds"], reply.get("cpu_seconds", [])

    def warm_up(self, queries: Sequence[int]) -> None:
        """Answers a few queries that are not timed, but for the cost."""
        spent: list[float] = []
        for query in queries[:WARM_UP]:
            spent += self.ask([query])[0]
            if self.failed or sum(spent) > WARM_UP_SECONDS:
                break
        self.cost = min(spent, default=0.0)
        self.found.clear()

    def latency(self) -> dict[str, Any]:
        """Percentiles over all its calls."""
        calls = [seconds for of_query in self.seconds.values() for seconds in of_query]
        spent = [seconds for of_query in self.spent.values() for seconds in of_query]
        cpu = {"cpu_ms": statistics.median(spent) * 1e3}
        return {**percentiles(calls), **cpu, "queries": len(self.seconds), "searches": len(calls)}

    def times(self, base: Contender, clock: bool = False) -> float:
        """How many times the processor time of ``base``, or by the clock: the median of the ratios, query by query."""
        mine, theirs = (self.seconds, base.seconds) if clock else (self.spent, base.spent)
        both = sorted(mine.keys() & theirs.keys())
        return statistics.median(statistics.median(mine[query]) / statistics.median(theirs[query]) for query in both)


def take_turns(contenders: Sequence[Contender], queries: int, most: float, rounds: int, seed: int = 0) -> None:
    """Asks every contender for at most ``most`` seconds each, up to ``rounds`` times every query."""
    rng = random.Random(seed)
    order = rng.sample(range(queries), queries)
    for contender in contenders:
        contender.warm_up(order)
    for turn in range(rounds):
        for first in range(0, queries, BLOCK):
            for contender in rng.sample(contenders, len(contenders)):
                share = min(queries, max(FEWEST, int(most / max(contender.cost, 1e-9))))
                block = order[first : min(first + BLOCK, share)]
                if contender.failed or not block or (turn and contender.cost * queries * (turn + 1) > most):
                    continue
                for query, seconds, spent in zip(block, *contender.ask(block), strict=False):
                    contender.seconds.setdefault(query, []).append(seconds)
                    contender.spent.setdefault(query, []).append(spent)


def batches(contenders: Sequence[Contender], queries: int, most: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Queries a second of each contender's batches, asked in turn, by name: of the median of its calls."""
    spent: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    size = {c.name: min(queries, max(FEWEST, int(most / max(c.cost, 1e-9)))) for c in contenders}
    for _ in range(rounds):
        for contender in contenders:
            if not contender.failed and sum(spent[contender.name]) < most:
                spent[contender.name] += contender.ask(range(size[contender.name]), batch=True)[0]
    return {
        name: {"queries_per_second": size[name] / statistics.median(seconds), "batch_queries": size[name]}
        for name, seconds in spent.items()
        if seconds
    }
