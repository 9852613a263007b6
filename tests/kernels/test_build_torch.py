"""What a build computes on a device, against the compiled kernels: the same bits."""

import numpy as np
import pytest
from random_index import make

from lateint_kernels.codes import centroids as centroid_kernels
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.residual import NBITS, depth_of

torch = pytest.importorskip("torch")

from lateint_kernels.codes.device.building import DeviceOperators  # noqa: E402
from lateint_kernels.codes.torch import build  # noqa: E402
from lateint_kernels.codes.torch import search as codes  # noqa: E402

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
    operators = DeviceOperators(DEVICE, "torch")
    rotate = operators.rotation(codec.mean, codec.rotation, codec.permutation, codec.step)
    found = rotate(operators.put(tokens))
    assert torch.equal(found, rotate(tensor(tokens)))
    assert found.cpu().numpy().tobytes() == expected.tobytes()
    rows = build.to_bytes(found, depth_of(width))
    assert torch.equal(rows, signed(residual.to_bytes(expected)))


@pytest.mark.parametrize("subcells", [False, True])
@pytest.mark.parametrize("cells", [0, 1, 3, 4, 9])
def test_nearest(cells, subcells, small_steps):
    """Equal centroids, and tokens as far from one as from another, among them."""
    rng = np.random.default_rng(cells)
    codec = make(rng, [3], count=200, cells=9).codec
    rows = rng.integers(0, 256, (200, 64)).astype(np.uint8)
    rows[:, 40:] = 128
    codec.centroids[20:40:2] = codec.centroids[21:41:2]
    codec.cells[3] = codec.cells[4]
    divided = centroid_kernels.subdivide(codec.centroids, codec.cell_offsets) if subcells else None
    host = centroid_kernels.Assigner(codec.centroids, codec.cells, codec.cell_offsets, subcells=divided)
    expected = host.nearest(rows, cells=cells)
    operators = DeviceOperators(DEVICE, "torch")
    nearest = operators.assigner(signed(codec.centroids), signed(codec.cells), codec.cell_offsets, divided)
    np.testing.assert_array_equal(operators.host(nearest(signed(rows), cells)), expected)


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


def test_cluster_means(small_steps):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (100, 64)).astype(np.uint8)
    ids = rng.integers(0, 7, 100).astype(np.uint32)
    means, members = centroid_kernels.cluster_means(rows, ids, 9)
    found, counts = build.means(signed(rows), tensor(ids.astype(np.int64)), 9)
    np.testing.assert_array_equal(counts.cpu(), members)
    some = members > 0  # bytes are 0 there, and less 128 here, where there is nothing to take the mean of
    np.testing.assert_array_equal(found.cpu().numpy()[some], (means[some] ^ 128).view(np.int8))


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


def test_invert_in_ranges(monkeypatch):
    """Some lists are longer than what is sorted at a time, and some centroids have none."""
    rng = np.random.default_rng(0)
    offsets = np.arange(0, 401, 4).astype(np.int64)
    ids = np.minimum(rng.integers(0, 40, 400), 20).astype(np.uint32)
    monkeypatch.setitem(build.ENTRIES, DEVICE, 25)
    expected = centroid_kernels.invert(ids, offsets, 43)
    for left, right in zip(DeviceOperators(DEVICE, "torch").invert(ids, offsets, 43), expected, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_means_are_rounded_half_up():
    rows = tensor(np.array([[1, -1], [2, -2], [5, 5]], np.int8))
    found, members = build.means(rows, tensor(np.array([0, 0, 2])), 3)
    assert found[[0, 2]].tolist() == [[2, -1], [5, 5]] and members.tolist() == [2, 0, 1]


def test_means():
    """Of the CPU, in whose bytes 128 is 0; a row of the caller's choice where there is none."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (100, 64)).astype(np.uint8)
    ids = (rng.integers(0, 7, 100) * 2).astype(np.uint32)
    host, ours = HostOperators(), DeviceOperators(DEVICE, "torch")
    asked = []

    def others(n):
        asked.append(n)
        return np.arange(n) * 3

    expected = host.means(rows, ids, 14, others)
    np.testing.assert_array_equal(ours.host(ours.means(signed(rows), tensor(ids.view(np.int32)), 14, others)), expected)
    np.testing.assert_array_equal(expected[[1, 3]], rows[[0, 3]])
    assert asked == [7, 7]


def test_sort_and_take():
    rng = np.random.default_rng(0)
    rows, ids = rng.integers(0, 256, (50, 64)).astype(np.uint8), rng.integers(0, 6, 50).astype(np.uint32)
    host, ours = HostOperators(), DeviceOperators(DEVICE, "torch")
    expected, members = host.sort(rows, ids, 8)
    found, counts = ours.sort(signed(rows), tensor(ids.view(np.int32)), 8)
    np.testing.assert_array_equal(ours.host(found), expected)
    np.testing.assert_array_equal(counts, members)
    np.testing.assert_array_equal(ours.host(ours.take(signed(rows), np.array([4, 4, 0]))), rows[[4, 4, 0]])


def test_peaks(isa):
    rng = np.random.default_rng(0)
    scaled = (60 * rng.standard_normal((5000, 8))).astype(np.float32)
    rows = residual.to_bytes(scaled)
    largest = np.abs(scaled).max(1)
    np.testing.assert_array_equal(
        residual.peaks(rows, scaled), np.where((rows == 0).any(1) | (rows == 255).any(1), largest, 0)
    )
    expected = HostOperators().peaks(rows, scaled, 158.75)
    np.testing.assert_array_equal(expected, largest[largest > 158.75])
    found = DeviceOperators(DEVICE, "torch").peaks(signed(rows), tensor(scaled), 158.75)
    assert 0 < len(expected) < 5000 and found.tobytes() == expected.tobytes()
