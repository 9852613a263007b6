"""What a build computes on a device, against the compiled kernels: the same bits."""

import numpy as np
import pytest
from random_index import make

from lateint_kernels import centroids as centroid_kernels
from lateint_kernels import residual
from lateint_kernels.residual import NBITS, depth_of

torch = pytest.importorskip("torch")

from lateint_kernels._torch import build, codes  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tensor(array):
    return torch.from_numpy(array).to(DEVICE)


def signed(rows):
    return tensor((rows ^ 128).view(np.int8))


@pytest.fixture
def small_steps(monkeypatch):
    """Work is cut into many pieces."""
    monkeypatch.setitem(codes.NUMBERS, DEVICE, 300)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("width", "dim"), [(8, 7), (40, 40), (104, 100), (128, 128), (320, 320)])
def test_rotate(width, dim, dtype):
    rng = np.random.default_rng(dim)
    codec = make(rng, [3], width=width, dim=dim).codec
    tokens = rng.standard_normal((33, dim)).astype(dtype)
    expected = residual.rotate(tokens, codec.mean, codec.rotation, codec.permutation, codec.step)
    found = build.rotate(tensor(tokens), codec)
    assert found.cpu().numpy().tobytes() == expected.tobytes()
    rows = build.to_bytes(found, depth_of(width))
    assert torch.equal(rows, signed(residual.to_bytes(expected)))


@pytest.mark.parametrize("cells", [0, 1, 3, 9])
def test_nearest(cells, small_steps):
    """Equal centroids, and tokens as far from one as from another, among them."""
    rng = np.random.default_rng(cells)
    codec = make(rng, [3], count=60, cells=9).codec
    rows = rng.integers(0, 256, (200, 64)).astype(np.uint8)
    rows[:, 40:] = 128
    codec.centroids[20:40:2] = codec.centroids[21:41:2]
    codec.cells[3] = codec.cells[4]
    expected = centroid_kernels.Assigner(codec.centroids, codec.cells, codec.cell_offsets).nearest(rows, cells=cells)
    centroids = build.CentroidTensors(signed(codec.centroids), signed(codec.cells), codec.cell_offsets.tolist())
    np.testing.assert_array_equal(build.nearest(signed(rows), centroids, cells).cpu(), expected)


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", [8, 40, 128])
@pytest.mark.parametrize("size", [0.1, 20.0, 300.0])
def test_encode(nbits, width, size):
    """Residuals of all sizes: some beyond what bytes hold, and some that are zero."""
    rng = np.random.default_rng(width)
    centroids = rng.integers(0, 256, (9, depth_of(width))).astype(np.uint8)
    ids = rng.integers(0, 9, 300).astype(np.uint32)
    scaled = (size * rng.standard_normal((300, width))).astype(np.float32)
    scaled[::2] += centroids[ids[::2], :width].astype(np.float32) - 128
    scaled[:5] = centroids[ids[:5], :width].astype(np.float32) - 128
    expected = residual.encode(scaled, ids, centroids, nbits)
    found = build.encode(tensor(scaled), tensor(ids.astype(np.int64)), signed(centroids), nbits)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left.cpu().numpy(), right)


def test_cluster_sums(small_steps):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (100, 64)).astype(np.uint8)
    ids = rng.integers(0, 7, 100).astype(np.uint32)
    sums, members = centroid_kernels.cluster_sums(rows, ids, 9)
    found, counts = build.cluster_sums(signed(rows), tensor(ids.astype(np.int64)), 9)
    np.testing.assert_array_equal(counts.cpu(), members)
    np.testing.assert_array_equal(found.cpu(), sums - 128 * members[:, None])


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1, 40], [0], [2]])
def test_invert(lengths):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, 6, offsets[-1]).astype(np.uint32)
    expected = centroid_kernels.invert(ids, offsets, 8)
    for dtype in (np.int64, np.int32):
        found = build.invert(tensor(ids.astype(dtype)), tensor(offsets), 8)
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left.cpu().numpy(), right)


def test_train():
    """Clusters that lie far apart are found, in cells; the same ones every time."""
    rng = np.random.default_rng(0)
    centres = rng.integers(-90, 90, (25, 64)).astype(np.int8)
    rows = tensor((centres[rng.integers(0, 25, 3000)] + rng.integers(-3, 4, (3000, 64))).astype(np.int8))
    settings = {"iterations": 8, "cells_searched": 3, "seed": 1}
    centroids = build.train(rows, 60, **settings)
    again = build.train(rows, 60, **settings)
    assert centroids.rows.shape == (60, 64) and torch.equal(centroids.rows, again.rows)
    assert centroids.cell_offsets[0] == 0 and centroids.cell_offsets[-1] == 60
    assert all(np.diff(centroids.cell_offsets) > 0) and len(centroids.cell_offsets) == len(centroids.cells) + 1
    found = centroids.rows[build.nearest(rows, centroids, 3)]
    assert (found.float() - rows.float()).square().sum(1).median() < 64 * 6


def test_means_are_rounded_half_up():
    rows = tensor(np.array([[1, -1], [2, -2], [5, 5]], np.int8))
    ids = tensor(np.array([0, 0, 2]))
    generator = torch.Generator(DEVICE).manual_seed(0)
    found = build.means(rows, ids, 3, generator).tolist()
    assert found[0] == [2, -1] and found[2] == [5, 5] and found[1] in rows.tolist()
