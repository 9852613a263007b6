"""Measures lateint and its rivals on the same saved embeddings, asked in turn, and writes one JSON as it goes.

    benchmarks/rivals/install.sh ENVS
    python -m benchmarks.rivals.run --data EMBEDDINGS ... --envs ENVS --keep KEEP --out RESULT.json

Run it from the repository's root in an environment with lateint. Each folder of embeddings is a collection of its own.
First every index that is not in ``--keep`` is built, one process after the other; those of lateint are built anew
every time, since it changes. ``--build-only`` stops there: the rivals take long, and a build need not be repeated for
a search. Then the engines are asked in turn (`turns`): every setting with one thread; every default setting with two,
one query at a time and all in a batch. ``--resume`` keeps what the JSON already has, engine by engine and case by
case; without it, what is measured again replaces what was there. ``--documents 1000 --queries 20`` tries everything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import load, read_json, shorten, write_json
from benchmarks.rivals.cases import Case, cases
from benchmarks.rivals.processes import Bench, Entry, OtherWork, build, built, dense, label, opened
from benchmarks.rivals.systems import SYSTEMS
from benchmarks.rivals.turns import Contender, Worker, batches, take_turns

ROUNDS = 5  # times that a fast engine answers every query
BATCHES = 3


def row(case: Case, contender: Contender, base: Contender, default: bool) -> dict[str, Any]:
    """What the JSON says of a setting, one thread."""
    if contender.failed or not contender.seconds:
        return {"setting": contender.setting, "default": default, "failed": contender.failed}
    return {
        "setting": contender.setting,
        "default": default,
        "overlap_at_10": case.overlap(contender.found),
        "ndcg_at_10": case.ndcg(contender.found),
        "of_queries": {"overlap_at_10": case.overlaps(contender.found), "ndcg_at_10": case.ndcgs(contender.found)},
        "one_thread": contender.latency(),
        "times_lateint": contender.times(base) if base.seconds else None,
    }


def ask(bench: Bench, case: Case, entries: Sequence[Entry], most: float) -> dict[str, dict[str, Any]]:
    """What one case measures of these indexes, by label; the first is what the others' times are divided by."""
    workers = opened(bench, case, entries, 1)
    contenders = {
        label(entry): [
            Contender(label(entry), workers[label(entry)], setting)
            for setting in (entry[1].default or {}, *entry[1].settings)
        ]
        for entry in entries
        if label(entry) in workers
    }
    print(f"{case.name}: one thread ...", flush=True)
    take_turns([c for several in contenders.values() for c in several], len(case.asked), most, ROUNDS)
    base = contenders[label(entries[0])][0]
    found = {
        name: {
            "versions": workers[name].opened["versions"],
            "open_seconds": workers[name].opened["open_seconds"],
            "search_peak_rss": workers[name].peak_rss,
            "searches": [row(case, c, base, position == 0) for position, c in enumerate(several)],
        }
        for name, several in contenders.items()
    }
    print(f"{case.name}: two threads ...", flush=True)
    working = [entry for entry in entries if label(entry) in workers and not contenders[label(entry)][0].failed]
    alone = {label(entry): contenders[label(entry)][0] for entry in working}
    pairs = opened(bench, case, working, 2)
    for name, measured in two_threads(case, alone, pairs, most / 3).items():
        found[name]["searches"][0] |= measured
    for worker in (*workers.values(), *pairs.values()):
        worker.close()
    return found


def two_threads(
    case: Case, alone: dict[str, Contender], workers: dict[str, Worker], most: float
) -> dict[str, dict[str, Any]]:
    """Default settings with two threads, in turn with one thread: a query at a time, and then all in a batch."""
    one = {name: Contender(name, alone[name].worker, alone[name].setting) for name in workers}
    two = {name: Contender(name, worker, alone[name].setting) for name, worker in workers.items()}
    take_turns([*one.values(), *two.values()], len(case.asked), most, ROUNDS)
    together = {name: Contender(name, c.worker, c.setting, c.cost) for name, c in two.items() if not c.failed}
    rates = batches(list(together.values()), len(case.asked), most, BATCHES)
    measured: dict[str, dict[str, Any]] = {}
    for name in workers:
        found = measured[name] = {}
        if one[name].seconds and two[name].seconds:
            found["two_threads"] = {**two[name].latency(), "times_one_thread": two[name].times(one[name], clock=True)}
        if name in rates:
            found |= {**rates[name], "batch_overlap_at_10": case.overlap(together[name].found)}
    return measured


def cpu_model() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git(*words: str) -> str:
    """What git says, or nothing."""
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def machine(cores: list[int]) -> dict[str, Any]:
    """Where and on which code this ran."""
    from lateint_kernels import _cpu

    return {
        "cpu": cpu_model(),
        "isa": _cpu.active_isa(),
        "cores": len(cores),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "load_at_start": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="folders made by benchmarks.embed")
    parser.add_argument("--envs", required=True, type=Path, help="the rivals' environments made by install.sh")
    parser.add_argument("--keep", required=True, type=Path, help="folder of indexes, kept between runs")
    parser.add_argument("--out", required=True, type=Path, help="the JSON to write")
    parser.add_argument("--only", help="engines to measure, such as lateint,TACHIOM; dense for the exact kernels")
    parser.add_argument("--cases", help="cases to ask, such as scifact or 'scifact, 32 tokens', separated by ;")
    parser.add_argument("--queries", type=int, default=100, help="at most so many a case (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="most time a setting and case (default: %(default)s)"
    )
    parser.add_argument("--documents", type=int, help="only so many of each collection, to try everything")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--build-only", action="store_true", help="build what is not in --keep, and ask nothing")
    parser.add_argument("--no-builds", action="store_true", help="leave out rivals whose index is not in --keep")
    parser.add_argument("--rebuild", action="store_true", help="build everything again")
    parser.add_argument("--resume", action="store_true", help="keep what the JSON already has")
    return parser.parse_args()


class Result:
    """The JSON: what earlier runs measured, replaced engine by engine and case by case."""

    def __init__(self, path: Path, about: dict[str, Any], device: str) -> None:
        self.path = path
        old = read_json(path) if path.exists() else {}
        kept = old if "cases" in old else {"cases": [], "builds": [], "dense": None}
        self.value: dict[str, Any] = {**kept, "machine": about, "device": device}
        self.run = {key: about[key] for key in ("commit", "dirty", "date", "load_at_start")}

    def case(self, case: Case) -> dict[str, Any]:
        """The record of a case; a new one where its queries or documents are others."""
        described = case.description()
        record: dict[str, Any] = next((old for old in self.value["cases"] if old["case"] == case.name), {})
        if not record:
            self.value["cases"].append(record)
        if any(record.get(key) != value for key, value in described.items()):
            record.clear()
            record.update(described, systems=[])
        return record

    def put(self, records: list[dict[str, Any]], **new: Any) -> None:
        """Adds a record, in place of one with the same names, and writes the file."""
        names = {key: new[key] for key in ("collection", "system", "variant") if key in new}
        records[:] = [old for old in records if any(old.get(key) != value for key, value in names.items())]
        order = [(s.name, v.name) for s in SYSTEMS for v in s.variants]
        records.append({**new, "run": self.run})
        records.sort(key=lambda r: (r.get("collection", ""), order.index((r["system"], r["variant"]))))
        self.write()

    def write(self) -> None:
        """Replaces the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path.with_suffix(".part"), self.value)
        os.replace(self.path.with_suffix(".part"), self.path)


def collection(bench: Bench, data: Path, args: argparse.Namespace, entries: list[Entry], result: Result) -> None:
    """Builds and asks one collection."""
    ready, tokens = [], len(load(data).tokens)
    for entry in entries:
        system, variant = entry
        if system.most_tokens is not None and tokens > system.most_tokens:
            continue
        made = built(bench, data, entry, args.rebuild or (system.own and not args.resume))
        if made is None and (system.own or not args.no_builds):
            made = build(bench, data, entry)
        if made is None:
            print(f"{data.name}: {label(entry)} is left out, it has no index", file=sys.stderr)
            continue
        ready.append(entry)
        result.put(result.value["builds"], collection=data.name, system=system.name, variant=variant.name, **made)
    if args.build_only:
        return
    wanted = args.cases.split(";") if args.cases else None
    for case in cases(data, bench.keep / data.name, args.queries):
        if wanted and case.name not in wanted:
            continue
        record = result.case(case)
        there = {(s["system"], s["variant"]) for s in record["systems"]}
        missing = [e for e in ready if not args.resume or (e[0].name, e[1].name) not in there]
        if not missing:
            continue
        base = (SYSTEMS[0], SYSTEMS[0].variants[0])
        asked = [base, *(entry for entry in missing if entry != base)]
        start, others = time.perf_counter(), OtherWork()
        measured = ask(bench, case, asked, args.seconds)
        share = others.share()
        print(f"{case.name}: {time.perf_counter() - start:.0f} s, other work {share:.0%}", flush=True)
        for system, variant in missing:
            if (found := measured.get(f"{system.name}, {variant.name}")) is not None:
                result.put(record["systems"], system=system.name, variant=variant.name, other_work=share, **found)


def main() -> None:
    """Measures everything that the command line names."""
    args = arguments()
    start = time.perf_counter()
    cores = sorted(os.sched_getaffinity(0))[:2]
    bench = Bench(args.keep, args.envs, cores, args.device)
    result = Result(args.out, machine(cores), args.device)
    wanted = set(args.only.split(",")) if args.only else {*(system.name for system in SYSTEMS), "dense"}
    entries = [(system, variant) for system in SYSTEMS if system.name in wanted for variant in system.variants]
    for data in args.data:
        if args.documents:
            data = shorten(data, args.keep / "short" / f"{data.name}-{args.documents}", args.documents)
        collection(bench, data, args, entries, result)
    if "dense" in wanted and not args.build_only and not (args.resume and result.value["dense"]):
        result.value["dense"] = {**dense(bench, args.data[0]), "run": result.run}
    result.write()
    print(json.dumps({"out": str(args.out), "seconds": round(time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
