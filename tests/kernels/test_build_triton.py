"""The kernels of a build on a device, against the same stages in torch and on the CPU: the same integers."""

import itertools

import numpy as np
import pytest

from lateint import Index
from lateint_kernels import backends
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.centroids import subdivide
from lateint_kernels.codes.residual import depth_of

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if reason := backends.why_not("triton", "maxsim", DEVICE):
    pytest.skip(f"triton: {reason}", allow_module_level=True)

from lateint_kernels.codes.device.building import DeviceOperators  # noqa: E402
from lateint_kernels.codes.index_tensors import CentreTensors  # noqa: E402
from lateint_kernels.codes.torch import build as plain  # noqa: E402
from lateint_kernels.codes.triton import build  # noqa: E402
from lateint_kernels.codes.triton.tile_list import tile_list  # noqa: E402

pytestmark = pytest.mark.interpreted


def random_rows(rng, n, depth):
    return torch.from_numpy(rng.integers(-128, 128, (n, depth)).astype(np.int8)).to(DEVICE)


def centres(rng, n, depth):
    """Some of them equal, next to each other and far from each other."""
    rows = random_rows(rng, n, depth)
    rows[1::3] = rows[::3][: len(rows[1::3])]
    rows[-1] = rows[0]
    return CentreTensors.of(rows)


@pytest.mark.parametrize("depth", [64, 192, 704])
@pytest.mark.parametrize("count", [1, 3])
def test_best(depth, count):
    """Tiles of tokens and of centres that are full, and others that end within; few centres, and ties."""
    rng = np.random.default_rng(depth + count)
    for n, C in ((1, 3), (128, 64), (129, 150)):
        rows, table = random_rows(rng, n, depth), centres(rng, C, depth)
        expected, found = (module.best(rows, table, count) for module in (plain, build))
        assert found.dtype == torch.int64 and torch.equal(expected, found)


@pytest.mark.parametrize("C", [3, 66, 128])
def test_the_last_centre_counts_once(C):
    """It is the nearest one, and repeated where a tile reaches past the end."""
    rng = np.random.default_rng(C)
    table = CentreTensors.of(random_rows(rng, C, 64))
    rows = table.rows[-1:].clone()
    for count in (2, 3):
        expected, found = (module.best(rows, table, count) for module in (plain, build))
        assert torch.equal(expected, found) and plain.id_of(found[0, 0], C) == C - 1


@pytest.mark.parametrize("value", [127, -128])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_numbers(value, sign):
    """The largest dim whose values share 32 bits with a column, and the largest of all; a tile of equal centres."""
    for depth in (640, 4096):
        rows = torch.full((2, depth), value, dtype=torch.int8, device=DEVICE)
        table = torch.full((130, depth), -128 if sign == 1 else 127, dtype=torch.int8, device=DEVICE)
        table = CentreTensors.of(table)
        count = 1 if depth == 640 else 2
        assert torch.equal(plain.best(rows, table, count), build.best(rows, table, count))


def test_more_than_a_program_keeps():
    rng = np.random.default_rng(0)
    rows, table = random_rows(rng, 5, 64), centres(rng, 20, 64)
    for count in (4, 5):
        assert torch.equal(plain.best(rows, table, count), build.best(rows, table, count))


@pytest.mark.parametrize("depth", [64, 192])
def test_best_of_cells(depth):
    """Cells of one centre, of a tile, and of a bit more; such that no token looks into, and such that many do."""
    rng = np.random.default_rng(depth)
    sizes = [1, 5, 128, 1, 130, 3]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)])).to(DEVICE)
    table = centres(rng, sum(sizes), depth)
    rows = random_rows(rng, 150, depth)
    for looked in ([[4, 0]] * 150, [[2, 1]] * 127 + [[5, 0]] * 23, [[1, 2]] * 128 + [[0, 1]] * 22):
        cells = torch.tensor(looked, dtype=torch.int32, device=DEVICE)
        expected, found = (module.best_of_cells(rows, cells, table, offsets) for module in (plain, build))
        assert torch.equal(expected, found)


@pytest.mark.parametrize("depth", [64, 192])
def test_all_of_cells(depth):
    """Cells of one centre and of as many as there is room for."""
    rng = np.random.default_rng(depth)
    sizes = [1, 16, 7, 16]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)])).to(DEVICE)
    table = centres(rng, sum(sizes), depth)
    rows = random_rows(rng, 150, depth)
    for looked in ([[3, 0]] * 150, [[2, 1]] * 127 + [[3, 0]] * 23, [[1, 2]] * 128 + [[0, 1]] * 22):
        cells = torch.tensor(looked, dtype=torch.int32, device=DEVICE)
        expected, found = (module.all_of_cells(rows, cells, table, offsets) for module in (plain, build))
        assert torch.equal(expected, found)


def test_tiles_are_of_one_cell():
    """Every pair is in one tile, and there are no more tiles than programs."""
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(rng.permutation(np.repeat([0, 2, 3, 6], [400, 128, 1, 71])).astype(np.int32)).reshape(
        -1, 3
    )
    tiles = tile_list(cells, 8, build.BLOCK_M)
    pairs = []
    for cell, first in zip(tiles.cells.tolist(), tiles.firsts.tolist(), strict=True):
        if cell < 8:
            last = min(first + build.BLOCK_M, int(tiles.starts[cell + 1]))
            assert first < last and (cells.flatten()[tiles.order[first:last]] == cell).all()
            pairs += tiles.order[first:last].tolist()
    assert sorted(pairs) == list(range(600))


def test_nearest():
    """Both levels together, against the compiled kernels of the CPU."""
    rng = np.random.default_rng(0)
    rows, cells = (rng.integers(0, 256, (n, 64)).astype(np.uint8) for n in (200, 9))
    centroids = rng.integers(0, 256, (60, 64)).astype(np.uint8)
    centroids[20:40:2] = centroids[21:41:2]
    offsets = np.array([0, 1, 8, 20, 24, 33, 34, 50, 55, 60])
    host, ours = HostOperators(), DeviceOperators(DEVICE, "triton")
    there = [torch.from_numpy((array ^ 128).view(np.int8)).to(DEVICE) for array in (rows, centroids, cells)]
    for searched, subcells in itertools.product((0, 1, 3), (None, subdivide(centroids, offsets))):
        expected = host.assigner(centroids, cells, offsets, subcells)(rows, searched)
        found = ours.assigner(there[1], there[2], offsets, subcells)(there[0], searched)
        np.testing.assert_array_equal(ours.host(found), expected)


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "size"), [(8, 0.1), (8, 20.0), (40, 20.0), (128, 20.0), (128, 300.0)])
def test_encode(nbits, width, size):
    """Residuals of all sizes: some beyond what bytes hold, and some that are zero."""
    rng = np.random.default_rng(width)
    centroids = rng.integers(0, 256, (9, depth_of(width))).astype(np.uint8)
    ids = rng.integers(0, 9, 70).astype(np.uint32)
    scaled = (size * rng.standard_normal((70, width))).astype(np.float32)
    scaled[::2] += centroids[ids[::2], :width].astype(np.float32) - 128
    scaled[:5] = centroids[ids[:5], :width].astype(np.float32) - 128
    scaled[5:9] += np.float32(1e-25) * rng.standard_normal((4, width)).astype(np.float32)
    host, ours = HostOperators(), DeviceOperators(DEVICE, "triton")
    there = (
        torch.from_numpy(array).to(DEVICE) for array in (scaled, ids.view(np.int32), (centroids ^ 128).view(np.int8))
    )
    for left, right in zip(ours.encode(*there, nbits), host.encode(scaled, ids, centroids, nbits), strict=True):
        np.testing.assert_array_equal(ours.host(left), right)


@pytest.mark.parametrize("dim", [7, 24])
def test_an_index(dim, monkeypatch):
    """All of it together: the arrays of a build on the CPU."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((300, dim)).astype(np.float32)
    settings = {"lengths": [30] * 10, "ncentroids": 30, "nbits": 2, "progress": False}
    expected = Index.build(tokens, **settings)
    resolve = backends.resolve
    monkeypatch.setattr(backends, "resolve", lambda op, *on, **by: build if op == "build" else resolve(op, *on, **by))
    found = Index.build(tokens, device="cuda" if DEVICE == "cuda" else "torch:cpu", **settings)
    arrays, others = expected._snapshot.state.arrays, found._snapshot.state.arrays
    assert others.keys() == arrays.keys()
    for name, array in arrays.items():
        assert others[name].dtype == array.dtype and others[name].tobytes() == array.tobytes(), name


def test_which_backend():
    assert DeviceOperators("cpu")._kernels is plain
    with pytest.raises(ValueError, match="backend must be one of cpp, cuda, torch, triton, got 'best'"):
        DeviceOperators("cpu", "best")
    if torch.cuda.is_available():
        assert DeviceOperators("cuda")._kernels is build
