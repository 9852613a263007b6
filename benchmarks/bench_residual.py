"""Residual codes: rotation, encoding, MaxSim on codes, and the search for centroids. Tokens are random.

pytest benchmarks/bench_residual.py --benchmark-group-by=group
"""

import platform
import subprocess
from functools import lru_cache

import numpy as np
import pytest

from benchmarks.shapes import CENTROID_SHAPES, CODES_SHAPES
from lateint.indexing.clustering import group
from lateint.indexing.codec import train_rotation
from lateint_kernels import _cpu, explain
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.centroids import Assigner, invert
from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.residual import decode, depth_of, encode, rotate, split_ids, to_bytes
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not

LEVELS = [isa for isa in INSTRUCTION_SETS if isa != "scalar" and why_not(isa) is None] or ["scalar"]
ENCODED = 1 << 15  # tokens


@pytest.fixture(params=LEVELS)
def isa(request):
    before = _cpu.active_isa()
    _cpu.set_active_isa(request.param)
    yield request.param
    _cpu.set_active_isa(before)


def describe(benchmark, name, count, unit="token"):
    git = ["git", "describe", "--always", "--dirty"]
    benchmark.group = name
    benchmark.extra_info.update(
        workload=name,
        threads=1,
        isa=_cpu.active_isa(),
        backends=explain(),
        numpy=np.__version__,
        machine=platform.processor() or platform.machine(),
        commit=subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    )
    benchmark.extra_info[f"ns_per_{unit}"] = benchmark.stats.stats.min / count * 1e9 if benchmark.stats else None


def bytes_around(rng, centres, n):
    """Bytes near random ones of ``centres``."""
    noise = rng.normal(0, 12, (n, centres.shape[1]))
    return np.clip(centres[rng.integers(0, len(centres), n)] + noise, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def codes(name):
    """An engine over random codes, a query, and the decoded tokens of the last document."""
    shape, rng = CODES_SHAPES[name], np.random.default_rng(0)
    count, tokens, width = 5000, shape.n * shape.Ld, shape.dim
    rotation = train_rotation(rng.standard_normal((2000, width)).astype(np.float32), seed=0, threads=0)
    centroids = np.full((count, depth_of(width)), 128, np.uint8)
    centroids[:, :width] = rng.integers(96, 160, (count, width))
    ids = rng.integers(0, count, tokens).astype(np.uint32)
    code = rng.integers(0, 256, (tokens, width * shape.nbits // 8), dtype=np.uint8)
    scales = rng.integers(1, 60, tokens).astype(np.uint8)
    offsets = np.arange(shape.n + 1, dtype=np.int64) * shape.Ld
    low, high = split_ids(ids, count)
    codec = CodecArrays(
        rotation.mean,
        rotation.blocks,
        rotation.permutation,
        centroids,
        centroids[:1],
        np.array([0, count]),
        rotation.step,
        shape.nbits,
    )
    lists = invert(ids, offsets, count)
    segment = SegmentArrays(offsets, code, None if shape.nbits == 8 else scales, low, high, *lists)
    query = rng.standard_normal((shape.Lq, width)).astype(np.float32)
    last = slice(offsets[-2], offsets[-1])
    rows = decode(code[last], scales[last], ids[last], centroids, shape.nbits, width)
    return Engine(codec, [segment]), query, rows


@pytest.mark.parametrize("name", CODES_SHAPES)
def bench_score(benchmark, name, isa):
    """MaxSim on codes, centroids and scales included; documents in random order, as candidates are."""
    engine, query, rows = codes(name)
    shape = CODES_SHAPES[name]
    positions = np.random.default_rng(1).permutation(shape.n)
    scores = benchmark(engine.score, query, positions, threads=1)
    integers, scales, constant = engine.prepare(query)
    products = integers[:, : shape.dim].astype(np.float64) @ (rows.astype(np.float64) - 128).T
    expected = constant + (scales * products.max(1)).sum()
    np.testing.assert_allclose(scores[positions == shape.n - 1], expected, rtol=1e-5)
    describe(benchmark, name, shape.n * shape.Ld)


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def bench_encode(benchmark, nbits, isa):
    rng = np.random.default_rng(0)
    centroids = rng.integers(96, 160, (1000, 128)).astype(np.uint8)
    ids = rng.integers(0, 1000, ENCODED).astype(np.uint32)
    scaled = (centroids[ids] - 128.0 + rng.normal(0, 12, (ENCODED, 128))).astype(np.float32)
    code, scales = benchmark(encode, scaled, ids, centroids, nbits, threads=1)
    error = decode(code, scales, ids, centroids, nbits, 128) - 128.0 - scaled
    assert np.sqrt((error**2).mean()) < {1: 8, 2: 5, 4: 1.5, 8: 0.5}[nbits]
    describe(benchmark, f"encode-{nbits}bit", ENCODED)


@pytest.mark.parametrize("dim", [96, 128, 1024])
def bench_rotate(benchmark, dim, isa):
    tokens = np.random.default_rng(0).standard_normal((ENCODED // 4, dim)).astype(np.float32)
    turn = train_rotation(tokens[:1000], seed=0, threads=0)
    args = tokens, turn.mean, turn.blocks, turn.permutation, turn.step
    turned = benchmark(rotate, *args, threads=1)
    lengths = np.linalg.norm(turned, axis=1) * turn.step
    np.testing.assert_allclose(lengths, np.linalg.norm(tokens - turn.mean, axis=1), rtol=1e-4)
    describe(benchmark, f"rotate-d{dim}", len(tokens))


@lru_cache(maxsize=1)
def centroids_of(name):
    """Centroids in cells, and tokens near them."""
    shape, rng = CENTROID_SHAPES[name], np.random.default_rng(0)
    topics = rng.integers(60, 196, (max(1, round(shape.K**0.5)), shape.dim))
    rows = bytes_around(rng, topics, shape.K)
    return group(rows, None, rng, HostOperators(), iterations=1), bytes_around(rng, rows, shape.n)


@pytest.mark.parametrize("name", CENTROID_SHAPES)
def bench_assign(benchmark, name, isa):
    """The nearest centroid of every token of a build."""
    centroids, tokens = centroids_of(name)
    shape = CENTROID_SHAPES[name]
    assigner = Assigner(centroids.rows, centroids.cells, centroids.cell_offsets)
    ids = benchmark(assigner.nearest, tokens, cells=shape.cells, threads=1)
    some = slice(0, shape.n, shape.n // 64)
    products = tokens[some].astype(np.float64) @ centroids.rows.astype(np.float64).T
    distances = (centroids.rows.astype(np.float64) ** 2).sum(1) - 2 * products
    nearest = distances.argmin(1) == ids[some]
    assert nearest.mean() > (0.9 if shape.cells else 0.98)  # ties, and cells not looked into
    describe(benchmark, name, shape.n)


@pytest.mark.parametrize("name", CENTROID_SHAPES)
@pytest.mark.parametrize("nprobe", [16])
def bench_probe(benchmark, name, nprobe, isa):
    """The best centroids of a query of 32 tokens, all scored or through cells; the time is that of a query."""
    centroids, tokens = centroids_of(name)
    shape = CENTROID_SHAPES[name]
    identity = np.eye(shape.dim, dtype=np.float32)[None]
    order = np.arange(shape.dim, dtype=np.int32)
    codec = CodecArrays(
        np.zeros(shape.dim, np.float32),
        identity,
        order,
        centroids.rows,
        centroids.cells,
        centroids.cell_offsets,
        1.0,
        8,
    )
    ids = np.arange(len(centroids), dtype=np.uint32)
    offsets = np.arange(len(centroids) + 1, dtype=np.int64)
    low, high = split_ids(ids, len(centroids))
    lists = invert(ids, offsets, len(centroids))
    # One document a centroid, so that candidates are centroids.
    engine = Engine(codec, [SegmentArrays(offsets, centroids.rows[:, : shape.dim].copy(), None, low, high, *lists)])
    query = tokens[:32].astype(np.float32) - 128
    cells = 4 * shape.cells
    found = benchmark(engine.gather, query, Limits(nprobe, 32 * nprobe, cells=cells))
    exact = (query @ (centroids.rows.astype(np.float32) - 128).T).argmax(1)
    assert np.isin(exact, found.positions).mean() > (0.85 if cells else 0.98)
    describe(benchmark, f"probe-{name}", 1, "query")


def bench_to_bytes(benchmark, isa):
    scaled = np.random.default_rng(0).normal(0, 30, (ENCODED, 128)).astype(np.float32)
    rows = benchmark(to_bytes, scaled, threads=1)
    np.testing.assert_array_equal(rows, np.clip(np.round(scaled) + 128, 0, 255))
    describe(benchmark, "to-bytes", ENCODED)
