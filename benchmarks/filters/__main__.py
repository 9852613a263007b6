"""``python -m benchmarks.filters WHAT --out results/filters.json``: figures of docs/filters.md, each under its own key.

WHAT is one of: masks (filters on 1,000,000 documents to masks, beside DuckDB, SQLite and pyarrow, where they are
installed), searches (recall and time of searches under filters, and of subsets, on 20,000 documents made of the
embeddings of ``--data``, a folder of ``benchmarks.embed``), outside (1,000,000 searches of small random indexes under
random filters: how many hits are outside of them, as SQLite has it).
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["masks", "searches", "outside"])
    parser.add_argument("--data", default="embeddings", help="a folder of benchmarks.embed, for searches")
    parser.add_argument("--count", type=int, help="how many documents, or searches, if not 1,000,000 and 20,000")
    parser.add_argument("--out", default="benchmarks/results/filters.json")
    options = parser.parse_args()
    os.environ.setdefault("LATEINT_NUM_THREADS", "1")
    from benchmarks.filters import masks, outside, searches

    folder = Path(tempfile.mkdtemp())
    try:
        if options.what == "masks":
            found = masks.measure(folder, options.count or 1_000_000)
        elif options.what == "outside":
            found = outside.measure(options.count or 1_000_000)
        else:
            found = searches.measure(Path(options.data), options.count or 20_000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out = Path(options.out)
    report = json.loads(out.read_text()) if out.exists() else {}
    report[options.what] = found
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
