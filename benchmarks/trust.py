"""``python -m benchmarks.trust WHAT --count N --out results/trust.json``: long forms of tests of the suite.

WHAT is ``hostile`` (indexes of strangers: 1,000,000 variants) or ``model`` (random collections against brute force:
10,000 of them). The work is done in processes of 10,000 variants or 100 collections each, one a CPU at a time, so that
a crash, or a process that hangs, is counted and named by its seed, and ends nothing else.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "lateint"
BATCHES = {"hostile": 10_000, "model": 100}
PROGRAMS = {
    "hostile": "import hostile; print(json.dumps(hostile.run(folder, seed, count)))",
    "model": "import model; [model.check(seed * count + i, folder / 'index') for i in range(count)]; "
    "print(json.dumps({'equal to brute force': count}))",
}
PREAMBLE = (
    "import json, sys; from pathlib import Path; folder, seed, count = Path(sys.argv[1]), *map(int, sys.argv[2:]);"
)
PATIENCE = 3600  # seconds that a batch may take


def batch(what, seed, count):
    """Runs one batch in a process; returns what came of it, or the signal or error that ended it."""
    import lateint_kernels

    roots = [ROOT, Path(lateint_kernels.__file__).parents[1], TESTS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "LATEINT_NUM_THREADS": "2"}
    environment["MALLOC_ARENA_MAX"] = "1"  # each heap of glibc's takes 64 MB of addresses, which `hostile` bounds
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        command = [sys.executable, "-c", PREAMBLE + PROGRAMS[what], folder, str(seed), str(count)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {f"hung, seed {seed}": 1}
    if done.returncode < 0:
        return {f"{signal.Signals(-done.returncode).name}, seed {seed}": 1}
    if done.returncode:
        return {f"{done.stderr.strip().splitlines()[-1]}, seed {seed}": 1}
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(BATCHES))
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1000, help="of the first batch")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", default="benchmarks/results/trust.json")
    options = parser.parse_args()
    size = min(BATCHES[options.what], options.count)
    seeds = range(options.seed, options.seed + -(-options.count // size))
    outcomes, began = {}, time.monotonic()
    with ThreadPoolExecutor(options.processes) as pool:
        for number, found in enumerate(pool.map(lambda seed: batch(options.what, seed, size), seeds), 1):
            for outcome, count in found.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
            print(f"{number} of {len(seeds)} batches, {time.monotonic() - began:.0f} s: {outcomes}", flush=True)
    out = Path(options.out)
    report = json.loads(out.read_text()) if out.exists() else {}
    report[options.what] = {"count": sum(outcomes.values()), "first_seed": options.seed, "outcomes": outcomes}
    out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
