"""One table of backends, one rule: the best that can, or the one asked for and no other."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lateint_kernels import BackendError, backends, explain

CPU = SimpleNamespace(type="cpu")
DTYPE = "torch.float32"


@pytest.fixture
def modules(monkeypatch):
    """What modules have; a string says why one cannot be loaded."""
    found = {name: SimpleNamespace(maxsim=f"maxsim of {name}") for name in backends.NAMES}
    paths = {path: name for name, path in backends.MODULES["maxsim"].items()}
    monkeypatch.setattr(backends, "_module", lambda path: found[paths[path]])
    monkeypatch.setattr(backends, "has_torch", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backends.resolve.cache_clear()
    yield found
    backends.resolve.cache_clear()


def resolve(op="maxsim", device=CPU, dtype=DTYPE, backend=None):
    return backends.resolve.__wrapped__(op, device, dtype, 128, backend)


def test_the_best_that_can(modules):
    assert resolve() == "maxsim of cpp"
    assert resolve(device=SimpleNamespace(type="cuda")) == "maxsim of triton"
    assert resolve(device=SimpleNamespace(type="mps")) == "maxsim of torch"
    modules["cpp"] = "cannot be loaded: it is broken"
    assert resolve() == "maxsim of torch"
    modules["cuda"].why_not = lambda op, device, dtype, dim: f"takes no dim {dim}"
    assert resolve(device=SimpleNamespace(type="cuda")) == "maxsim of triton"
    assert resolve(dtype="torch.float64") == "maxsim of torch"


def test_the_one_asked_for_or_none(modules):
    assert resolve(backend="torch") == "maxsim of torch"
    for backend, reason in (("triton", "runs on cuda only"), ("cuda", "runs on cuda only")):
        with pytest.raises(BackendError, match=f"cannot run maxsim of float32 on cpu: {backend}: {reason}"):
            resolve(backend=backend)
    with pytest.raises(BackendError, match="cpp: takes float32, float16 and bfloat16, not float64"):
        resolve(dtype="torch.float64", backend="cpp")
    with pytest.raises(BackendError, match="cannot run best_keys on cpu: triton: has no best_keys"):
        resolve("best_keys", dtype=None, backend="triton")
    with pytest.raises(ValueError, match="backend must be one of cpp, cuda, torch, triton, got 'numpy'"):
        resolve(backend="numpy")


def test_triton_interprets_on_the_cpu(modules, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve(backend="triton") == "maxsim of triton"
    assert resolve() == "maxsim of cpp"


def test_a_missing_module_says_so(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(backends.MODULES["maxsim"], "cpp", "lateint_kernels.not_there")
    backends._module.cache_clear()
    assert "cannot be loaded: No module named 'lateint_kernels.not_there'" in backends.why_not("cpp", "maxsim", "cpu")
    backends._module.cache_clear()


def test_without_torch(modules, monkeypatch):
    monkeypatch.setattr(backends, "has_torch", lambda: False)
    assert backends.why_not("cpp", "maxsim", "cpu") == "torch is not installed"
    assert explain()["tensors"] == "torch is not installed"


def test_explain_tells_of_every_backend():
    pytest.importorskip("torch")
    report = explain()
    assert "torch: ready" in report["on cpu"] and "cpp: " in report["on cpu"]
    assert report["on cuda"]


def test_explain_tells_who_adds_up_coarse_scores(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "why_not", lambda name, op, kind: "not now" if op == "best_keys" else None)
    assert explain()["coarse scores on cuda"] == "cuda: not now; torch: ready"


def test_arrays_load_no_torch():
    program = """
import sys
import numpy as np
sys.modules["torch"] = None  # importing it now fails
from lateint_kernels import maxsim, explain
tokens = np.ones((2, 3, 4), np.float32)
assert maxsim(tokens, tokens, document_mask=np.ones((2, 3)), normalize=True, return_argmax=True)[0][0, 0] == 3
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
