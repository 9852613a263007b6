"""Progress bars on standard error, where there is one."""

from __future__ import annotations

import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without ipywidgets gets bars of text, which will do
    from tqdm.auto import tqdm


def bar(
    total: int | None, what: str, unit: str, *, shown: bool = True, scaled: bool = False, stays: bool = False
) -> Any:
    """A bar of ``total`` steps (None: it is not known), to be used as a context manager and told ``update(steps)``.

    Args:
        scaled: write 1.5M for 1,500,000.
        stays: leave the bar there when it is full; only the last one of a task does.
    """
    there = sys.stderr is not None and not sys.stderr.closed  # a service or a window may have none
    return tqdm(total=total, desc=what, unit=unit, unit_scale=scaled, leave=stays, disable=not (shown and there))
