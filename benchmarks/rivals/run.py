"""Measures lateint and its rivals on the same saved embeddings, in one go, and writes one JSON.

    benchmarks/rivals/install.sh ENV
    python -m benchmarks.rivals.run --data EMBEDDINGS --env ENV --subset scifact --out RESULT.json

Run it from the repository's root in an environment with lateint. Each measurement is a process of its own, pinned to
one core or to two, and they run one after the other. Builds come first; then every system's searches, system after
system, ``--rounds`` times over, and a latency is the best of its rounds, so that a busy minute hurts nobody for good.
Results of single processes are kept in ``--work``; ``--reuse`` takes those that are there, and the JSON says so. With
``--device cuda`` all systems build and search there, as far as they can.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import (
    collections_of,
    fixed_queries,
    load,
    qrels_of,
    read_json,
    select,
    write_json,
)
from benchmarks.rivals.measure import watched
from lateint.metrics import ndcg

DEPTH = 10
Setting = dict[str, Any]


@dataclass(frozen=True)
class System:
    """One engine: the module of its adapter, whose interpreter runs it, and what is searched with."""

    name: str
    module: str
    own: bool  # runs in the environment of the driver, not in the rivals'
    nbits: tuple[int, ...]
    default: Setting
    others: tuple[Setting, ...]  # measured with one thread only, for the plot of quality against latency


def plaid(full: int, probe: int) -> Setting:
    """A setting of fast-plaid."""
    return {"n_full_scores": full, "n_ivf_probe": probe}


def pruned(nprobe: int, candidates: int) -> Setting:
    """A setting of lateint."""
    return {"nprobe": nprobe, "candidates": candidates}


SYSTEMS = (
    System(
        "lateint",
        "lateint",
        True,
        (4, 2),
        {},
        tuple(pruned(*pair) for pair in ((4, 64), (8, 64), (8, 128), (16, 128), (32, 256), (32, 512), (64, 1024))),
    ),
    System(
        "fast-plaid",
        "fast_plaid",
        False,
        (4, 2),
        plaid(4096, 8),
        (plaid(256, 4), plaid(512, 4), plaid(1024, 4), plaid(1024, 8)),
    ),
    System(
        "xtr-warp-rs",
        "xtr_warp",
        False,
        (4, 2),
        {},
        (
            {"nprobe": 16},
            {"nprobe": 32},
            {"nprobe": 64},
            {"nprobe": 64, "t_prime": 200_000},
            {"nprobe": 128},
            {"nprobe": 128, "t_prime": 400_000},
        ),
    ),
    System("torch exact", "torch_exact", False, (32,), {}, ()),
)


class Runner:
    """Starts adapters, one at a time, and keeps what they wrote."""

    def __init__(
        self, work: Path, data: Path, env: Path, cores: list[int], seconds: float, reuse: bool, device: str
    ) -> None:
        self.work, self.data, self.env, self.cores = work, data, env, cores
        self.seconds, self.reuse, self.device = seconds, reuse, device
        self.reused: list[str] = []

    def index(self, system: System, nbits: int) -> Path:
        """Where the index of a system lies."""
        return self.work / "indexes" / f"{system.module}-{nbits}"

    def run(self, name: str, module: str, own: bool, threads: int, **job: Any) -> dict[str, Any] | None:
        """One process; None where it failed, which is said and does not stop the others."""
        result, order = self.work / f"{name}.json", self.work / f"{name}.job.json"
        if self.reuse and result.exists():
            self.reused.append(name)
            return dict(read_json(result))
        common = {"data": str(self.data), "threads": threads, "seconds": self.seconds, "device": self.device}
        write_json(order, {**common, **job})
        result.unlink(missing_ok=True)
        python = sys.executable if own else str(self.env / "bin" / "python")
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
        cores = self.cores[-threads:]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}
        start = time.perf_counter()
        print(f"{name} ...", end=" ", flush=True)
        with (self.work / f"{name}.log").open("w") as log:
            status, anonymous = watched(
                [python, "-m", f"benchmarks.rivals.{module}", str(order), str(result)],
                env={**os.environ, **dict.fromkeys(variables, str(threads)), **hidden},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        if status or not result.exists():
            print(f"{name} failed, exit status {status}; its log is {log.name}", file=sys.stderr)
            return None
        measured = {**read_json(result), "peak_anonymous": anonymous}
        write_json(result, measured)
        return measured


def build(runner: Runner, system: System, nbits: int) -> dict[str, Any] | None:
    """Builds one index and measures its folder."""
    folder = runner.index(system, nbits)
    if not (runner.reuse and (runner.work / f"{system.module}-{nbits}-build.json").exists()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
    name = f"{system.module}-{nbits}-build"
    made = runner.run(name, system.module, system.own, 2, phase="build", index=str(folder), nbits=nbits)
    if made is None:
        return None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    tokens = len(load(runner.data).tokens)
    return {**made, "bytes_per_token": size / tokens, "tokens_per_second": tokens / made["seconds"]}


def search(runner: Runner, system: System, nbits: int, threads: int, turn: int) -> dict[str, Any] | None:
    """One process that searches: all settings with one thread, the default one with two and in a batch."""
    settings = [system.default, *(system.others if threads == 1 else ())]
    name = f"{system.module}-{nbits}-search-{threads}-round{turn}"
    index = str(runner.index(system, nbits))
    return runner.run(
        name, system.module, system.own, threads, phase="search", index=index, settings=settings, batch=threads == 2
    )


class Truth:
    """What results are compared with: the exact top, and the judgements."""

    def __init__(self, folder: Path) -> None:
        self.queries = fixed_queries(folder)
        self.ids = load(folder).ids
        self.top = np.load(folder / "exact_docs.npy")[:, :DEPTH].tolist()
        self.qrels = {name: qrels_of(folder, name) for name in collections_of(folder)}
        self.exact_ndcg = self.ndcg(self.top)

    def overlap(self, found: Sequence[Sequence[int]]) -> float:
        """Share of the exact top 10 that was found, mean over the queries."""
        return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, self.top, strict=True)]))

    def ndcg(self, found: Sequence[Sequence[int]]) -> dict[str, float]:
        """nDCG@10 of each collection's queries."""
        result = {}
        for name, qrels in self.qrels.items():
            rows = [row for row, query in enumerate(self.queries) if query.collection == name]
            run = {
                self.queries[row].id: {self.ids[doc]: -float(rank) for rank, doc in enumerate(found[row][:DEPTH])}
                for row in rows
            }
            result[name] = ndcg({query: qrels[query] for query in run}, run, DEPTH)
        return result


def summarise(truth: Truth, system: System, one: list[dict[str, Any]], two: list[dict[str, Any]]) -> list[Any]:
    """A row a setting, from the rounds with one thread and with two."""
    rows = []
    for position, setting in enumerate([system.default, *system.others]):
        rounds = [result["settings"][position] for result in one]
        best = min(rounds, key=lambda measured: float(measured["p50_ms"]))
        row = {
            "setting": setting,
            "default": position == 0,
            "overlap_at_10": truth.overlap(best["ids"]),
            "ndcg_at_10": truth.ndcg(best["ids"]),
            "one_thread": {"p50_ms": best["p50_ms"], "p95_ms": best["p95_ms"], "searches": best["searches"]},
            "p50_ms_of_rounds": [measured["p50_ms"] for measured in rounds],
        }
        if position == 0 and two:
            fastest = min((result["settings"][0] for result in two), key=lambda measured: float(measured["p50_ms"]))
            row["two_threads"] = {"p50_ms": fastest["p50_ms"], "p95_ms": fastest["p95_ms"]}
            row["queries_per_second"] = max(result["settings"][0]["queries_per_second"] for result in two)
            row["batch_overlap_at_10"] = truth.overlap(fastest["batch_ids"])
        rows.append(row)
    return rows


def dense(runner: Runner, rounds: int) -> dict[str, Any]:
    """The exact kernels, ours and theirs by turns; the best of the rounds."""
    versions: dict[str, str] = {}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for turn in range(rounds):
        for kernels in ("own", "rivals"):
            result = runner.run(f"dense-{kernels}-round{turn}", "dense", kernels == "own", 1, kernels=kernels)
            for row in result["rows"] if result else ():
                key = (row["system"], row["dtype"])
                if key not in best or row["ms"] < best[key]["ms"]:
                    best[key] = row
            versions |= result["versions"] if result else {}
    return {"versions": versions, "rows": list(best.values())}


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
    return {
        "cpu": cpu_model(),
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
    parser.add_argument("--data", required=True, type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--env", required=True, type=Path, help="the rivals' environment made by install.sh")
    parser.add_argument("--out", required=True, type=Path, help="the JSON to write")
    parser.add_argument("--subset", help="collections to use, such as scifact or scifact+vaswani (default: all)")
    parser.add_argument(
        "--nbits", default="4,2", help="bits of lateint's and the rivals' indexes (default: %(default)s)"
    )
    parser.add_argument("--rival-nbits", help="bits of the rivals' indexes where they differ, such as 4")
    parser.add_argument("--only", help="systems to measure, such as lateint,xtr-warp-rs; dense for the kernels")
    parser.add_argument("--rounds", type=int, default=2, help="times each search is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time a setting (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for indexes and single results (default: a temporary one)")
    parser.add_argument("--reuse", action="store_true", help="take the single results that --work already holds")
    return parser.parse_args()


def main() -> None:
    """Measures everything that the command line names."""
    args = arguments()
    begun = time.perf_counter()
    scratch = None if args.work else tempfile.TemporaryDirectory()
    work = args.work or Path(scratch.name if scratch else "")
    work.mkdir(parents=True, exist_ok=True)
    data = args.data
    if args.subset:
        print(f"subset {args.subset} ...", flush=True)
        data = select(args.data, work / f"data-{args.subset}", args.subset.split("+"))
    cores = sorted(os.sched_getaffinity(0))[:2]
    about = machine(cores)
    runner = Runner(work, data.resolve(), args.env, cores, args.seconds, args.reuse, args.device)
    wanted = set(args.only.split(",")) if args.only else {*(system.name for system in SYSTEMS), "dense"}
    own_bits = [int(bits) for bits in args.nbits.split(",")]
    rival_bits = [int(bits) for bits in (args.rival_nbits or args.nbits).split(",")]

    planned = [
        (system, nbits)
        for system in SYSTEMS
        if system.name in wanted
        for nbits in system.nbits
        if nbits in (own_bits if system.own else rival_bits) or nbits == 32
    ]
    kernels = dense(runner, args.rounds) if "dense" in wanted else None
    built = {(system.name, nbits): build(runner, system, nbits) for system, nbits in planned}
    searches: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for turn in range(args.rounds):
        for threads in (1, 2):
            for system, nbits in planned:
                if built[system.name, nbits] is None:
                    continue
                result = search(runner, system, nbits, threads, turn)
                if result is not None:
                    searches.setdefault((system.name, nbits, threads), []).append(result)

    truth = Truth(data)
    documents = load(data)
    systems = []
    for system, nbits in planned:
        made, one = built[system.name, nbits], searches.get((system.name, nbits, 1))
        if made is None or one is None:
            continue
        two = searches.get((system.name, nbits, 2), [])
        kept = (
            "seconds",
            "cpu_seconds",
            "parts",
            "tokens_per_second",
            "peak_rss",
            "peak_anonymous",
            "rss_after_import",
        )
        systems.append(
            {
                "system": system.name,
                "nbits": nbits,
                "versions": made["versions"],
                "build": {key: made[key] for key in kept if key in made},
                "bytes_per_token": made["bytes_per_token"],
                "open_seconds": min(result["open_seconds"] for result in one),
                "search_peak_rss": max(result["peak_rss"] for result in [*one, *two]),
                "searches": summarise(truth, system, one, two),
            }
        )
    result = {
        "machine": about,
        "device": args.device,
        "data": {
            "collections": read_json(data / "manifest.json")["collections"],
            "tokens": len(documents.tokens),
            "documents": len(documents.lengths),
            "dim": int(documents.tokens.shape[1]),
            "queries": len(truth.queries),
            "query_tokens_mean": float(np.mean([len(query.tokens) for query in truth.queries])),
            "exact_ndcg_at_10": truth.exact_ndcg,
        },
        "rounds": args.rounds,
        "seconds": time.perf_counter() - begun,
        "reused": runner.reused,
        "systems": systems,
        "dense": kernels,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(json.dumps({"out": str(args.out), "seconds": round(result["seconds"])}))
    if scratch:
        scratch.cleanup()


if __name__ == "__main__":
    main()
