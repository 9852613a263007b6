"""The demo of PreFLMR and its ablations, one after the other: what each part of the recipe is worth.

python -m benchmarks.preflmr.demo --out benchmarks/results/preflmr-demo.json [--only all,without-stage-1]

Stages that an ablation shares with the run before it are trained once: they lie in the working folder. Runs that are in
the JSON already stay there, unless they are run again; each has its own date and commit. Where a recipe has changed
since its ablations were measured, ``before`` keeps a whole run of their recipe, though not of their commit.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.embeddings import read_json
from benchmarks.rivals.run import machine
from preflmr.evaluation.results import versions

DEMO = Path(__file__).resolve().parent.parent.parent / "examples" / "preflmr_demo.py"
RUNS = {
    "all": [],
    "seed 1": ["--seed", "1"],  # seeds start from nothing, too, in folders of their own
    "seed 2": ["--seed", "2"],
    "text": ["--text"],  # stage 0 on its own
    "without-stage-0": ["--without-stage", "0"],
    "without-stage-1": ["--without-stage", "1"],
    "without-stage-2": ["--without-stage", "2"],
    "without-instructions": ["--without-instructions"],
    "without-patch-rows": ["--without-patch-rows"],
    "trainable-vit": ["--trainable-vit"],
}


def measure(name: str, work: Path) -> dict[str, Any]:
    """Runs the demo once; the first run starts from nothing."""
    results = work / f"{name}.json"
    if name.startswith("seed"):
        work = work / name.replace(" ", "-")
    began = time.perf_counter()
    command = [sys.executable, str(DEMO), "--folder", str(work), "--results", str(results), *RUNS[name]]
    subprocess.run(command, check=True)
    found = json.loads(results.read_text(encoding="utf-8"))
    here = machine(sorted(os.sched_getaffinity(0)))
    return {**found, "wall_seconds": time.perf_counter() - began, "machine": here, "versions": versions()}


def main() -> None:
    """Measures what is asked for, and writes after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(".demo-preflmr"), help="where models and indexes go")
    parser.add_argument("--only", default=",".join(RUNS), help="names of runs, separated by commas")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - set(RUNS):
        parser.error(f"--only must name some of {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
    result = read_json(args.out) if args.out.is_file() else {"runs": {}}
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        result["runs"][name] = measure(name, args.folder.resolve())
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
