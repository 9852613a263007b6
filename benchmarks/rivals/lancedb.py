"""LanceDB: a table with a column of lists of vectors, and an IVF_PQ index of the tokens, as its documentation does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main

ROWS = 512  # documents a batch of the table


def batches(data: Embeddings, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The documents as Arrow, without a copy into Python objects."""
    offsets = data.offsets
    for first in range(0, len(data.lengths), ROWS):
        part = offsets[first : first + ROWS + 1]
        values = pa.array(np.ascontiguousarray(data.tokens[part[0] : part[-1]]).ravel())
        tokens = pa.FixedSizeListArray.from_arrays(values, data.tokens.shape[1])
        documents = pa.ListArray.from_arrays(pa.array((part - part[0]).astype(np.int32)), tokens)
        numbers = pa.array(np.arange(first, first + len(part) - 1))
        yield pa.RecordBatch.from_arrays([numbers, documents], schema=schema)


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Fills a table and indexes it with the defaults of ``create_index``."""
    vectors = pa.list_(pa.list_(pa.float16(), data.tokens.shape[1]))
    schema = pa.schema([pa.field("number", pa.int64()), pa.field("tokens", vectors)])
    start = time.perf_counter()
    reader = pa.RecordBatchReader.from_batches(schema, batches(data, schema))
    table = lancedb.connect(job["index"]).create_table("documents", reader)
    table.create_index(metric="cosine", vector_column_name="tokens", **job["options"])
    return time.perf_counter() - start, {}


class LanceSearcher:
    """An open table; settings are methods of its query: ``nprobes``, ``refine_factor``, ``bypass_vector_index``."""

    def __init__(self, job: Job) -> None:
        self.table = lancedb.connect(job["index"]).open_table("documents")

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        search = self.table.search(query, vector_column_name="tokens").distance_type("cosine")
        for name, value in setting.items():
            search = getattr(search, name)(*([] if value is True else [value]))
        found: list[int] = search.select(["number"]).limit(DEPTH).to_arrow()["number"].to_pylist()
        return found

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Queries one after the other: a list of matrices is one query to it."""
        return [self.single(query, setting) for query in queries]


def opener(job: Job) -> Searcher:
    """Opens the table of the job."""
    return LanceSearcher(job)


if __name__ == "__main__":
    main(("lancedb", "pyarrow", "numpy"), build, opener)
