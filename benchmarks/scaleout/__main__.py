"""``python -m benchmarks.scaleout WHAT --out results/scaleout.json``: figures of docs/scale-out.md, each under its key.

WHAT is one of: shards (ten of them and one index, searched exhaustively and pruned), hedging (a replica that is 200 ms
slow, beside replicas that are not), merge (100 parts), kills (an actor is killed with ``kill -9`` again and again while
it is searched; needs Ray), build (a distributed build whose workers are killed, and one whose are not; needs Ray).
"""

import os
import sys
from pathlib import Path

from benchmarks.figures import main

os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported; workers inherit it
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray's default is 15: whatever else runs goes first
TESTS = str(Path(__file__).parents[2] / "tests" / "lateint_ray")
sys.path.insert(0, TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))  # of workers


def measure(options, folder):
    from benchmarks.scaleout import figures

    return getattr(figures, options.what)(folder, options.count)


if __name__ == "__main__":
    what = ("shards", "hedging", "merge", "kills", "build")
    main(__doc__, what, "benchmarks/results/scaleout.json", measure)
