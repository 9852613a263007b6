"""Processes of the engines: their indexes are built and kept, and opened; the exact kernels are timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.embeddings import load, read_json, write_json
from benchmarks.rivals.cases import Case
from benchmarks.rivals.measure import watched
from benchmarks.rivals.systems import SYSTEMS, System, Variant
from benchmarks.rivals.turns import Worker

DENSE_SECONDS = 2.0

Entry = tuple[System, Variant]


def label(entry: Entry) -> str:
    """A system and its index: ``lateint, 4 bits``."""
    return f"{entry[0].name}, {entry[1].name}"


class OtherWork:
    """How much of the machine's processors others use, from its making on."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), *self._spent()

    @staticmethod
    def _spent() -> tuple[float, float]:
        """Processor seconds so far: of the whole machine, and of this process with those that it has seen end."""
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
        times = os.times()
        mine = times.user + times.system + times.children_user + times.children_system
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK"), mine

    def share(self) -> float:
        """From 0, an idle machine but for this process and its children, to 1."""
        start, everything, mine = self.start
        now_everything, now_mine = self._spent()
        there = (time.perf_counter() - start) * (os.cpu_count() or 1)
        return max(0.0, (now_everything - everything - (now_mine - mine)) / there)


@dataclass(frozen=True)
class Bench:
    """Where things lie, and how processes of the engines are started."""

    keep: Path
    envs: Path
    cores: list[int]
    device: str

    def folder(self, data: Path, entry: Entry) -> Path:
        """What is kept of one index: itself, and what its build measured."""
        return self.keep / data.name / f"{entry[0].module}-{entry[1].name.replace(' ', '-')}"

    def command(self, system: System, *paths: Path) -> list[str]:
        """How its adapter is started."""
        python = sys.executable if system.own else str(self.envs / str(system.environment) / "bin" / "python")
        return [python, "-m", f"benchmarks.rivals.{system.module}", *map(str, paths)]

    def environment(self, threads: int) -> dict[str, str]:
        """Thread variables, and no device where none is asked for."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
        pools = ("LANCE_CPU_THREADS", "LATEINT_NUM_THREADS")
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}
        return {**dict.fromkeys((*names, *pools), str(threads)), **hidden}

    def job(self, path: Path, data: Path, entry: Entry, threads: int, **others: Any) -> Path:
        """Writes what an adapter is to do."""
        common = {
            "data": str(data.resolve()),
            "index": str((self.folder(data, entry) / "index").resolve()),
            "options": entry[1].options,
            "dim": int(load(data).tokens.shape[1]),
            "threads": threads,
            "device": self.device,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**common, **others})
        return path


def build(bench: Bench, data: Path, entry: Entry) -> dict[str, Any] | None:
    """Builds one index and measures it; None where it failed, which is said and does not stop the others."""
    folder = bench.folder(data, entry)
    shutil.rmtree(folder, ignore_errors=True)
    order = bench.job(folder / "build.job.json", data, entry, len(bench.cores), phase="build")
    start, others = time.perf_counter(), OtherWork()
    print(f"{data.name}: {label(entry)}, build ...", end=" ", flush=True)
    with (folder / "build.log").open("w") as log:
        status, anonymous = watched(
            bench.command(entry[0], order, folder / "measured.json"),
            env={**os.environ, **bench.environment(len(bench.cores))},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if status:
        print(f"{label(entry)} failed, exit status {status}; its log is {folder}/build.log", file=sys.stderr)
        return None
    index, tokens = folder / "index", len(load(data).tokens)
    files = index.rglob("*") if index.is_dir() else [index]
    size = sum(path.stat().st_size for path in files if path.is_file())
    made = {
        **read_json(folder / "measured.json"),
        "peak_anonymous": anonymous,
        "bytes_per_token": size / tokens,
        "other_work": others.share(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }
    write_json(folder / "build.json", made)  # last: what has it is complete
    return made


def built(bench: Bench, data: Path, entry: Entry, again: bool) -> dict[str, Any] | None:
    """What the build of an index measured, if it is kept and need not be made again."""
    path = bench.folder(data, entry) / "build.json"
    return dict(read_json(path)) if path.exists() and not again else None


def opened(bench: Bench, case: Case, entries: Sequence[Entry], threads: int) -> dict[str, Worker]:
    """The engines with their indexes open, by label."""
    workers = {}
    for entry in entries:
        folder = bench.folder(case.data, entry)
        path = folder / f"answer-{threads}.job.json"
        order = bench.job(path, case.data, entry, threads, phase="answer", queries=str(case.queries.resolve()))
        command, cores = bench.command(entry[0], order), bench.cores[-threads:]
        try:
            workers[label(entry)] = Worker(command, bench.environment(threads), cores, path.with_suffix(".log"))
        except RuntimeError as error:
            print(f"{label(entry)} does not open: {error}", file=sys.stderr, flush=True)
    return workers


def dense(bench: Bench, data: Path) -> dict[str, Any]:
    """The exact kernels, ours and theirs by turns; the best of the rounds."""
    versions: dict[str, str] = {}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    folder = bench.keep / "dense"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        for kernels, system in (("own", SYSTEMS[0]), ("rivals", SYSTEMS[1])):
            order, measured = folder / f"{kernels}.job.json", folder / f"{kernels}.json"
            write_json(order, {"data": str(data.resolve()), "kernels": kernels, "seconds": DENSE_SECONDS})
            command = [bench.command(system)[0], "-m", "benchmarks.rivals.dense", str(order), str(measured)]
            print(f"exact kernels, {kernels} ...", flush=True)
            with (folder / f"{kernels}.log").open("w") as log:
                status, _ = watched(
                    command,
                    env={**os.environ, **bench.environment(1)},
                    preexec_fn=lambda: os.sched_setaffinity(0, bench.cores[-1:]),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if status:
                print(f"the exact kernels failed, exit status {status}; the log is {log.name}", file=sys.stderr)
                continue
            for row in read_json(measured)["rows"]:
                key = (row["system"], row["dtype"])
                if key not in best or row["ms"] < best[key]["ms"]:
                    best[key] = row
            versions |= read_json(measured)["versions"]
    return {"versions": versions, "rows": list(best.values())}
