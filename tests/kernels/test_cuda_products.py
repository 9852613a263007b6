"""The kernel that decodes and multiplies residual codes: the integers of plain torch. Its PTX executed without a GPU,
and on one."""

import numpy as np
import pytest
from random_index import make

torch = pytest.importorskip("torch")

from ptx.cuda import ORDERS, Simulation  # noqa: E402

from lateint_kernels import backends  # noqa: E402
from lateint_kernels.codes.cuda import products  # noqa: E402
from lateint_kernels.codes.device.engine import DeviceEngine  # noqa: E402
from lateint_kernels.codes.engine import Limits  # noqa: E402
from lateint_kernels.codes.torch import search as torch_search  # noqa: E402
from lateint_kernels.gpu import program  # noqa: E402
from lateint_kernels.gpu import support as gpu_support  # noqa: E402

pytestmark = pytest.mark.interpreted

LENGTHS = [1, 32, 33, 8, 0, 40, 70]


@pytest.fixture(
    params=[*ORDERS, pytest.param("cuda", marks=pytest.mark.gpu)], ids=lambda given: "real" if given == "cuda" else ""
)
def device(request, monkeypatch):
    """A GPU: simulated, or real."""
    if request.param == "cuda":
        if reason := products.why_not("best_products", "cuda"):
            pytest.skip(reason)
        return "cuda"
    if reason := gpu_support._missing():
        pytest.skip(reason)
    Simulation(program.Gpu("sm_80", 2, 166912, 167936), **request.param).install(monkeypatch, products)
    return "cpu"


def same(device, query_lengths, positions, made, width):
    ours = DeviceEngine(made.codec, made.segments, device, "torch")
    cuts = np.concatenate([[0], np.cumsum(query_lengths)])
    rng = np.random.default_rng(1)
    queries = ours.prepared(rng.standard_normal((cuts[-1], width)).astype(np.float32), cuts)
    positions = torch.tensor(positions, device=device)
    wanted, found = (m.best_products(ours.index, queries, positions).cpu() for m in (torch_search, products))
    for i, length in enumerate(query_lengths):
        for c, position in enumerate(positions[i].tolist()):
            if position >= 0 and made.lengths[position]:
                assert torch.equal(found[i, c, :length], wanted[i, c, :length]), (i, c)


@pytest.mark.parametrize(
    ("width", "nbits"), [(128, 1), (128, 2), (128, 4), (128, 8), (64, 2), (64, 4), (64, 8), (256, 1), (256, 4)]
)
def test_products_are_those_of_torch(device, width, nbits):
    made = make(np.random.default_rng(width + nbits), LENGTHS, width=width, nbits=nbits, cuts=(2,))
    same(device, [1, 3, 20], [[0, 1, 2, 3, 4], [5, -1, 6, 1, 4], [2, 2, 0, 5, 6]], made, width)


def test_long_queries_are_cut_into_pieces(device, monkeypatch):
    monkeypatch.setattr(products, "TILES", (1, 2))
    made = make(np.random.default_rng(3), LENGTHS, width=128, nbits=2)
    same(device, [70, 2], [[0, 6], [5, 2]], made, 128)


def test_centroids_beyond_16_bits(device):
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 70_000, sum(LENGTHS)).astype(np.uint32)
    made = make(rng, LENGTHS, width=64, nbits=2, count=70_000, ids=ids)
    assert made.segments[0].centroid_high is not None and ids.max() >= 1 << 16
    same(device, [5], [[0, 1, 2, 3, 4, 5, 6]], made, 64)


def test_the_largest_levels(device):
    """Sums of centroid and level at both ends of a byte, with the largest scale."""
    for nbits in (1, 2, 4):
        made = make(np.random.default_rng(nbits), [64], width=128, nbits=nbits, count=4)
        made.segments[0].scales[:] = 255
        made.codec.centroids[:, :128] = np.array([[127], [128], [125], [130]])
        same(device, [4], [[0]], made, 128)


def test_a_search_finds_what_the_cpu_finds(device, monkeypatch):
    made = make(np.random.default_rng(5), [5, 9, 30] * 6, width=64, nbits=4)
    ours = DeviceEngine(made.codec, made.segments, device, "torch")
    monkeypatch.setattr(ours._kernels, "best_products", products.best_products)
    queries, offsets = np.random.default_rng(6).standard_normal((9, 64)).astype(np.float32), np.array([0, 2, 9])
    for ranking, expected in zip(
        *(engine.search(queries, offsets, 5, Limits(4, 12)) for engine in (ours, made.engine)), strict=True
    ):
        assert ranking[0].tolist() == expected[0].tolist() and ranking[1].tobytes() == expected[1].tobytes()


def test_other_widths_are_left_to_triton():
    made = make(np.random.default_rng(0), [3], width=96, nbits=2)
    assert not products.takes(DeviceEngine(made.codec, made.segments, "cpu", "torch").index)


def test_which_one_runs(monkeypatch):
    pytest.importorskip("triton")
    chosen = backends.resolve.__wrapped__
    monkeypatch.setattr(backends, "why_not", lambda *what: None)
    assert chosen("search", torch.device("cuda")).__name__ == "lateint_kernels.codes.triton.search"
    monkeypatch.setenv("LATEINT_CUDA", "first")
    assert chosen("search", torch.device("cuda")).__name__ == "lateint_kernels.codes.cuda.search"
    assert backends.preference("cpu") == ("cpp", "torch")


@pytest.mark.parametrize("shared", [227, 163, 99])
def test_queries_fit_into_shared_memory(shared):
    for width in (64, 128, 256):
        assert products.TILES[-1] * 16 * (width + 4) <= shared * 1024
