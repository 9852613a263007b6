"""What token pooling costs in quality: nDCG@10 and Recall@100 by the share of tokens that is left.

    python -m benchmarks.pooling --data EMBEDDINGS --collection scifact --out benchmarks/results/pooling.json

EMBEDDINGS is a folder that ``benchmarks.embed`` made. For each factor documents are pooled (Ward's method, means as
they are, and means brought back to norm 1), scored exactly in float32, and searched in an index of 4 bits.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import load, qrels_of, queries_of, write_json
from benchmarks.rivals.run import machine
from lateint import Index, Ragged, metrics
from lateint.quality.evaluation import exact_run, index_run
from lateint_kernels import pool


def quality(qrels: dict[str, dict[str, int]], run: dict[str, Any]) -> dict[str, float]:
    """Two measures."""
    return {"ndcg_at_10": metrics.ndcg(qrels, run, 10), "recall_at_100": metrics.recall(qrels, run, 100)}


def normalised(documents: Ragged) -> Ragged:
    """Tokens of norm 1."""
    norms = np.linalg.norm(documents.tokens, axis=1, keepdims=True)
    return Ragged(documents.tokens / np.maximum(norms, 1e-12), documents.offsets)


def main() -> None:
    """Measures every factor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--collection", default="scifact")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = load(options.data)
    qrels, found = qrels_of(options.data, options.collection), queries_of(options.data, options.collection)
    query_ids = [name for name in found if name in qrels]
    queries = [np.ascontiguousarray(found[name], np.float32) for name in query_ids]
    documents = Ragged(np.asarray(data.tokens, np.float32), data.offsets)
    rows = []
    for factor in options.factors:
        started = time.process_time()
        pooled = pool(documents, factor, threads=options.threads or 0)
        seconds = time.process_time() - started
        for means in ("as they are", "of norm 1")[: 1 if factor == 1 else 2]:
            used = pooled if means == "as they are" else normalised(pooled)
            index = Index.build(used, ids=data.ids, threads=options.threads, progress=False)
            row = {
                "factor": factor,
                "means": means,
                "tokens": len(used.tokens),
                "index_bytes": index.stats()["bytes"],
                "pooling_cpu_seconds": seconds,
                "exact": quality(qrels, exact_run(used, data.ids, queries, query_ids, threads=options.threads)),
                "index": quality(qrels, index_run(index, queries, query_ids)[0]),
            }
            print(row)
            rows.append(row)
    report = {
        "collection": options.collection,
        "documents": len(data.ids),
        "queries": len(queries),
        "rows": rows,
        "machine": machine(sorted(os.sched_getaffinity(0))),
    }
    write_json(options.out, report)


if __name__ == "__main__":
    main()
