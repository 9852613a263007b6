"""Whole searches of synthetic collections: tokens around topics, queries near the tokens of a document.

pytest benchmarks/bench_search.py --benchmark-group-by=group
"""

import platform
import subprocess
from functools import lru_cache

import numpy as np
import pytest

from benchmarks.shapes import COLLECTION_SHAPES
from lateint import Index, Ragged
from lateint_kernels import _cpu, explain

K = 10


def synthetic(name):
    """Documents and 64 queries; a query is tokens of one document, each turned a little."""
    shape, rng = COLLECTION_SHAPES[name], np.random.default_rng(0)

    def unit(numbers):
        return numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)

    topics = unit(rng.standard_normal((shape.topics, shape.dim), dtype=np.float32))
    lengths = rng.integers(shape.Ld // 2, shape.Ld * 3 // 2, shape.n)
    # Documents come in groups of twenty about the same dozen topics, as texts on one subject do.
    about = rng.integers(0, shape.topics, (-(-shape.n // 20), 12)).repeat(20, axis=0)[: shape.n]
    document = np.repeat(np.arange(shape.n), lengths)
    chosen = about[document, rng.integers(0, 12, len(document))]
    noise = rng.standard_normal((len(document), shape.dim), dtype=np.float32) / shape.dim**0.5
    documents = Ragged.from_lengths(unit(topics[chosen] + 0.8 * noise), lengths)
    queries = np.empty((64, shape.Lq, shape.dim), np.float32)
    for i, position in enumerate(rng.integers(0, shape.n, 64)):
        tokens = documents[int(position)]
        picked = tokens[rng.integers(0, len(tokens), shape.Lq)]
        queries[i] = unit(picked + 0.5 * rng.standard_normal(picked.shape, dtype=np.float32) / shape.dim**0.5)
    return documents, queries


@lru_cache(maxsize=1)
def workload(name):
    """The index of a collection, queries, and the documents that a scan of all codes finds."""
    documents, queries = synthetic(name)
    index = Index.build(documents, nbits=COLLECTION_SHAPES[name].nbits, progress=False)
    best = index.search(queries, K, exhaustive=True)
    return index, queries, [set(hits.ids.tolist()) for hits in best]


def describe(benchmark, name, threads, recall):
    git = ["git", "describe", "--always", "--dirty"]
    benchmark.group = name
    benchmark.extra_info.update(
        workload=name,
        threads=threads,
        recall_of_the_scan=recall,
        isa=_cpu.active_isa(),
        backends=explain(),
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
        commit=subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    )


def recall_of(results, best):
    return float(
        np.mean([len(set(hits.ids.tolist()) & truth) / len(truth) for hits, truth in zip(results, best, strict=True)])
    )


@pytest.mark.parametrize("threads", sorted({1, _cpu.default_threads()}))
@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_single(benchmark, name, threads):
    """One query after the other: the time is that of all 64."""
    index, queries, best = workload(name)
    results = benchmark(lambda: [index.search(query, K, threads=threads) for query in queries])
    recall = recall_of(results, best)
    assert recall > 0.9
    describe(benchmark, name, threads, recall)
    benchmark.extra_info["ms_per_query"] = benchmark.stats.stats.min / 64 * 1e3 if benchmark.stats else None


@pytest.mark.parametrize("threads", sorted({1, _cpu.default_threads()}))
@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_batch(benchmark, name, threads):
    index, queries, best = workload(name)
    results = benchmark(index.search, queries, K, threads=threads)
    recall = recall_of(results, best)
    assert recall > 0.9
    describe(benchmark, f"{name} batch", threads, recall)
    benchmark.extra_info["ms_per_query"] = benchmark.stats.stats.min / 64 * 1e3 if benchmark.stats else None


@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_exhaustive(benchmark, name):
    """The scan of all codes, all threads, of 8 queries."""
    index, queries, best = workload(name)
    results = benchmark(index.search, queries[:8], K, exhaustive=True)
    recall = recall_of(results, best[:8])
    assert recall == 1
    describe(benchmark, f"{name} scan", _cpu.default_threads(), recall)
    benchmark.extra_info["ms_per_query"] = benchmark.stats.stats.min / 8 * 1e3 if benchmark.stats else None


@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_rerank(benchmark, name):
    """100 given documents, one query, one thread."""
    index, queries, _ = workload(name)
    some = np.random.default_rng(0).permutation(len(index))[:100]
    hits = benchmark(index.rerank, queries[0], some, K, threads=1)
    assert list(hits) == list(index.search(queries[0], K, subset=some, exhaustive=True))
    describe(benchmark, f"{name} rerank 100", 1, 1.0)


@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_open(benchmark, name, tmp_path):
    index, queries, _ = workload(name)
    index.save(tmp_path / "index")
    opened = benchmark(Index.open, tmp_path / "index")
    assert list(opened.search(queries[0], K)) == list(index.search(queries[0], K))
    describe(benchmark, f"{name} open", 1, 1.0)
