"""A build on a device writes the files of a build on the CPU, byte for byte, and refuses and warns the same."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from lateint import Index, builder
from lateint_kernels.arrays import to_bfloat16

torch = pytest.importorskip("torch")

from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lateint_kernels._torch import build, building, codes  # noqa: E402

DEVICES = ["torch:cpu", *["cuda"] * torch.cuda.is_available()]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shrink(monkeypatch, device, *tables):
    """How much is done at a time."""
    for table, most in tables:
        monkeypatch.setitem(table, device.removeprefix("torch:"), most)


def check(tmp_path, device, documents, **settings):
    """Builds twice on the device and once on the CPU, all of them alike."""
    settings = {"progress": False, "allow_empty": True, "threads": 1, **settings}
    folders = [tmp_path / name for name in ("cpu", "device", "again")]
    for folder, where in zip(folders, ("cpu", device, device), strict=True):
        index = Index.build(documents, folder, device=where, **settings)
    expected, *found = map(files, folders)
    for other in found:
        assert other.keys() == expected.keys()
        assert [name for name in expected if other[name] != expected[name]] == []
    return index


@pytest.fixture(scope="module")
def ragged(clustered):
    lengths = [0, 3, 0, 0, 40, 1, 300, *np.random.default_rng(0).integers(0, 30, 120).tolist(), 0]
    return lambda dim: list(clustered(lengths, dim))


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [7, 100, 128])
def test_files(tmp_path, device, ragged, nbits, dim):
    check(tmp_path, device, ragged(dim), nbits=nbits)


@pytest.mark.parametrize("ncentroids", [1, 2, 150])
def test_centroids(tmp_path, device, ragged, ncentroids):
    """One, no more cells than are searched, and so many of so few distinct tokens that clusters stay empty."""
    documents = ragged(16)
    documents = [documents[4]] * 20 + documents[:30]
    assert check(tmp_path, device, documents, ncentroids=ncentroids).stats()["centroids"] == ncentroids


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(tmp_path, device, ragged, dtype):
    narrow = to_bfloat16 if dtype == "bfloat16" else lambda tokens: tokens.astype(dtype)
    check(tmp_path, device, [narrow(tokens) for tokens in ragged(24)])


def test_segments_and_chunks(tmp_path, device, ragged, monkeypatch):
    """Work is cut into many pieces, differently on the CPU and on the device; a mapped file cannot be written to."""
    monkeypatch.setattr(builder, "CHUNK", 100)
    monkeypatch.setattr(building, "COMPONENTS", 3 * 32)
    shrink(
        monkeypatch, device, (codes.NUMBERS, 400), (building.ASSIGNED, 70), (build.ENCODED, 320), (build.ENTRIES, 50)
    )
    documents = ragged(32)
    np.save(tmp_path / "tokens.npy", np.concatenate(documents))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    before = builder.plan

    def plan(*arguments, **settings):
        planned = before(*arguments, **settings)
        planned.segment_tokens = 350
        return planned

    monkeypatch.setattr(builder, "plan", plan)
    index = check(tmp_path, device, tokens, lengths=[len(document) for document in documents], ncentroids=40)
    assert index.stats()["segments"] > 4


def test_streams(tmp_path, device, ragged):
    """An iterable of chunks that are torch tensors."""
    documents = ragged(16)
    pieces = [(torch.from_numpy(np.concatenate(part)), list(map(len, part))) for part in (documents[:9], documents[9:])]
    check(tmp_path, device, pieces)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_bad_tokens_are_refused_alike(device, clustered, value):
    documents = list(clustered([30] * 40))
    documents[17] = documents[17].copy()
    documents[17][5] = value
    messages = []
    for where in ("cpu", device):
        with pytest.raises(ValueError, match="token 5 of document 17") as raised:
            Index.build(documents, device=where, progress=False)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_the_same_warning(device, clustered):
    tokens = clustered([50] * 20).tokens.copy()
    tokens[[3, 500]] *= 1000
    found = []
    for where in ("cpu", device):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Index.build(tokens, lengths=[50] * 20, device=where, progress=False)
        found.append([(str(warning.message), warning.filename) for warning in caught])
    assert found[0] == found[1]
    assert len(found[0]) == 1 and "2 of 1,000 tokens" in found[0][0][0] and found[0][0][1] == __file__


class Allocated(TorchDispatchMode):
    """Bytes of all tensors that live at a time, at most; what an operator needs within itself is not seen."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        found = function(*arguments, **(named or {}))
        for tensor in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.live = {at: (ref, size) for at, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return found


@contextmanager
def counted(device):
    """A function that gives the most bytes so far."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
    else:
        with Allocated() as allocated:
            yield lambda: allocated.peak


@pytest.mark.parametrize(("ncentroids", "nbits"), [(500, 4), (40, 1)])
def test_memory(device, clustered, monkeypatch, ncentroids, nbits):
    """No more than the formula says, whether the sample takes the most or the lists do."""
    shrink(monkeypatch, device, (codes.NUMBERS, 1 << 15), (building.ASSIGNED, 1 << 10), (build.ENCODED, 1 << 13))
    shrink(monkeypatch, device, (build.ENTRIES, 1 << 12))
    monkeypatch.setattr(builder, "CHUNK", 1 << 9)
    monkeypatch.setattr(building, "COMPONENTS", 8)
    monkeypatch.setattr(building, "WORKSPACE", 1 << 19)
    documents = clustered([7] * 8000, 8)
    sizes, told = [], []
    monkeypatch.setattr(building.DeviceOperators, "check", lambda self, **given: sizes.append(given))
    monkeypatch.setattr(building.DeviceOperators, "release", lambda self: told.append(peak()))
    with counted(device) as peak:
        Index.build(documents, device=device, ncentroids=ncentroids, nbits=nbits, progress=False)
    formula = building.device_bytes(**sizes[0])
    assert sizes[0]["segment_tokens"] == 7 * 8000 and sizes[0]["sample"] == 32 * ncentroids
    assert formula // 2 < told[0] <= formula


def test_what_does_not_fit(clustered, monkeypatch):
    operators = building.DeviceOperators("cpu")
    operators.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 40))
    with pytest.raises(MemoryError, match=r"the build takes 4,.* bytes on cuda, of which only 1,073,741,824 are free"):
        operators.check(dim=128, centroids=1000, sample=32000, segment_tokens=1 << 20, segment_documents=1 << 13)
