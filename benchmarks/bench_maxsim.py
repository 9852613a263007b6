"""Exact MaxSim: element types and instruction sets on one thread, then all threads. Tokens are random unit vectors.

pytest benchmarks/bench_maxsim.py --benchmark-group-by=group
"""

import platform
import subprocess
from functools import lru_cache

import numpy as np
import pytest

from benchmarks.shapes import MAXSIM_SHAPES
from lateint_kernels import Ragged, Sketched, _cpu, explain, maxsim, to_bfloat16, to_float32
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not

CASTS = {
    "float32": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": to_bfloat16,
    "int8": lambda x: np.clip(np.round(x * 400), -127, 127).astype(np.int8),
}
LEVELS = [isa for isa in INSTRUCTION_SETS if isa != "scalar" and why_not(isa) is None] or ["scalar"]


@lru_cache(maxsize=1)
def workload(name, dtype):
    """Queries [Nq, Lq, dim] and n documents."""
    shape, rng = MAXSIM_SHAPES[name], np.random.default_rng(0)

    def unit(*size):
        numbers = rng.standard_normal((*size, shape.dim), dtype=np.float32)
        return numbers / np.linalg.norm(numbers, axis=-1, keepdims=True)

    queries, documents = unit(shape.Nq, shape.Lq), unit(shape.n * shape.Ld)
    return CASTS[dtype](queries), Ragged.from_lengths(CASTS[dtype](documents), [shape.Ld] * shape.n)


def check(scores, queries, documents):
    """Against float64, on a few documents."""
    left = to_float32(queries).astype(np.float64)
    for i in {0, len(documents) // 2, len(documents) - 1}:
        right = to_float32(documents[i]).astype(np.float64)
        np.testing.assert_allclose(scores[:, i], (left @ right.T).max(2).sum(1), rtol=1e-5)


def describe(benchmark, name, dtype, threads):
    shape = MAXSIM_SHAPES[name]
    git = ["git", "describe", "--always", "--dirty"]
    benchmark.group = f"{name} {dtype}" + ("" if threads == 1 else " all threads")
    benchmark.extra_info.update(
        workload=name,
        dtype=dtype,
        threads=threads,
        isa=_cpu.active_isa(),
        backends=explain(),
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
        commit=subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    )
    tokens = shape.n * shape.Ld
    benchmark.extra_info["ns_per_token_and_32_query_tokens"] = (
        benchmark.stats.stats.min / tokens / (shape.Nq * shape.Lq / 32) * 1e9 if benchmark.stats else None
    )


@pytest.fixture(params=LEVELS)
def isa(request):
    before = _cpu.active_isa()
    _cpu.set_active_isa(request.param)
    yield request.param
    _cpu.set_active_isa(before)


@pytest.mark.parametrize("dtype", CASTS)
@pytest.mark.parametrize("name", MAXSIM_SHAPES)
def bench_maxsim(benchmark, name, dtype, isa):
    queries, documents = workload(name, dtype)
    scores = benchmark(maxsim, queries, documents, threads=1)
    check(scores, queries, documents)
    describe(benchmark, name, dtype, 1)


@pytest.mark.parametrize("dtype", CASTS)
@pytest.mark.parametrize("name", MAXSIM_SHAPES)
def bench_maxsim_all_threads(benchmark, name, dtype):
    queries, documents = workload(name, dtype)
    scores = benchmark(maxsim, queries, documents)
    check(scores, queries, documents)
    describe(benchmark, name, dtype, _cpu.default_threads())


@pytest.mark.parametrize("name", MAXSIM_SHAPES)
def bench_maxsim_sketched(benchmark, name):
    """Documents whose sketch was made before; bench_sketch says what that takes."""
    queries, documents = workload(name, "float32")
    sketched = Sketched.of(documents)
    scores = benchmark(maxsim, queries, sketched, threads=1)
    np.testing.assert_array_equal(scores, maxsim(queries, documents))
    describe(benchmark, name, "float32", 1)


@pytest.mark.parametrize("name", MAXSIM_SHAPES)
def bench_sketch(benchmark, name):
    _, documents = workload(name, "float32")
    benchmark(_cpu.sketch, documents.tokens, 1)
    describe(benchmark, name, "float32 sketch", 1)


@pytest.mark.parametrize("name", MAXSIM_SHAPES)
def bench_numpy(benchmark, name):
    """What one writes without us; numpy uses the threads its BLAS likes."""
    queries, documents = workload(name, "float32")
    shape = MAXSIM_SHAPES[name]

    def plain():
        similarities = queries.reshape(-1, shape.dim) @ documents.tokens.T
        best = similarities.reshape(shape.Nq, shape.Lq, shape.n, shape.Ld).max(3)
        return best.sum(1)

    scores = benchmark(plain)
    check(scores, queries, documents)
    describe(benchmark, name, "float32", _cpu.default_threads())
