"""Ray, started without what it would tell others."""

from __future__ import annotations

import os
from typing import Any


def ray() -> Any:
    """The package.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ImportError("lateint_ray needs Ray: pip install 'lateint[ray]'") from None
    return ray


def start(**options: Any) -> None:
    """Starts Ray on this machine, or joins the cluster of ``RAY_ADDRESS``, unless that is done; others call it, too.

    Usage statistics and the dashboard are off.

    Args:
        options: of ``ray.init``.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if ray().is_initialized():
        return
    if "address" not in options and "RAY_ADDRESS" not in os.environ:
        options = {"include_dashboard": False, **options}
    ray().init(**{"log_to_driver": False, **options})
