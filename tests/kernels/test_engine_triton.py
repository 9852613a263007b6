"""The kernels of a search on a device, against the same stages in torch: the same integers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from random_index import make

from lateint_kernels import backends
from lateint_kernels.codes.engine import Limits
from lateint_kernels.codes.residual import NBITS

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if reason := backends.why_not("triton", "maxsim", DEVICE):
    pytest.skip(f"triton: {reason}", allow_module_level=True)

from lateint_kernels.codes.device.engine import DeviceEngine  # noqa: E402
from lateint_kernels.codes.index_tensors import size_of_lists  # noqa: E402
from lateint_kernels.codes.torch import search as codes  # noqa: E402
from lateint_kernels.codes.triton import probe, search  # noqa: E402

pytestmark = pytest.mark.interpreted


def device_engine(made, backend="triton"):
    return DeviceEngine(made.codec, made.segments, DEVICE, backend)


def prepared(ours, rng, lengths, dim):
    cuts = np.concatenate([[0], np.cumsum(lengths)])
    return ours.prepared(rng.standard_normal((cuts[-1], dim)).astype(np.float32), cuts)


@pytest.mark.parametrize(("width", "dim"), [(8, 7), (40, 40), (104, 100), (128, 128)])
def test_rotate(width, dim):
    rng = np.random.default_rng(dim)
    ours = device_engine(make(rng, [3], width=width, dim=dim))
    tokens = torch.from_numpy(rng.standard_normal((21, dim)).astype(np.float32)).to(DEVICE)
    expected, found = (module.rotate(tokens, ours._rotation) for module in (codes, search))
    assert found.cpu().numpy().tobytes() == expected.cpu().numpy().tobytes()


@pytest.mark.parametrize(
    ("width", "nbits"),
    [*itertools.product((8, 40, 128), NBITS), (640, 4), pytest.param(640, 8, marks=pytest.mark.long)],
)  # those of 640 differ from those of 128 in how often a loop runs
def test_best_products(width, nbits):
    """Documents that end within a tile and at its edge, none, and the same one twice; all codes and scales."""
    rng = np.random.default_rng(width + nbits)
    lengths, query_lengths = [1, 32, 33, 64, 0, 70, 128], [1, 3, 20]
    made = make(rng, lengths, width=width, nbits=nbits, cuts=(2,))
    ours = device_engine(made)
    queries = prepared(ours, rng, query_lengths, width)
    positions = torch.tensor([[0, 1, 2, 3, 4], [5, -1, 6, 1, 4], [2, 2, 0, 5, 6]], device=DEVICE)
    expected, found = (module.best_products(ours.index, queries, positions) for module in (codes, search))
    assert found.shape == (3, 5, 20) and found.dtype == torch.int32
    for i, length in enumerate(query_lengths):
        for c, position in enumerate(positions[i].tolist()):
            if position >= 0 and lengths[position]:
                assert found[i, c, :length].tolist() == expected[i, c, :length].tolist()


def test_best_products_of_a_long_query():
    """More tokens than a program takes."""
    rng, length = np.random.default_rng(0), 290
    ours = device_engine(make(rng, [40, 5], nbits=2))
    queries = prepared(ours, rng, [length], 40)
    positions = torch.tensor([[1, 0]], device=DEVICE)
    assert search.scoring_tiles(length, 22, 40)[0] < length
    expected, found = (module.best_products(ours.index, queries, positions) for module in (codes, search))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_probe(count, monkeypatch):
    """Few groups and many, equal centroids in several of them, tokens in more than one go."""
    rng = np.random.default_rng(count)
    made = make(rng, [4], count=count)
    made.codec.centroids[::3] = made.codec.centroids[0]
    ours = device_engine(made)
    queries = prepared(ours, rng, [3, 4], 40)
    monkeypatch.setattr(probe, "MAXIMA", 4 * -(-count // probe.GROUP))
    for wanted in {1, count}:
        expected, found = (module.probe(queries.bytes, ours.index.centroids, wanted) for module in (codes, search))
        for left, right in zip(expected, found, strict=True):
            assert left.dtype == right.dtype and torch.equal(left, right)


@pytest.mark.parametrize(
    ("count", "cells", "looked_into"),
    [pytest.param(300, 12, 1, marks=pytest.mark.long), (300, 12, 5), (400, 3, 2), (40, 40, 7)],
)
def test_probe_cells(count, cells, looked_into, monkeypatch):
    """Cells of more groups than one and of single centroids; what is missing has the least product."""
    rng = np.random.default_rng(count)
    made = make(rng, [4], count=count, cells=cells)
    made.codec.centroids[::3] = made.codec.centroids[0]
    made.codec.cell_offsets[1:-1] = np.sort(rng.choice(np.arange(1, count), cells - 1, replace=False))
    ours = device_engine(made)
    queries = prepared(ours, rng, [3, 4, 20, 1], 40)
    wanted = torch.from_numpy(np.argsort(rng.random((28, cells)))[:, :looked_into].copy()).to(DEVICE)
    sizes = np.diff(made.codec.cell_offsets)[wanted.cpu().numpy()].sum(1)
    for asked, at_once in ((1, probe.MAXIMA), (30, probe.MAXIMA), (count, 10 * looked_into)):
        monkeypatch.setattr(probe, "MAXIMA", at_once * -(-ours.index.largest_cell // probe.GROUP))
        products, ids = codes.probe_cells(ours.index, queries.bytes, wanted, asked)
        found = search.probe_cells(ours.index, queries.bytes, wanted, asked)
        there = products > codes.LEAST
        assert torch.equal(found[0], products) and torch.equal(found[1][there], ids[there])
        assert there.sum(1).tolist() == sizes.clip(max=asked).tolist()


def test_weighted():
    rng = np.random.default_rng(0)
    best = torch.from_numpy(rng.integers(-(2**28), 2**28, (3, 300, 40)).astype(np.int32)).to(DEVICE)
    scales, constants = (torch.from_numpy(rng.standard_normal(shape)).to(DEVICE) for shape in ((3, 40), 3))
    assert torch.equal(search.weighted(best, scales, constants), codes.weighted(best, scales, constants))
    part = best[:1, :, 7:20], scales[:1, 7:20], constants[:1]
    assert torch.equal(search.weighted(*part), codes.weighted(*part))


def test_search():
    """All of it together, with the engine of the CPU beside."""
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(0, 20, 60).tolist(), nbits=2, cuts=(25,), count=80)
    ours = device_engine(made)
    offsets = np.array([0, 3, 4, 9])
    queries = rng.standard_normal((9, 40)).astype(np.float32)
    for found, expected in (
        (
            ours.search(queries, offsets, 4, Limits(3, 20, patience=32)),
            made.engine.search(queries, offsets, 4, Limits(3, 20, patience=32)),
        ),
        (ours.exhaustive(queries, offsets, 7), made.engine.exhaustive(queries, offsets, 7)),
    ):
        for left, right in zip(found, expected, strict=True):
            assert left[0].tolist() == right[0].tolist() and left[1].tobytes() == right[1].tobytes()


def test_documents_on_the_host():
    """Scored where a cache has put them."""
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(0, 20, 60).tolist(), nbits=2, cuts=(25,), count=80)
    memory = size_of_lists(made.codec, made.segments) + 3000
    ours = DeviceEngine(made.codec, made.segments, DEVICE, "triton", memory)
    query, positions = rng.standard_normal((5, 40)).astype(np.float32), rng.integers(0, 60, 90)
    assert ours._cache is not None
    assert ours.score(query, positions).tobytes() == made.engine.score(query, positions).tobytes()


def test_search_through_cells():
    """Fewer centroids in the cells of some tokens than are asked for."""
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(0, 20, 60).tolist(), cuts=(25,), count=80, cells=16)
    made.codec.cell_offsets[1:-1] = np.sort(rng.choice(np.arange(1, 80), 15, replace=False))
    made = replace(made)
    ours, offsets = device_engine(made), np.array([0, 1, 9, 12])
    queries = rng.standard_normal((12, 40)).astype(np.float32)
    assert len({*made.engine.probe(queries, offsets, 16, cells=1)[2].tolist()}) > 1
    for cells in (1, 3, 16):
        limits = Limits(8, 20, patience=32, cells=cells)
        found, expected = (engine.search(queries, offsets, 4, limits) for engine in (ours, made.engine))
        for left, right in zip(found, expected, strict=True):
            assert left[0].tolist() == right[0].tolist() and left[1].tobytes() == right[1].tobytes()


def test_which_backend():
    made = make(np.random.default_rng(0), [3])
    assert DeviceEngine(made.codec, made.segments, "cpu")._kernels is codes
    with pytest.raises(ValueError, match="backend must be one of cpp, cuda, torch, triton, got 'best'"):
        DeviceEngine(made.codec, made.segments, "cpu", "best")
    if torch.cuda.is_available():
        assert DeviceEngine(made.codec, made.segments, "cuda")._kernels is search
