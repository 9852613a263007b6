"""The tests of the integrations, each in an environment of its own: ``python -m benchmarks.integrations --room ENVS``.

With the lowest and the newest release of a framework that is supported, as pinned here. Counts go to
benchmarks/results/integrations.json. lateint is taken from this tree, whose extension must have been compiled in place
(``python setup.py build_ext --inplace``) for the Python that runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "integrations.json"
EVERYWHERE = ["numpy", "tqdm", "pytest"]

# Of each framework: its lowest and its newest release, with what goes with them.
RELEASES: dict[str, dict[str, list[str]]] = {
    "langchain": {
        "lowest": ["langchain-core==1.0.0", "langchain-tests==1.0.0"],
        "newest": ["langchain-core==1.8.3", "langchain-tests==1.1.9"],
    },
    "llama_index": {"lowest": ["llama-index-core==0.13.0"], "newest": ["llama-index-core==0.14.25"]},
    "haystack": {"lowest": ["haystack-ai==2.20.0"], "newest": ["haystack-ai==3.4.1"]},
    "dspy": {"lowest": ["dspy==3.0.0"], "newest": ["dspy==3.4.1"]},
    "pylate": {"lowest": ["pylate==1.4.0"], "newest": ["pylate==1.6.0"]},
    "mteb": {"lowest": ["mteb==2.6.0"], "newest": ["mteb==2.26.24"]},
    "ranx": {"newest": ["ranx==0.3.21"]},
    "ir_datasets": {"newest": ["ir-datasets==0.6.3"]},
}
WHICH = ("newest", "lowest")
OUTCOMES = ("passed", "failed", "error", "skipped")


def environment(room: Path, name: str, packages: list[str]) -> Path:
    """The Python of an environment with these packages, made if it is not there."""
    folder = room / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists() or set(packages) - set(ready.read_text().split()):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *EVERYWHERE, *packages], check=True)
        ready.write_text("\n".join(packages))
    return python


def counts(python: Path, framework: str) -> dict[str, int]:
    """How many tests of a framework had which outcome."""
    paths = [ROOT, ROOT / "kernels", ROOT / "tests" / "integrations"]
    switched_off = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    settings = ["-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default", "-o", "asyncio_mode=auto"]
    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *settings,
         ROOT / "tests" / "integrations" / f"test_{framework}.py"],
        env={**os.environ, **switched_off, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in ran.stdout.splitlines() if re.search(r"\d+ (passed|failed|error|skipped)", line)]
    if not lines or ran.returncode:
        print(ran.stdout[-4000:], ran.stderr[-2000:], file=sys.stderr)
    found = re.findall(r"(\d+) (passed|failed|error|skipped)", lines[-1]) if lines else [("1", "error")]
    return {outcome: sum(int(n) for n, one in found if one == outcome) for outcome in OUTCOMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--room", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--only", nargs="*", choices=RELEASES, help="frameworks; the others keep their counts")
    parser.add_argument("--which", nargs="*", choices=WHICH, default=WHICH, help="releases")
    options = parser.parse_args()
    room = options.room.absolute()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for which in options.which:
        for framework in options.only or RELEASES:
            if which not in RELEASES[framework]:
                continue
            packages = RELEASES[framework][which]
            python = environment(room, f"{framework}-{which}", packages)
            entry = {"packages": packages, **counts(python, framework)}
            results.setdefault(framework, {})[which] = entry
            print(framework, which, *packages, {outcome: entry[outcome] for outcome in OUTCOMES}, flush=True)
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any(entry["failed"] + entry["error"] for each in results.values() for entry in each.values()))


if __name__ == "__main__":
    main()
