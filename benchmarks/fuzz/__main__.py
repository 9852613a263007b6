"""Damaged and hostile indexes with right checksums: none may crash, hang, or take memory without bound.

    python -m benchmarks.fuzz --variants 1000000 --out benchmarks/results/fuzz.json

Most variants are of the arrays that engines take, in memory, those of BM25 among them; every ``--folders``-th is of a
folder on disk, opened with and without verify. Each is searched. A variant is known by its number and the seed, and
runs in a process that is watched: what kills it, or takes longer than 30 seconds, is counted and passed over. Ends with
status 1 if there was such a variant, or an error that does not say what is damaged.

With the compiled module of ``make sanitize``, findings of the compiler's sanitizers end a process, too. These need much
memory, so it is they who bound it (ASAN_OPTIONS=max_allocation_size_mb). The report has a key of its own in the JSON.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hostile import METADATA, SPARSE, TEXTS

from benchmarks.fuzz import engines, folders, texts
from benchmarks.fuzz.outcomes import LOG, Outcome
from lateint import Index, Ragged, __version__
from lateint_kernels import _cpu

PATIENCE = 30  # seconds for a variant
SLACK = 32 << 20  # bytes that a process may take beside twice the size of its index, for Python's own sake
KINDS = ("engines", "folders", "folders verified", "text engines")
TEXT_EVERY = 5  # every how many-th variant is of postings
SYMBOLS = {"address": b"__asan_init", "undefined": b"__ubsan_handle", "thread": b"__tsan_init"}


def main() -> None:
    """Runs all variants and writes what became of them."""
    options = arguments()
    started = time.monotonic()
    options.deadline = started + options.seconds
    work = Path(tempfile.mkdtemp(dir=options.work))
    os.environ[LOG] = str(work / "errors")
    try:
        sources = intact(work / "intact")
        lots = np.array_split(np.arange(options.variants), options.processes)
        watched = [Watched(options, work / str(i), sources, lot) for i, lot in enumerate(lots) if len(lot)]
        while not all([one.step() for one in watched]):
            time.sleep(0.05)
        report = summary(options, watched, time.monotonic() - started)
        errors = (work / "errors").read_text() if (work / "errors").exists() else ""
    finally:
        shutil.rmtree(work)
    print(json.dumps(report, indent=1))
    print(errors[:20000], end="", file=sys.stderr)
    if options.out:
        reports = json.loads(options.out.read_text()) if options.out.exists() else {}
        reports[",".join(sanitizers()) or "plain"] = report
        options.out.write_text(json.dumps(reports, indent=1) + "\n")
    bad = [Outcome.out_of_memory.name, Outcome.unexpected_error.name]
    sys.exit(bool(report["killed"] or report["hangs"] or any(report[kind].get(name) for kind in KINDS for name in bad)))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=10_000)
    parser.add_argument("--folders", type=int, default=20, help="every how many-th variant is a folder (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first variant, to run one again")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop, and say how far it came")
    parser.add_argument("--work", default="/dev/shm" if os.path.isdir("/dev/shm") else None, help="where folders are")
    parser.add_argument("--out", type=Path, help="the JSON to write")
    return parser.parse_args()


def intact(folder: Path) -> list[Path]:
    """Small indexes of every kind: bits, ids, several segments, bundles, deletions, fields, postings."""
    folder.mkdir()
    golden = Path(__file__).parents[2] / "tests" / "golden"
    sources = [path for path in sorted(golden.iterdir()) if path.is_dir()]
    for nbits, dim, strings in ((1, 8, True), (2, 40, False), (4, 128, True), (8, 24, False)):
        rng, path = np.random.default_rng(nbits), folder / str(nbits)
        lengths = rng.integers(1, 9, 60)

        def documents(some: Any, dim: int = dim, rng: Any = rng) -> Ragged:
            return Ragged.from_lengths(rng.standard_normal((int(some.sum()), dim)).astype(np.float32), some)

        def fields(count: int, given: bool = nbits != 2) -> dict[str, Any]:
            few = [i % len(TEXTS) for i in range(count)]
            every = {"texts": TEXTS, "metadata": METADATA, "sparse": SPARSE}
            return {name: [values[i] for i in few] for name, values in every.items()} if given else {}

        names = [f"document {i}" for i in range(60)] if strings else list(range(60))
        settings = {**fields(60), "text_search": nbits in (4, 8), "ncentroids": 30, "progress": False}
        index = Index.build(documents(lengths), path, nbits=nbits, ids=names, **settings)
        more = ["a", "b", "c", "d", "e"] if strings else [60, 61, 62, 63, 64]
        index.add(documents(lengths[:5]), ids=more, **fields(5))
        index.delete(names[3:6])
        sources.append(path)
    return sources


class Watched:
    """A process that runs variants, and another one after it where it dies."""

    def __init__(self, options: argparse.Namespace, folder: Path, sources: list[Path], numbers: Any) -> None:
        self.options, self.folder, self.sources = options, folder, sources
        self.next, self.end = options.first + int(numbers[0]), options.first + int(numbers[-1]) + 1
        self.shared = np.frombuffer(mmap.mmap(-1, 4096), np.int64)  # the number at hand, then outcomes by kind
        self.counts = self.shared[1 : 1 + len(KINDS) * len(Outcome)].reshape(len(KINDS), len(Outcome))
        self.killed: list[tuple[int, str]] = []
        self.hangs: list[int] = []
        self.pid = 0
        self.begin()

    def begin(self) -> None:
        """Starts a process at the next variant."""
        self.shared[0], self.since = self.next, time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.work()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(70)

    def step(self) -> bool:
        """Looks at the process; True when all is done."""
        if not self.pid:
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            if int(self.shared[0]) != self.next:
                self.next, self.since = int(self.shared[0]), time.monotonic()
            if time.monotonic() - self.since < PATIENCE:
                return False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.hangs.append(self.next)
        elif status == 0:
            self.pid = 0
            return True
        else:
            self.next = int(self.shared[0])
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
            self.killed.append((self.next, how))
        self.next += 1
        if self.next >= self.end or len(self.killed) > 100:
            self.pid = 0
            return True
        self.begin()
        return False

    def work(self) -> None:
        """Runs variants, in the process."""
        self.folder.mkdir()
        on_disk = [folders.Base(source, self.folder / str(i)) for i, source in enumerate(self.sources)]
        opened = [Index.open(base.folder) for base in on_disk]
        in_memory = [engines.Base.of(index) for index in opened]
        postings = [base for index in opened if index.analyzer is not None for base in texts.of(index)]
        for base in in_memory:  # threads, and whatever is made once
            engines.run(np.random.default_rng(0), base)
        if not sanitizers():
            limit_memory(max(base.bytes for base in on_disk))
        for number in range(self.next, self.end):
            if time.monotonic() > self.options.deadline:
                return
            self.shared[0] = number
            rng = np.random.default_rng([self.options.seed, number])
            if number % self.options.folders == 0:
                kind = int(rng.integers(1, 3))
                outcome = folders.run(rng, on_disk[rng.integers(len(on_disk))], kind == 2)
            elif number % TEXT_EVERY == 1:
                kind, outcome = 3, texts.run(rng, postings[rng.integers(len(postings))])
            else:
                kind, outcome = 0, engines.run(rng, in_memory[rng.integers(len(in_memory))])
            self.counts[kind, outcome] += 1


@cache
def sanitizers() -> list[str]:
    """Those that the compiled module was built with."""
    module = Path(_cpu.__file__).read_bytes()
    return [name for name, symbol in SYMBOLS.items() if symbol in module]


def limit_memory(size: int) -> None:
    """Lets this process take twice the size of an index and some slack beside what it has."""
    status = Path("/proc/self/status").read_text()
    taken = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + 2 * size + SLACK,) * 2)


def summary(options: argparse.Namespace, watched: list[Watched], seconds: float) -> dict[str, Any]:
    """What is written."""
    counts = sum(one.counts for one in watched)
    killed = [death for one in watched for death in one.killed]
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return {
        "variants": int(counts.sum()) + len(killed) + sum(len(one.hangs) for one in watched),
        **{kind: {o.name: int(counts[i, o]) for o in Outcome if counts[i, o]} for i, kind in enumerate(KINDS)},
        "killed": dict(Counter(how for _, how in killed)),
        "hangs": sum(len(one.hangs) for one in watched),
        "numbers_to_look_at": [number for number, _ in killed] + [n for one in watched for n in one.hangs],
        "memory_limit": os.environ.get("ASAN_OPTIONS", "none")
        if sanitizers()
        else f"twice the size of the index and {SLACK >> 20} MiB",
        "seconds": round(seconds),
        "seed": options.seed,
        "isa": _cpu.active_isa(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "version": __version__,
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    }


if __name__ == "__main__":
    main()
