"""``python -m benchmarks.scaleout WHAT --out results/scaleout.json``: figures of docs/scale-out.md, each under its key.

WHAT is one of: shards (ten of them and one index, searched exhaustively and pruned), hedging (a replica that is 200 ms
slow, and one that is not, in turn), merge (100 parts), kills (an actor is killed with ``kill -9`` again and again while
it is searched; needs Ray), build (a distributed build whose workers are killed, and one whose are not; needs Ray).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported; workers inherit it
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray's default is 15: whatever else runs goes first
TESTS = str(Path(__file__).parents[2] / "tests" / "lateint_ray")
sys.path.insert(0, TESTS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))  # of workers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shards", "hedging", "merge", "kills", "build"])
    parser.add_argument("--count", type=int, help="how many queries, parts or kills")
    parser.add_argument("--folder", help="where to work; a temporary folder if left out")
    parser.add_argument("--out", default="benchmarks/results/scaleout.json")
    options = parser.parse_args()
    from benchmarks.scaleout import figures

    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        found = getattr(figures, options.what)(folder, options.count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out = Path(options.out)
    report = json.loads(out.read_text()) if out.exists() else {}
    report[options.what] = {**found, "load average": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report[options.what], indent=1))


if __name__ == "__main__":
    main()
