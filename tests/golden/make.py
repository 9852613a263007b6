"""``python tests/golden/make.py FOLDER [fields | terms]`` writes a golden index, and what searches of it must find.

Of format 2; or of format 3, with texts and metadata (``fields``), or with words and sparse vectors (``terms``).
"""

import json
import sys
from pathlib import Path

import numpy as np

from lateint import Analyzer, Index

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


CONDITIONS = [
    {"lang": "en"},
    {"year": {"$gte": 2005.5}},
    {"tags": {"$contains": "é"}},
    {"author.name": {"$like": "a%"}},
    {"when": {"$lt": {"$date": "2001-01-01"}}},
    {"rare": True},
    {"year": {"$exists": False}},
]


def metadata(i):
    """Of document i: fields of every kind, dense and sparse, or nothing."""
    if i % 7 == 3:
        return {}
    found = {"lang": ["en", "de", None][i % 3], "year": [2000 + i, i / 2, "n.d.", 10**12][i % 4]}
    found |= {"tags": [i, "é", 0.5, True, {"$date": "1999-12-31"}][: i % 6], "author": {"name": f"a{i % 4}"}}
    found["when"] = {"$date": f"{1990 + i % 30}-05-17T09:30:00+02:00"}
    return found | ({"rare": True, "parts": [{"x": i}]} if i % 17 == 0 else {})


def fields(folder):
    """A built segment, one that was added, an update of metadata alone, and a deletion."""
    rng = np.random.default_rng(0)
    texts = [None if i % 5 == 0 else f"Text {i}, é" for i in range(50)]
    given = {"texts": texts[:40], "metadata": [metadata(i) for i in range(40)]}
    index = Index.build(documents(rng, 40), folder, ncentroids=20, progress=False, **given)
    index.add(documents(rng, 10), texts=texts[40:], metadata=[metadata(i) for i in range(40, 50)])
    index.update([1, 41], metadata=[{"lang": "fr"}, None])
    index.delete([2])
    report = {
        "ids": index.ids.tolist(),
        "hits": [list(index.search(query, 5, exhaustive=True)) for query in queries()],
        "texts": [one.text for one in index.documents],
        "metadata": [repr(one.metadata) for one in index.documents],
        "found": [index.select(condition).tolist() for condition in CONDITIONS],
    }
    Path(f"{folder}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


WORDS = ["fox é", "number 7", "Text", "often"]
VECTORS = [{"é": 1.0, "7": 0.5}, {"small": 1.0}, {"large": 1.0, "10": 0.001}]


def vector(i):
    """Of document i, or None."""
    if i % 4 == 3:
        return None
    return {"é": i / 8, "7": 1.5, str(i % 9 + 10): 0.1 * i, "small": 1e-7 * (i % 3), "large": 60_000 / (i + 1)}


def terms(folder):
    """A built segment, one that was added, an update of a vector alone, and a deletion."""
    rng = np.random.default_rng(0)
    texts = [None if i % 5 == 0 else f"Text {i % 9}, é" + " often" * (300 if i == 6 else i % 3) for i in range(50)]
    settings = {"ncentroids": 20, "text_search": Analyzer(stopwords=("a",)), "progress": False}
    sparse = [vector(i) for i in range(50)]
    index = Index.build(documents(rng, 40), folder, texts=texts[:40], sparse=sparse[:40], **settings)
    index.add(documents(rng, 10), texts=texts[40:], sparse=sparse[40:])
    index.update([1, 41], sparse=[{"é": 9}, None])
    index.delete([2])
    report = {
        "words": [list(hits) for hits in index.search(None, 50, text=WORDS)],
        "vectors": [list(hits) for hits in index.search(None, 50, sparse=VECTORS)],
    }
    Path(f"{folder}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    {"fields": fields, "terms": terms}.get("".join(sys.argv[2:]), main)(sys.argv[1])
