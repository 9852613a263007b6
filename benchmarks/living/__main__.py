"""``python -m benchmarks.living WHAT --out results/living.json``: figures of docs/living.md, each under its own key.

WHAT is one of: kills (10,000 of them), cuts (20,000 states after a power cut), readers (100,000 searches in 4
processes while another writes), adds (to 10,000, 100,000 and 1,000,000 documents), segments (64 of them), ids
(1,000,000 strings).
"""

import os
import sys
from pathlib import Path

from benchmarks.figures import main

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lateint"))


def measure(options, folder):
    if options.what == "kills":
        os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported: writers are forked
    from benchmarks.living import figures

    return getattr(figures, options.what)(folder, options.count)


if __name__ == "__main__":
    what = ("kills", "cuts", "readers", "adds", "segments", "ids")
    main(__doc__, what, "benchmarks/results/living.json", measure)
