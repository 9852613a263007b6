"""``python -m benchmarks.serving WHAT --out results/serving.json``: figures of docs/serving.md, each under its own key.

WHAT is one of: latency (a search over HTTP and in the process, in turn), throughput (16 clients and the library's
batches, in turn), overload (three times as much as the server can do), queues (different room for what waits, in turn),
kills (10,000 mixed requests with ``kill -9`` among them), openapi (random requests of schemathesis), frameworks
(FastAPI and Litestar, in turn). Everything runs on one thread for searches (``LATEINT_NUM_THREADS=1``), so that clients
and server have the other cores.
"""

import os
import sys
from pathlib import Path

from benchmarks.figures import main

os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported; servers inherit it
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lateint_server"))


def measure(options, folder):
    from benchmarks.serving import figures

    return getattr(figures, options.what)(folder, options.count)


if __name__ == "__main__":
    what = ("latency", "throughput", "overload", "queues", "kills", "openapi", "frameworks")
    main(__doc__, what, "benchmarks/results/serving.json", measure)
