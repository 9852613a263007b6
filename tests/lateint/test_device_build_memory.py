"""A build on a device takes the memory that a formula says beforehand, and does not begin where there is less."""

from contextlib import contextmanager

import pytest

from lateint import Index
from lateint.indexing import builder, clustering

torch = pytest.importorskip("torch")

from device_builds import DEVICES, shrink  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lateint_kernels.codes.device import building  # noqa: E402
from lateint_kernels.codes.torch import build  # noqa: E402
from lateint_kernels.codes.torch import search as codes  # noqa: E402


class Allocated(TorchDispatchMode):
    """Bytes of all tensors but ``others`` that live at a time, at most; what an operator needs within is not seen."""

    def __init__(self, *others):
        super().__init__()
        self.others = {tensor.untyped_storage().data_ptr() for tensor in others}
        self.live, self.most, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        found = function(*arguments, **(named or {}))
        for tensor in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() in self.others:
                    continue
                at, size = storage.data_ptr(), storage.nbytes()
                self.most += size - self.live.get(at, (None, 0))[1]
                self.live[at] = StorageWeakRef(storage), size
        if self.most > self.peak:  # with those that live no more, which are looked for only then
            self.live = {at: (ref, size) for at, (ref, size) in self.live.items() if not ref.expired()}
            self.most = sum(size for _, size in self.live.values())
            self.peak = max(self.peak, self.most)
        return found


@contextmanager
def counted(device, *others):
    """A function that gives the most bytes so far."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
    else:
        with Allocated(*others) as allocated:
            yield lambda: allocated.peak


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """On which a build goes in small steps, so that arrays are most of what it takes."""
    where = request.param
    shrink(monkeypatch, where, (codes.NUMBERS, 1 << 15), (building.ASSIGNED, 1 << 9), (build.ENCODED, 1 << 13))
    shrink(monkeypatch, where, (build.ENTRIES, 1 << 12))
    for name in ("CHUNK", "PILOT", "MEASURED"):
        monkeypatch.setattr(builder, name, 1 << 9)
    monkeypatch.setattr(building, "COMPONENTS", 8)
    monkeypatch.setattr(building, "WORKSPACE", 1 << 19)
    return where


@pytest.fixture
def taken(device, monkeypatch):
    """A build: what its formula is asked, what it answers, and the most bytes that lived at a time."""

    def measured(documents, *others, **settings):
        sizes, told = [], []
        monkeypatch.setattr(building.DeviceOperators, "check", lambda self, **known: sizes.append(known))
        monkeypatch.setattr(building.DeviceOperators, "release", lambda self: told.append(peak()))
        with counted(device, *others) as peak:
            Index.build(documents, device=device, progress=False, **settings)
        return sizes[0], building.device_bytes(**sizes[0]), told[0]

    return measured


@pytest.mark.parametrize(
    ("ncentroids", "nbits", "given"), [(500, 4, "host"), (40, 1, "host"), (500, 4, "list"), (40, 1, "padded")]
)
def test_memory(device, taken, clustered, ncentroids, nbits, given):
    """No more than the formula says, whether the sample takes the most or the lists do; input there is the caller's."""
    documents = clustered([7] * 4000, 8)
    tokens = torch.from_numpy(documents.tokens).to(device.removeprefix("torch:"))
    forms = {"host": documents, "padded": tokens.reshape(4000, 7, 8), "list": tokens.split(7)}
    sizes, formula, told = taken(forms[given], tokens, ncentroids=ncentroids, nbits=nbits)
    assert sizes["segment_tokens"] == 7 * 4000 and sizes["sample"] == builder.SAMPLE_PER_CENTROID * ncentroids
    assert formula // 2 < told <= formula


def test_memory_of_divided_cells(device, taken, clustered, monkeypatch):
    """Which are more arrays of centroids, for as long as tokens look for theirs."""
    monkeypatch.setattr(clustering, "DIVIDED", 1)
    monkeypatch.setattr(builder, "ITERATIONS", 1)
    # So little that two arrays of centroids too many are noticed. On a GPU, what operators need within is counted, too.
    monkeypatch.setattr(building, "WORKSPACE", 1 << (19 if device == "cuda" else 18))
    _, formula, told = taken(clustered([7] * 1750, 8), ncentroids=500, nbits=4)
    assert formula // 2 < told <= formula


def test_what_does_not_fit(clustered, monkeypatch):
    operators = building.DeviceOperators("cpu")
    operators.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 40))
    with pytest.raises(MemoryError, match=r"the build takes 4,.* bytes on cuda, of which only 1,073,741,824 are free"):
        operators.check(dim=128, centroids=1000, sample=32000, segment_tokens=1 << 20, segment_documents=1 << 13)
