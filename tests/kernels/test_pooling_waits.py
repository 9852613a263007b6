"""Pooling on a GPU never waits for it, without one: see test_device_waits."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.backends.cuda.is_built():
    pytest.skip("this torch is built without CUDA; make test-preflmr has one that is not", allow_module_level=True)

from copies import Counted  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from lateint_kernels import RaggedTensor, backends, pool  # noqa: E402
from lateint_kernels.dense.triton import pooling as triton_pooling  # noqa: E402
from lateint_kernels.gpu.launch import Launch  # noqa: E402

LENGTHS = [18, 3, 40]


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_pooling_does_not_wait(backend, monkeypatch):
    """Offsets and places of runs are copied to the device, nothing to the host."""
    monkeypatch.setattr(Launch, "run", lambda self: None)
    monkeypatch.setattr(triton_pooling, "on", lambda device: nullcontext())
    module = backends._module(backends.MODULES["cluster"][backend])
    monkeypatch.setattr(backends, "resolve", lambda op, device, backend=None: module.cluster)
    with FakeTensorMode():
        tokens = torch.empty(sum(LENGTHS), 8, device="cuda:0", requires_grad=True)
        documents = RaggedTensor.from_lengths(tokens, LENGTHS)
        with Counted() as counted:
            pooled = pool(documents, 16, protected=1, backend=backend)
    assert len(pooled.tokens) == sum(1 + -(-(n - 1) // 16) for n in LENGTHS)
    assert counted.to_host == 0
    assert set(counted.to_device) <= {"aten._to_copy.default"}


def test_offsets_that_the_host_does_not_know_are_read():
    """What is counted is what would wait."""
    with FakeTensorMode():
        offsets = torch.empty(3, dtype=torch.int64, device="cuda:0")
        documents = RaggedTensor(torch.empty(9, 8, device="cuda:0"), offsets, 5)
        with Counted() as counted:
            found = documents.host_offsets
    assert len(found) == 3 and counted.to_host == 1
