"""Every instruction set and every backend of this machine in turn, and what "as accurate as float32" means."""

import os
import zlib
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from lateint_kernels import _cpu, backends
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not

DEVICE = "cpu"
if find_spec("torch") is not None:
    import torch

    if torch.cuda.is_available():
        DEVICE = "cuda"
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # its products are the same bits every time
    else:  # Triton looks at it when it is imported
        os.environ.setdefault("TRITON_INTERPRET", "1")


def patch_once():
    """Before each launch, and each call of a function in a kernel, the interpreter of Triton looks through all of
    `triton.language` for what it replaces, and this takes half of its time. Here it is replaced once."""
    import triton.language as tl
    from triton.runtime import interpreter

    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    nothing = SimpleNamespace(restore=lambda: None)
    interpreter._patch_lang = lambda fn: nothing


if find_spec("triton") is not None and backends.interpreting():
    patch_once()


CASES_A_KEPT_ONE = 4


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at marks
def pytest_collection_modifyitems(items):
    """Where a GPU's kernels are interpreted, most cases of a test are left to the long suite: all but the first, and
    those whose names say so, which is as good as by chance and the same every time."""
    if DEVICE == "cuda":
        return
    begun = set()
    for item in items:
        if item.get_closest_marker("interpreted") is None or item.get_closest_marker("long") is not None:
            continue
        if skipped_with_backend(item):
            continue
        test = item.nodeid.partition("[")[0]
        if test in begun and zlib.crc32(item.nodeid.encode()) % CASES_A_KEPT_ONE:
            item.add_marker(pytest.mark.long)
        begun.add(test)


@pytest.fixture
def device():
    """Where tensors of tests are."""
    return DEVICE


@pytest.fixture(
    params=[
        "torch",
        "cpp",
        *(pytest.param(n, marks=pytest.mark.interpreted) for n in ("triton", "triton-small")),
        "cuda",
    ]
)
def backend(request, monkeypatch):
    """Runs the test on each backend that can; "triton-small" has tiles so small that small inputs cross their edges."""
    pytest.importorskip("torch")
    name = request.param.removesuffix("-small")
    if reason := backends.why_not(name, "maxsim", DEVICE):
        pytest.skip(f"{name}: {reason}")
    small = name != request.param
    if reason := skipped_with_backend(request.node):
        pytest.skip(reason)
    if small:
        shrink_tiles(monkeypatch)
    return name


# What the interpreter, where a tile takes milliseconds, runs of parametrised tests; GPUs run everything.
INTERPRETED = {
    "dtype": ("torch.float32", "torch.bfloat16"),
    "dim": ("40", "128"),
    "length": ("1", "17", "65"),
    "kind": ("arbitrary",),
}
INTERPRETED_SMALL = {**INTERPRETED, "dtype": ("torch.bfloat16",), "length": ("33",), "dim": ("40",)}


def skipped_with_backend(item):
    """Why a test is not run with its backend, or None."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    small = params.get("backend") == "triton-small"
    if params.get("backend") in ("triton", "triton-small") and backends.interpreting():
        chosen = INTERPRETED_SMALL if small else INTERPRETED
        for name, value in params.items():
            if str(value) not in chosen.get(name, (str(value),)):
                return f"{name} {value} is left to GPUs, for the interpreter is slow"
    if small and item.get_closest_marker("any_tiles"):
        return "what torch does around a kernel does not depend on its tiles"
    return None


def shrink_tiles(monkeypatch):
    from lateint_kernels.gpu import launch

    def small(architecture):
        return replace(architecture, block_m=16, block_n=(16,), float32_block=16)

    whole = launch._architecture
    monkeypatch.setattr(launch, "INTERPRETER", small(launch.INTERPRETER))
    monkeypatch.setattr(launch, "_architecture", lambda index: small(whole(index)))


@pytest.fixture
def strict():
    """Uninitialised memory holds NaN or the largest integer, and what depends on the order of threads is an error."""
    torch = pytest.importorskip("torch")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request):
    """Runs the test on each instruction set; those that this machine lacks are skipped with the reason."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    before = _cpu.active_isa()
    _cpu.set_active_isa(request.param)
    yield request.param
    _cpu.set_active_isa(before)


@pytest.fixture
def assert_as_accurate():
    """``actual`` may be off from the float64 answer by at most twice what plain float32 is off, and a last bit."""

    def check(actual, exact, plain, floor=2e-7):
        assert actual.shape == exact.shape
        error = np.abs(actual.astype(np.float64) - exact).max()
        allowed = 2 * np.abs(plain.astype(np.float64) - exact).max() + floor * np.abs(exact).max()
        assert error <= allowed, f"off by {error:.3g}, allowed {allowed:.3g}"

    return check
