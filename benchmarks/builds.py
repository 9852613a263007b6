"""Builds that are killed, and builds in bounded memory.

    python -m benchmarks.builds kills --kills 200 --out benchmarks/results/builds-kills.json
    python -m benchmarks.builds memory --tokens 3e7 --out benchmarks/results/builds-memory.json
    python -m benchmarks.builds ids --documents 1e6 --out benchmarks/results/builds-ids.json

``kills``: a build with ``resume=True`` gets SIGKILL at a random moment, and again with a chance of one in three as it
goes on; then it is left to end. Every file is to have the sha256 that it has after a build that was never stopped, and
nothing else is to be left.

``memory``: tokens are made on the fly (sums of two runs of clustered tokens), so that the source takes next to nothing;
one build without a limit and one with ``max_ram``. What counts is the peak of anonymous memory (``RssAnon``, looked at
every 5 ms), for mapped files are the system's to drop. Times are of both clocks, for others may use the machine, too.

``ids``: documents of three tokens with string ids, likewise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import read_json, write_json
from benchmarks.rivals.run import machine
from lateint import Index
from lateint.indexing import builder, checkpoints

BANK = 1 << 16
POLL = 0.005  # seconds


class Made:
    """Documents of ``length`` tokens each, as chunks (tokens, lengths); each iteration gives the same."""

    def __init__(self, documents: int, length: int, dim: int, seed: int = 0) -> None:
        self.documents, self.length, self.seed = documents, length, seed
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((2048, dim), np.float32)
        bank = centres[rng.integers(0, len(centres), BANK)] + rng.standard_normal((BANK, dim), np.float32)
        self.bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        most = max(1, (1 << 14) // self.length)
        for number, first in enumerate(range(0, self.documents, most)):
            count = min(most, self.documents - first)
            size = count * self.length
            rng = np.random.default_rng([self.seed, number])
            one, other = rng.integers(0, BANK - size, 2)
            tokens = np.multiply(self.bank[one : one + size], np.float32(0.9))
            tokens += np.float32(0.45) * self.bank[other : other + size]
            yield tokens, np.full(count, self.length)


def build_to_kill(folder: Path) -> None:
    """A second or two of work with a checkpoint after every chunk."""
    builder.CHUNK, checkpoints.SECONDS = 1 << 11, 0
    Index.build(
        Made(3000, 40, 64), folder / "index", max_ram=3_800_000, resume=True, overwrite=True, progress=False, threads=1
    )


def sha256(folder: Path) -> dict[str, str]:
    """Of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def child(*arguments: str) -> subprocess.Popen[bytes]:
    """This module once more."""
    return subprocess.Popen([sys.executable, "-m", "benchmarks.builds", *arguments])


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """Kills builds at random moments, ends them and compares."""
    rng = random.Random(options.seed)
    same = leftovers = resumed = killed = again = 0
    with tempfile.TemporaryDirectory(prefix="lateint-") as name:
        folder = Path(name)
        started = time.perf_counter()
        assert child("one", name).wait() == 0
        seconds = time.perf_counter() - started
        expected = sha256(folder / "index")
        segments = sum(file.endswith("/codes.npy") for file in expected)
        for number in range(options.kills):
            shutil.rmtree(folder / "index")
            while True:
                process = child("one", name)
                time.sleep(rng.uniform(0, 1) * seconds)
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
                if rng.random() < 2 / 3:
                    break
                again += 1
            resumed += any(folder.glob(".index.building-*/build.json"))
            started = time.perf_counter()
            assert child("one", name).wait() == 0
            if number == 0:
                print(f"{seconds:.1f} s a build, {time.perf_counter() - started:.1f} s the first end", file=sys.stderr)
            same += sha256(folder / "index") == expected
            leftovers += len(os.listdir(folder)) - 1
    return {
        "builds": options.kills,
        "kills": killed,
        "killed_more_than_once": again,
        "resumed": resumed,
        "same_sha256_of_every_file": same,
        "files": len(expected),
        "segments": segments,
        "leftovers": leftovers,
        "seed": options.seed,
        "machine": machine(sorted(os.sched_getaffinity(0))),
    }


def watched(arguments: list[str], out: Path) -> dict[str, Any]:
    """Runs this module and looks at its anonymous memory."""
    process, peak = child(*arguments, "--out", str(out)), 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) << 10)
        except (OSError, IndexError):
            pass
        time.sleep(POLL)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"anonymous_peak_bytes": peak, **read_json(out)}


def build_made(options: argparse.Namespace) -> dict[str, Any]:
    """One build, and its seconds."""
    names = [f"document-{i:09d}" for i in range(options.documents)] if options.strings else None
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory(prefix="lateint-", dir=options.folder) as folder:
        index = Index.build(
            Made(options.documents, options.length, options.dim),
            Path(folder) / "index",
            ids=names,
            max_ram=options.max_ram,
            threads=options.threads,
            progress=False,
        )
        stats = index.stats()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "max_ram": options.max_ram,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        **{key: stats[key] for key in ("documents", "tokens", "dim", "centroids", "segments", "build_seconds")},
    }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Builds without and with a limit."""
    of_all = ["--documents", str(options.documents), "--length", str(options.length), "--dim", str(options.dim)]
    of_all += ["--folder", options.folder or tempfile.gettempdir(), *(["--strings"] if options.strings else [])]
    of_all += ["--threads", str(options.threads)]
    results = {}
    with tempfile.TemporaryDirectory(prefix="lateint-") as name:
        for what, limit in (("limited", options.max_ram), ("unlimited", None)):
            if limit is None and options.strings:
                continue
            bound = [] if limit is None else ["--max-ram", str(limit)]
            results[what] = watched(["made", *of_all, *bound], Path(name) / "out.json")
            print(what, results[what], file=sys.stderr)
    return {**results, "machine": machine(sorted(os.sched_getaffinity(0)))}


def main() -> None:
    """Runs one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["kills", "memory", "ids", "one", "made"])
    parser.add_argument("place", nargs="?", help="of the index to kill")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=float, default=3e7)
    parser.add_argument("--documents", type=lambda text: int(float(text)), default=None)
    parser.add_argument("--length", type=int, default=None)
    parser.add_argument("--dim", type=int, default=None)
    parser.add_argument("--max-ram", type=lambda text: int(float(text)), default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", help="where indexes are written")
    parser.add_argument("--strings", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.command == "one":
        return build_to_kill(Path(options.place))
    if options.command == "made":
        return write_json(options.out, build_made(options))
    if options.command == "kills":
        return write_json(options.out, kills(options))
    options.strings = options.command == "ids"
    options.length = options.length or (3 if options.strings else 100)
    options.dim = options.dim or (64 if options.strings else 128)
    options.documents = options.documents or (10**6 if options.strings else int(options.tokens) // options.length)
    options.max_ram = options.max_ram or (1 << 28 if options.strings else 1 << 30)
    write_json(options.out, memory(options))


if __name__ == "__main__":
    main()
