"""``python -m benchmarks.living WHAT --out results/living.json``: figures of docs/living.md, each under its own key.

WHAT is one of: kills (10,000 of them), cuts (20,000 states after a power cut), readers (100,000 searches in 4
processes while another writes), adds (to 10,000, 100,000 and 1,000,000 documents), segments (64 of them), ids
(1,000,000 strings).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lateint"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "cuts", "readers", "adds", "segments", "ids"])
    parser.add_argument("--count", type=int, help="how many, where that can be chosen")
    parser.add_argument("--folder", help="where to work; a temporary folder if left out")
    parser.add_argument("--out", default="benchmarks/results/living.json")
    options = parser.parse_args()
    if options.what == "kills":
        os.environ["LATEINT_NUM_THREADS"] = "1"  # before anything is imported: writers are forked
    from benchmarks.living import figures

    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        found = getattr(figures, options.what)(folder, options.count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out = Path(options.out)
    report = json.loads(out.read_text()) if out.exists() else {}
    report[options.what] = found
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
