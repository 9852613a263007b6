"""A plugin of pytest: what LATEINT_ADAPTER names is replaced by lateint while tests are collected and run.

How many scores were ours is written to the file LATEINT_CALLS, for a suite that never reached them would pass, too.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

KERNELS = ("late_interaction_kernels", "flash_maxsim")  # packages that no adapter is for
made: list[int] = [0]


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is imported, so that what tests import from the package is ours already where that matters."""
    name = os.environ.get("LATEINT_ADAPTER")
    if not name:
        return
    problem = importlib.import_module("lateint_kernels.dense.problem").Problem
    whole = problem.__init__

    def counted(self: Any, *given: Any, **named: Any) -> None:
        made[0] += 1
        whole(self, *given, **named)

    problem.__init__ = counted
    if name in KERNELS:
        importlib.import_module("benchmarks.adapters.kernel_packages").install(name)
        return
    switch = importlib.import_module(f"lateint_kernels.adapters.{name}").patch()
    config.add_cleanup(switch.undo)


def pytest_sessionfinish() -> None:
    """Writes the count."""
    Path(os.environ["LATEINT_CALLS"]).write_text(str(made[0]))
