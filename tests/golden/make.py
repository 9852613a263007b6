"""``python tests/golden/make.py FOLDER`` writes the golden index of format 2, and what searches of it must find."""

import json
import sys
from pathlib import Path

import numpy as np

from lateint import Index

DIM, QUERY = 16, [1, 5, 16]


def documents(rng, count):
    """Tokens of ``count`` documents."""
    lengths = rng.integers(1, 12, count).tolist()
    return [rng.standard_normal((length, DIM)).astype(np.float32) for length in lengths]


def queries():
    """Some queries."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal((length, DIM)).astype(np.float32) for length in QUERY]


def main(folder):
    """A built segment, two that were added, one of them with sparse lists, and deletions of both kinds."""
    rng = np.random.default_rng(0)
    names = [f"document {i}" for i in range(100)]
    index = Index.build(documents(rng, 80), folder, ids=names[:80], ncentroids=40, progress=False)
    index.add(documents(rng, 10), ids=names[80:90])
    index.add(documents(rng, 1), ids=["é"])
    index.delete([names[7], names[9]])
    index.delete([names[i] for i in (80, 82, 84)])
    report = {"ids": index.ids.tolist(), "hits": [list(index.search(query, 5)) for query in queries()]}
    Path(f"{folder}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
