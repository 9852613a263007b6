"""Every instruction set of this machine in turn, and what "as accurate as float32" means."""

import numpy as np
import pytest

from lateint_kernels import _cpu
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not


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
