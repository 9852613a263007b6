"""Memory of a process that opens millions of passages: generated ones, in parquet files of large row groups.

    python -m benchmarks.preflmr.passages_memory --passages 2000000 --out benchmarks/results/preflmr-passages.json

Each number of passages is opened twice, by a process of its own: at first the files are unpacked into the cache of
`datasets`, as on the first rank to come; later they are mapped. Of a process's peak, what is its own (anonymous) and
what it maps (pages of files, which processes share) are sampled apart. A hundred passages are read and looked up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROWS = 1_000_000  # of a file, and of its one row group


def generate(folder: Path, count: int, characters: int) -> None:
    """Files of passages, of random words."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"abcdefghijklmnopqrstuvwxyz     ", np.uint8), 1 << 20).tobytes().decode()
    for number, first in enumerate(range(0, count, ROWS)):
        rows = range(first, min(first + ROWS, count))
        starts = rng.integers(0, len(letters) - characters, len(rows)).tolist()
        texts = [f"x{letters[start : start + characters]}" for start in starts]
        table = pyarrow.table({"passage_id": [f"WikiWeb_{row}" for row in rows], "passage_content": texts})
        parquet.write_table(table, folder / f"passages-{number:05d}.parquet", row_group_size=ROWS)


def opened(folder: Path, count: int) -> dict[str, float]:
    """What this process needs to open them, in MB."""
    from preflmr.data.passages import load_passages

    peak = {"own": 0, "mapped": 0}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.02):
            status = Path("/proc/self/status").read_text()
            for name, field in (("own", "RssAnon:"), ("mapped", "RssFile:")):
                peak[name] = max(peak[name], int(status.split(field)[1].split()[0]))

    thread = threading.Thread(target=sample)
    thread.start()
    started = time.perf_counter()
    passages = load_passages(folder)
    for position in np.linspace(0, count - 1, 100).astype(int).tolist():
        assert passages.position(passages.ids[position]) == position and passages.texts[position]
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    assert len(passages) == count
    return {"own_mb": peak["own"] / 1024, "mapped_mb": peak["mapped"] / 1024, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, nargs="+", default=[2_000_000])
    parser.add_argument("--characters", type=int, default=200)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--open", nargs=2, metavar=("FOLDER", "COUNT"), help="in a process of its own")
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opened(Path(options.open[0]), int(options.open[1]))))
        return
    found = []
    for count in options.passages:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            generate(folder, count, options.characters)
            command = [sys.executable, "-m", "benchmarks.preflmr.passages_memory", "--open", place, str(count)]
            environment = {**os.environ, "HF_DATASETS_CACHE": f"{place}/cache"}
            for when in ("first", "later"):
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                row = {"passages": count, "open": when, **json.loads(done.stdout.splitlines()[-1])}
                print(row, flush=True)
                found.append(row)
    if options.out is not None:
        options.out.write_text(json.dumps({"characters": options.characters, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
