"""Where an index is searched or built: what users may say, and how it is refused."""

import re
import sys

import pytest

from lateint_kernels import BackendError, backends
from lateint_kernels.devices import HOST, Place


def test_the_cpu_needs_no_torch(monkeypatch):
    monkeypatch.setattr(backends, "has_torch", lambda: False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert Place.of() == Place.of("cpu") == Place.of(["cpu"]) == HOST and HOST.on_host
    with pytest.raises(BackendError, match=re.escape("device cuda needs torch, which is not installed")):
        Place.of("cuda")


def test_names():
    torch = pytest.importorskip("torch")
    assert Place.of(torch.device("cpu")).on_host
    one, two = Place.of("torch:cpu", 100), Place.of(["torch:cpu", "torch:cpu"])
    assert (one.devices, one.memory, str(one), one.on_host) == (("cpu",), 100, "torch:cpu", False)
    assert Place.of(str(two)) == two and two.devices == ("cpu", "cpu")


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        (0, TypeError, r"device must be a string or a torch\.device, or a list of them, got int"),
        (["torch:cpu", None], TypeError, r"device must be a string .* got NoneType"),
        ([], ValueError, "device must name one device at least, got an empty list"),
        ("", ValueError, "device must be cpu or cuda, got ''"),
        ("nowhere", ValueError, "device must be cpu or cuda, got 'nowhere'"),
        ("cpu:1", ValueError, "device must be cpu or cuda, got 'cpu:1'"),
        ("torch", ValueError, "device must be cpu or cuda, got 'torch'"),
        ("meta", ValueError, "device must be cpu or cuda, got 'meta'"),
        ("torch:cpu,cpu", ValueError, "several devices must all be cuda, got 'cpu'"),
        ("cuda:99", ValueError, r"device must be there, but torch finds \d+ of CUDA, got 'cuda:99'"),
        ("cuda:x", ValueError, r"device must be there, but torch finds \d+ of CUDA, got 'cuda:x'"),
    ],
)
def test_what_is_no_device(device, error, message):
    pytest.importorskip("torch")
    with pytest.raises(error, match=message):
        Place.of(device)


@pytest.mark.parametrize(
    ("device", "memory", "error", "message"),
    [
        ("cpu", 100, ValueError, "device_memory must be left out on the cpu"),
        ("torch:cpu", 0, ValueError, "device_memory must be at least 1, got 0"),
        ("torch:cpu", 1.5, TypeError, "device_memory must be an integer, got float"),
    ],
)
def test_memory(device, memory, error, message):
    pytest.importorskip("torch")
    with pytest.raises(error, match=message):
        Place.of(device, memory)
