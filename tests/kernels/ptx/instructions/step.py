"""What the scheduler is told of an instruction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Step:
    """``run(threads)``, and how it is scheduled.

    Kinds: ``plain``; ``jump`` to the place in detail; ``exit``; ``barrier`` with detail (number, count); ``warp``, for
    all lanes that the mask in detail names together; ``group``, for four warps together; ``yield``, after which another
    warp may come.
    """

    run: Callable[..., Any] | None
    kind: str = "plain"
    detail: Any = None


ALL = 0xFFFFFFFF
NOT_YET = object()  # what a group's `run` returns to be run again later


def whole_warp(run):
    """For all 32 lanes together."""
    return Step(run, "warp", lambda i: np.full(len(i), ALL, np.uint32))
