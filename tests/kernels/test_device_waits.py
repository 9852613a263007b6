"""How often work on a GPU waits for it, without one: tensors that have a device and no numbers, and no kernels.

What asks such a tensor for a number, or has a shape that depends on numbers, fails. Copies between host and device are
counted as they pass by; what makes them is replaced where it needs a driver.
"""

from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
from random_index import make

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.backends.cuda.is_built():  # it can then not even index a tensor that is said to be there
    pytest.skip("this torch is built without CUDA; make test-preflmr has one that is not", allow_module_level=True)

from copies import Counted, on_device  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from lateint_kernels.codes.cuda import scoreboard  # noqa: E402
from lateint_kernels.codes.device import engine as device_engine  # noqa: E402
from lateint_kernels.codes.engine import Limits  # noqa: E402
from lateint_kernels.codes.triton import probe  # noqa: E402
from lateint_kernels.codes.triton import search as triton_search  # noqa: E402
from lateint_kernels.dense.problem import Problem  # noqa: E402
from lateint_kernels.dense.triton import retrieved as triton_retrieved  # noqa: E402
from lateint_kernels.gpu import program  # noqa: E402
from lateint_kernels.gpu.launch import ARCHITECTURES, Launch  # noqa: E402

GPU = program.Gpu("sm_90a", multiprocessors=132, shared_per_block=227 << 10, shared_per_multiprocessor=228 << 10)


@pytest.fixture
def engine(monkeypatch):
    """Of many documents, on a GPU that is not there; its kernels do nothing."""
    rng = np.random.default_rng(0)
    made = make(rng, [3] * 6000, count=80, cuts=(2000,))
    found = device_engine.DeviceEngine(made.codec, made.segments, "cpu")
    monkeypatch.setattr(Launch, "run", lambda self: None)
    for module in (triton_search, probe):
        monkeypatch.setattr(module, "architecture", lambda device: ARCHITECTURES[90])
        monkeypatch.setattr(module, "on", lambda device: nullcontext())
    monkeypatch.setattr(program, "gpu", lambda index: GPU)
    monkeypatch.setattr(program, "load", lambda *what: type("Kernel", (), {"launch": lambda *given: None}))
    monkeypatch.setattr(scoreboard, "pointer", lambda tensor: None)
    found.device, found._kernels, found._best_keys = torch.device("cuda:0"), triton_search, scoreboard.best_keys
    # What DeviceEngine._tensor copies from pinned memory.
    found._tensor = lambda array: on_device(torch.from_numpy(np.array(array)))
    with FakeTensorMode():
        found.index, found._rotation = on_devices(found.index), on_devices(found._rotation)
        yield found


def on_devices(arrays):
    parts = {field.name: getattr(arrays, field.name) for field in fields(arrays)}
    return replace(arrays, **{name: on_device(x) for name, x in parts.items() if isinstance(x, torch.Tensor)})


@pytest.mark.parametrize("lengths", [[32], [32, 1, 320, 7]])
@pytest.mark.parametrize("candidates", [552, 20_000])
@pytest.mark.parametrize("cells", [0, 3])
def test_a_search_waits_once(engine, lengths, candidates, cells):
    offsets = np.cumsum([0, *lengths])
    queries, allowed = np.ones((offsets[-1], 40), np.float32), np.ones(6000, np.uint8)
    limits = Limits(16, candidates, patience=96, cells=cells, deviations=3.0)
    with Counted() as counted:
        found = engine.search(queries, offsets, 10, limits, allowed=allowed)
    assert len(found) == len(lengths)
    assert counted.to_host == 1 and counted.to_device == []


def test_more_queries_than_fit_wait_once_for_each_batch(engine, monkeypatch):
    monkeypatch.setitem(device_engine.TOKENS, "cuda", 40)
    with Counted() as counted:
        engine.search(np.ones((96, 40), np.float32), np.array([0, 32, 64, 96]), 10, Limits(16, 100))
    assert counted.to_host == 3 and counted.to_device == []


@pytest.mark.parametrize("k", [5, 2000])
def test_xtr_selects_without_waiting(monkeypatch, k):
    """Of documents of several lengths, with a mask: so that a CUDA graph can record it."""
    launched = []
    monkeypatch.setattr(Launch, "run", lambda self: launched.append(self.kernel.__name__))
    monkeypatch.setattr(triton_retrieved, "architecture", lambda device: ARCHITECTURES[90])
    monkeypatch.setattr(triton_retrieved, "on", lambda device: nullcontext())
    with FakeTensorMode():
        tokens, offsets = torch.empty(320, 128, dtype=torch.bfloat16), torch.empty(11, dtype=torch.int64)
        queries, documents, offsets = on_device(tokens), on_device(tokens), on_device(offsets)
        mask = on_device(torch.empty(320, dtype=torch.bool))
        problem = Problem(queries, offsets, documents, offsets, 32, 50, document_mask=mask)
        with Counted() as counted:
            triton_retrieved.retrieved(problem, k)
    assert counted.to_host == 0 and counted.to_device == []
    assert launched[0] == "retrieve" and launched[-1] == "last_product"


def test_what_waits_is_noticed(engine):
    """The counter itself, with what a search must not do."""
    numbers = torch.empty(4, device="cuda:0")
    with Counted() as counted:
        numbers.to("cpu")
        numbers.new_tensor(127)
        numbers[-1] = 3
    assert counted.to_host == 1 and len(counted.to_device) == 2
    for wait in (lambda: numbers.max().item(), lambda: numbers[numbers > 0], lambda: numbers.nonzero()):
        with pytest.raises(Exception, match=r"aten\.(_local_scalar_dense|nonzero)"), Counted():
            wait()
