"""``python -m benchmarks.filters WHAT --out results/filters.json``: figures of docs/filters.md, each under its own key.

WHAT is one of: masks (filters on 1,000,000 documents to masks, beside DuckDB, SQLite and pyarrow, where they are
installed), searches (recall and time of searches under filters, and of subsets, on 20,000 documents made of the
embeddings of ``--data``, a folder of ``benchmarks.embed``), outside (1,000,000 searches of small random indexes under
random filters: how many hits are outside of them, as SQLite has it).
"""

import os
from pathlib import Path

from benchmarks.figures import main

os.environ.setdefault("LATEINT_NUM_THREADS", "1")


def add(parser):
    parser.add_argument("--processes", type=int, default=2, help="for outside")
    parser.add_argument("--data", default="embeddings", help="a folder of benchmarks.embed, for searches")


def measure(options, folder):
    from benchmarks.filters import masks, outside, searches

    if options.what == "masks":
        return masks.measure(folder, options.count or 1_000_000)
    if options.what == "outside":
        return outside.measure(options.count or 1_000_000, options.processes)
    return searches.measure(Path(options.data), options.count or 20_000)


if __name__ == "__main__":
    main(__doc__, ("masks", "searches", "outside"), "benchmarks/results/filters.json", measure, add)
