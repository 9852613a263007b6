"""``python -m benchmarks.serving WHAT --out results/serving.json``: figures of docs/serving.md, each under its own key.

WHAT is one of: latency (a search over HTTP and in the process, in turn), throughput (16 clients and the library's
batches, in turn), overload (three times as much as the server can do), queues (different room for what waits, in turn),
kills (10,000 mixed requests with ``kill -9`` among them), openapi (random requests of schemathesis), frameworks
(FastAPI and Litestar, in turn). Everything runs on one thread for searches (``LATEINT_NUM_THREADS=1``), so that clients
and server have the other cores.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported; servers inherit it
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lateint_server"))

WHAT = ("latency", "throughput", "overload", "queues", "kills", "openapi", "frameworks")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=["latency", "throughput", "overload", "queues", "kills", "openapi", "frameworks"]
    )
    parser.add_argument("--count", type=int, help="how many, where that can be chosen")
    parser.add_argument("--folder", help="where to work; a temporary folder if left out")
    parser.add_argument("--out", default="benchmarks/results/serving.json")
    options = parser.parse_args()
    from benchmarks.serving import figures

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
