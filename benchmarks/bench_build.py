"""Building an index of the collections of bench_search.py, in memory and on disk.

pytest benchmarks/bench_build.py --benchmark-group-by=group
"""

import platform
import subprocess
from functools import lru_cache

import numpy as np
import pytest

from benchmarks.bench_search import synthetic
from benchmarks.shapes import COLLECTION_SHAPES
from lateint import Index
from lateint_kernels import _cpu, explain, to_bfloat16


@lru_cache(maxsize=1)
def workload(name):
    return synthetic(name)


def check(index, documents, nbits):
    """Documents are remembered, and found by their own tokens."""
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(documents), 5):
        tokens = documents[int(position)]
        error = np.linalg.norm(index.reconstruct(int(position)) - tokens, axis=1).mean()
        assert error < {2: 0.4, 4: 0.2}[nbits]
        assert index.search(tokens[:32], 1).ids[0] == position


def describe(benchmark, name, threads, index):
    git = ["git", "describe", "--always", "--dirty"]
    benchmark.group = name
    benchmark.extra_info.update(
        workload=name,
        threads=threads,
        seconds_by_part=index.stats()["build_seconds"],
        bytes_per_token=index.stats()["bytes_per_token"],
        isa=_cpu.active_isa(),
        backends=explain(),
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
        commit=subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    )
    benchmark.extra_info["ns_per_token"] = benchmark.stats.stats.min / index.tokens * 1e9 if benchmark.stats else None


@pytest.mark.parametrize("threads", sorted({1, _cpu.default_threads()}))
@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_in_memory(benchmark, name, threads):
    documents, _ = workload(name)
    nbits = COLLECTION_SHAPES[name].nbits
    index = benchmark.pedantic(
        Index.build, (documents,), {"nbits": nbits, "threads": threads, "progress": False}, rounds=3
    )
    check(index, documents, nbits)
    describe(benchmark, name, threads, index)


@pytest.mark.parametrize("name", COLLECTION_SHAPES)
def bench_on_disk(benchmark, name, tmp_path):
    """Everything flushed; from bfloat16."""
    documents, _ = workload(name)
    nbits = COLLECTION_SHAPES[name].nbits
    halves = to_bfloat16(documents.tokens)
    settings = {"lengths": documents.lengths, "nbits": nbits, "overwrite": True, "progress": False}
    index = benchmark.pedantic(Index.build, (halves, tmp_path / "index"), settings, rounds=3)
    check(index, documents, nbits)
    describe(benchmark, f"{name} on disk", _cpu.default_threads(), index)
