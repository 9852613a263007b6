"""Qdrant's local mode: the client's own engine in Python, which scores every document exactly."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from benchmarks.embeddings import Embeddings
from benchmarks.rivals.measure import DEPTH, Job, Searcher, main

NAME, POINTS = "documents", 64  # points a call


def build(job: Job, data: Embeddings) -> tuple[float, dict[str, float]]:
    """Stores the documents as points of many vectors each."""
    start, offsets = time.perf_counter(), data.offsets
    client = QdrantClient(path=job["index"])
    vectors = models.VectorParams(
        size=data.tokens.shape[1],
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(NAME, vectors_config=vectors)
    for first in range(0, len(data.lengths), POINTS):
        numbers = range(first, min(first + POINTS, len(data.lengths)))
        tokens = [data.tokens[offsets[number] : offsets[number + 1]].astype(np.float32).tolist() for number in numbers]
        points = [models.PointStruct(id=number, vector=rows) for number, rows in zip(numbers, tokens, strict=True)]
        client.upsert(NAME, points)
    client.close()
    return time.perf_counter() - start, {}


class QdrantSearcher:
    """An open collection; there is nothing to set."""

    def __init__(self, job: Job) -> None:
        warnings.simplefilter("ignore")  # it says that local mode is for small collections
        self.client = QdrantClient(path=job["index"])

    def single(self, query: np.ndarray, setting: Mapping[str, Any]) -> list[int]:
        """One query ``[Lq, dim]``."""
        found = self.client.query_points(NAME, query=query.tolist(), limit=DEPTH, with_payload=False, **setting)
        return [int(point.id) for point in found.points]

    def batch(self, queries: list[np.ndarray], setting: Mapping[str, Any]) -> list[list[int]]:
        """Queries one after the other, as its own batch does."""
        return [self.single(query, setting) for query in queries]


def opener(job: Job) -> Searcher:
    """Opens the collection of the job."""
    return QdrantSearcher(job)


if __name__ == "__main__":
    main(("qdrant-client", "numpy"), build, opener)
